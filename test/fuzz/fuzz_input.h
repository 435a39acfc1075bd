#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace openlora::fuzz {

// A finding that no sanitizer sees: an oracle of a target disagrees. libFuzzer keeps the input.
#define FUZZ_CHECK(condition, ...)                                           \
  do {                                                                       \
    if (!(condition)) {                                                      \
      std::fprintf(stderr, "%s:%d: %s\n  ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                     \
      std::fputc('\n', stderr);                                              \
      std::abort();                                                          \
    }                                                                        \
  } while (false)

// Reads values from a fuzzer's bytes, front to back, so that a change of one byte changes one value. Past the end
// everything is zero.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool is_empty() const { return at_ == size_; }
  size_t left() const { return size_ - at_; }

  template <typename T>
  T Any() {
    T value{};
    const size_t bytes = std::min(sizeof(T), left());
    std::memcpy(&value, data_ + at_, bytes);
    at_ += bytes;
    return value;
  }
  uint8_t Byte() { return Any<uint8_t>(); }
  bool Bool() { return (Byte() & 1) != 0; }
  // In [low, high], which differ by less than 65536.
  int32_t Range(int32_t low, int32_t high) {
    const auto count = static_cast<uint32_t>(high - low) + 1;
    const uint32_t drawn = count <= 256 ? Byte() : Any<uint16_t>();
    return low + static_cast<int32_t>(drawn % count);
  }
  // True in one of `times` cases; false past the end.
  bool OneIn(int times) { return !is_empty() && Byte() % times == 1 % times; }
  std::string Text(size_t bytes_max) {
    const size_t bytes = std::min(static_cast<size_t>(Byte()) % (bytes_max + 1), left());
    std::string text(reinterpret_cast<const char*>(data_) + at_, bytes);
    at_ += bytes;
    return text;
  }
  // The next `bytes` bytes as an input of their own: what is read of it doesn't move what follows.
  FuzzInput Part(size_t bytes) {
    const FuzzInput part(data_ + at_, std::min(bytes, left()));
    at_ += part.size_;
    return part;
  }
  template <typename T, size_t n>
  T Pick(const T (&values)[n]) {
    return values[Byte() % n];
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

}  // namespace openlora::fuzz
