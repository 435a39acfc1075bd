#include "base/scratch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace openlora {

ScratchFile::~ScratchFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status ScratchFile::Create(const std::string& folder) {
  folder_ = folder;
  std::string name = folder + "/scratch.tmp-XXXXXX";
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) return Error(kErrIo, "%s: can't be written: %s", folder.c_str(), std::strerror(errno));
  ::unlink(name.c_str());
  return Ok();
}

Status ScratchFile::Append(const void* data, size_t bytes, int64_t* offset) {
  const auto* next = static_cast<const uint8_t*>(data);
  for (int64_t at = end_; bytes > 0;) {
    const ssize_t put = ::pwrite(descriptor_, next, bytes, at);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Error(kErrIo, "%s: can't be written: %s", folder_.c_str(), std::strerror(errno));
    next += put;
    at += put;
    bytes -= static_cast<size_t>(put);
  }
  *offset = end_;
  end_ += next - static_cast<const uint8_t*>(data);
  return Ok();
}

Status ScratchFile::ReadAt(int64_t offset, void* data, size_t bytes) const {
  auto* next = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, next, bytes, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return Error(kErrIo, "%s: a scratch file can't be read at %lld: %s", folder_.c_str(),
                   static_cast<long long>(offset), got == 0 ? "it ends" : std::strerror(errno));
    next += got;
    offset += got;
    bytes -= static_cast<size_t>(got);
  }
  return Ok();
}

void ScratchFile::Free(int64_t offset, int64_t bytes) {
  (void)::fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}

}  // namespace openlora
