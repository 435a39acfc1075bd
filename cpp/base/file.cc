#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace openlora {

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

File::File(File&& other) noexcept { *this = std::move(other); }

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(identity_, other.identity_);
  std::swap(path_, other.path_);
  return *this;
}

Status File::Open(const std::string& path, File* file) {
  File opened;
  opened.path_ = path;
  opened.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO would wait for a writer
  if (opened.descriptor_ < 0) return Error(kErrIo, "%s: can't be opened: %s", path.c_str(), std::strerror(errno));
  struct stat info;
  if (::fstat(opened.descriptor_, &info) != 0) return Error(kErrIo, "%s: %s", path.c_str(), std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return Error(kErrIo, "%s: not a regular file", path.c_str());
  opened.identity_ = {info.st_dev, info.st_ino, info.st_size,
                      int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
  *file = std::move(opened);
  return Ok();
}

Status File::ReadAt(int64_t offset, void* data, size_t bytes) const {
  uint8_t* next = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, next, std::min<size_t>(bytes, 1 << 30), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Error(kErrIo, "%s: read at %lld: %s", path_.c_str(), static_cast<long long>(offset), std::strerror(errno));
    if (got == 0)
      return Error(kErrIo, "%s: ends at byte %lld, %zu more were to be read", path_.c_str(),
                   static_cast<long long>(offset), bytes);
    next += got;
    offset += got;
    bytes -= static_cast<size_t>(got);
  }
  return Ok();
}

bool File::ReadCachedAt(int64_t offset, void* data, size_t bytes) const {
#ifdef RWF_NOWAIT
  uint8_t* next = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const struct iovec part{next, bytes};
    const ssize_t got = ::preadv2(descriptor_, &part, 1, offset, RWF_NOWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    next += got;
    offset += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
#else
  (void)offset, (void)data, (void)bytes;
  return false;
#endif
}

void File::WillNeed() const { (void)::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_WILLNEED); }

void File::DoneWith() const { (void)::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED); }

bool File::ForgetPages() const {
#ifdef POSIX_FADV_DONTNEED
  // Pages that aren't written yet would stay.
  return ::fdatasync(descriptor_) == 0 && ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED) == 0;
#else
  return false;
#endif
}

}  // namespace openlora
