#include "tensor/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace openlora {
namespace {

constexpr int64_t kPage = 4096;

}  // namespace

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size()));
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(identity_, other.identity_);
  std::swap(path_, other.path_);
  return *this;
}

Status MappedFile::Open(const std::string& path, MappedFile* file) {
  File source;
  OPENLORA_RETURN_IF_ERROR(File::Open(path, &source));
  MappedFile mapped;
  mapped.path_ = path;
  mapped.identity_ = source.identity();
  if (source.size() > 0) {
    void* data = ::mmap(nullptr, static_cast<size_t>(source.size()), PROT_READ, MAP_PRIVATE, source.descriptor(), 0);
    if (data == MAP_FAILED) return Error(kErrIo, "%s: can't be mapped: %s", path.c_str(), std::strerror(errno));
    mapped.data_ = static_cast<const uint8_t*>(data);
  }
  *file = std::move(mapped);
  return Ok();
}

void MappedFile::WillNeed(int64_t offset, int64_t bytes) const {
  const int64_t begin = offset / kPage * kPage;
  if (data_ != nullptr)
    ::madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(offset + bytes - begin), MADV_WILLNEED);
}

void MappedFile::DoneWith(int64_t offset, int64_t bytes) const {
  // Whole pages only: a page shared with the next tensor stays.
  const int64_t begin = (offset + kPage - 1) / kPage * kPage;
  const int64_t end = (offset + bytes) / kPage * kPage;
  if (data_ != nullptr && end > begin)
    ::madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

Status MappedFile::Populate(int64_t offset, int64_t bytes) const {
  const int64_t begin = offset / kPage * kPage, end = offset + bytes;
  if (data_ == nullptr || bytes <= 0) return Ok();
#if defined(MADV_POPULATE_READ)  // Linux 5.14
  for (;;) {
    if (::madvise(const_cast<uint8_t*>(data_) + begin, static_cast<size_t>(end - begin), MADV_POPULATE_READ) == 0)
      return Ok();
    if (errno == EINVAL) break;  // an older system
    if (errno != EINTR && errno != EAGAIN)
      return Error(kErrIo, "%s: read at %lld: %s", path_.c_str(), static_cast<long long>(offset), std::strerror(errno));
  }
#endif
  WillNeed(offset, bytes);
  for (int64_t at = begin; at < end; at += kPage) (void)*static_cast<const volatile uint8_t*>(data_ + at);
  return Ok();
}

}  // namespace openlora
