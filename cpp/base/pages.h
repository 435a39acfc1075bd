#pragma once

#include <cstddef>
#include <utility>

namespace openlora {

// Zeroed anonymous memory straight from the operating system, aligned to a page, to 2 MiB from 2 MiB on (huge pages
// advised). Null when there isn't that much. Physical pages come as they are touched.
void* AllocatePages(size_t bytes);
void FreePages(void* data, size_t bytes);  // `bytes` as asked for

// Owns such memory.
class PageBuffer {
 public:
  PageBuffer() = default;
  explicit PageBuffer(size_t bytes) : data_(AllocatePages(bytes)), bytes_(data_ == nullptr ? 0 : bytes) {}
  ~PageBuffer() { FreePages(data_, bytes_); }
  PageBuffer(PageBuffer&& other) noexcept { Swap(other); }
  PageBuffer& operator=(PageBuffer&& other) noexcept {
    Swap(other);
    return *this;
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void Swap(PageBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace openlora
