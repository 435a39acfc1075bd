#include "tensor/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file.h"

namespace openlora {
namespace {

constexpr int64_t kPage = 4096;

}  // namespace

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

Status MappedFile::Open(const std::string& path, MappedFile* file) {
  File source;
  OPENLORA_RETURN_IF_ERROR(File::Open(path, &source));
  MappedFile mapped;
  mapped.path_ = path;
  if (source.size() > 0) {
    void* data = ::mmap(nullptr, static_cast<size_t>(source.size()), PROT_READ, MAP_PRIVATE, source.descriptor(), 0);
    if (data == MAP_FAILED) return Error(kErrIo, "%s: can't be mapped: %s", path.c_str(), std::strerror(errno));
    mapped.data_ = static_cast<const uint8_t*>(data);
    mapped.size_ = source.size();
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

}  // namespace openlora
