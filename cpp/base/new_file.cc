#include "base/new_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

namespace openlora {
namespace {

constexpr std::string_view kMark = ".tmp-";
constexpr std::string_view kUnknown = "XXXXXX";  // mkostemp puts others in their place
// Between making a file and locking it there is a moment; where nothing can be locked, a day must do.
constexpr std::chrono::minutes kAbandonedAfter{1}, kSurelyAbandonedAfter{24 * 60};

Status SystemError(const std::string& path, const char* what) {
  return Error(kErrIo, "%s: %s: %s", path.c_str(), what, std::strerror(errno));
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return path.substr(0, std::max<size_t>(slash, 1));
}

// The rename itself; file systems that can't do it know why.
void SyncFolder(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  (void)::fsync(descriptor);
  ::close(descriptor);
}

// False also where the file system has no locks.
bool IsUnlocked(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return false;
  const bool is_unlocked = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0;
  ::close(descriptor);
  return is_unlocked;
}

}  // namespace

Status MakePrivateFolder(const std::string& folder) {
  const std::string above = FolderOf(folder);
  const auto make = [&] { return ::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST; };
  if (make()) return Ok();
  if (errno != ENOENT || above == folder) return SystemError(folder, "can't be made");
  OPENLORA_RETURN_IF_ERROR(MakePrivateFolder(above));
  return make() ? Ok() : SystemError(folder, "can't be made");
}

NewFile::~NewFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
}

Status NewFile::Create(const std::string& path) {
  OPENLORA_RETURN_IF_ERROR(MakePrivateFolder(FolderOf(path)));
  path_ = path;
  std::string name = path + std::string(kMark) + std::string(kUnknown);
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);  // O_EXCL, mode 0600
  if (descriptor_ < 0) return SystemError(path, "can't be written");
  temporary_path_ = std::move(name);
  (void)::flock(descriptor_, LOCK_EX | LOCK_NB);
  return Ok();
}

Status NewFile::Write(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::write(descriptor_, next, std::min<size_t>(bytes, 1 << 30));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return SystemError(path_, "can't be written");
    next += put;
    bytes -= static_cast<size_t>(put);
  }
  return Ok();
}

Status NewFile::WriteAt(int64_t offset, const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::pwrite(descriptor_, next, std::min<size_t>(bytes, 1 << 30), offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return SystemError(path_, "can't be written");
    next += put;
    offset += put;
    bytes -= static_cast<size_t>(put);
  }
  return Ok();
}

Status NewFile::Sync() { return ::fsync(descriptor_) == 0 ? Ok() : SystemError(path_, "can't be written"); }

Status NewFile::Publish() {
  if (::rename(temporary_path_.c_str(), path_.c_str()) != 0) return SystemError(path_, "can't be written");
  temporary_path_.clear();
  return Ok();
}

Status NewFile::Commit() {
  OPENLORA_RETURN_IF_ERROR(Sync());
  OPENLORA_RETURN_IF_ERROR(Publish());
  SyncFolder(FolderOf(path_));
  return Ok();
}

void RemoveAbandonedFiles(const std::string& folder, const std::function<bool(std::string_view name)>& is_ours) {
  std::error_code error;
  const auto now = std::filesystem::file_time_type::clock::now();
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const size_t mark = name.rfind(kMark);
    if (mark == std::string::npos || mark + kMark.size() + kUnknown.size() != name.size()) continue;
    if (!is_ours(std::string_view(name).substr(0, mark))) continue;
    std::error_code gone;  // meanwhile, by another process
    const bool is_file = entry->symlink_status(gone).type() == std::filesystem::file_type::regular;
    if (!is_file) continue;
    const auto age = now - entry->last_write_time(gone);
    if (gone || age < kAbandonedAfter) continue;
    if (age > kSurelyAbandonedAfter || IsUnlocked(entry->path().string())) std::filesystem::remove(entry->path(), gone);
  }
}

}  // namespace openlora
