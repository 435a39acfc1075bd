#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "ops/context.h"

namespace openlora {

// Arrays for one step, put together in host memory and copied at once. Where an array stands depends on the capacities
// of those before it alone.
class Staging {
 public:
  Staging(CudaContext& context, const char* name) : context_(context), name_(name) {}
  ~Staging() { Release(); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  template <class T>
  struct Place {
    size_t offset = 0;
  };

  // Nothing may read what was there any more.
  void Clear() { used_ = 0; }
  // Room for `capacity` values, or for all of them.
  template <class T>
  Place<T> Add(std::span<const T> values, size_t capacity = 0) {
    static_assert(alignof(T) <= kAlignment && std::is_trivially_copyable_v<T>);
    const size_t begin = (used_ + kAlignment - 1) / kAlignment * kAlignment;
    used_ = begin + std::max(values.size(), capacity) * sizeof(T);
    if (values_.size() < used_) values_.resize(std::max(used_, 2 * values_.size()));
    if (!values.empty()) std::memcpy(values_.data() + begin, values.data(), values.size_bytes());
    return {begin};
  }
  template <class T>
  Place<T> AddOne(const T& value) {
    return Add(std::span<const T>(&value, 1));
  }
  Status Upload() {
    if (bytes_ < used_) OPENLORA_RETURN_IF_ERROR(Grow());
    std::memcpy(host_, values_.data(), used_);
    context_.Copy(device_, host_, used_);
    return Ok();
  }
  // Once it is uploaded.
  template <class T>
  const T* At(Place<T> place) const {
    return reinterpret_cast<const T*>(static_cast<const uint8_t*>(device_) + place.offset);
  }

 private:
  static constexpr size_t kAlignment = 16;

  Status Grow() {
    Release();
    const size_t bytes = 2 * used_;
    OPENLORA_RETURN_IF_ERROR(context_.AllocateHost(bytes, &host_));
    OPENLORA_RETURN_IF_ERROR(context_.Allocate(name_, bytes, &device_));
    bytes_ = bytes;
    return Ok();
  }
  void Release() {
    if (host_ != nullptr) context_.FreeHost(host_);
    if (device_ != nullptr) context_.Free(device_);
    host_ = device_ = nullptr;
    bytes_ = 0;
  }

  CudaContext& context_;
  const char* name_;
  std::vector<uint8_t> values_;
  size_t used_ = 0;
  void* host_ = nullptr;  // pinned; bytes_ of either
  void* device_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace openlora
