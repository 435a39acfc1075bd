#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "tensor/dtype.h"

namespace openlora {

// The mixing of splitmix64: Steele, Lea & Flood 2014.
inline uint64_t Mixed(uint64_t tag, int64_t index) {
  uint64_t z = tag * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(index);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

// Element `index` of what `tag` names: bf16, 2^-7 to 2^-6, of either sign.
inline uint16_t KnownBits(uint64_t tag, int64_t index) {
  return static_cast<uint16_t>((Mixed(tag, index) & 0x807fu) | 0x3c00u);
}
inline float KnownValue(uint64_t tag, int64_t index) { return BF16ToFloat(KnownBits(tag, index)); }

// 0 to count - 1 in an order that looks random.
inline std::vector<uint32_t> Shuffled(size_t count) {
  std::vector<uint32_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0u);
  for (size_t i = count; i > 1; --i) std::swap(numbers[i - 1], numbers[Mixed(0, static_cast<int64_t>(i)) % i]);
  return numbers;
}

// At most `wanted` of the first `count` numbers, spread, the first and the last among them.
inline std::vector<int64_t> SampleOf(int64_t count, int64_t wanted) {
  const int64_t size = std::min(count, wanted);
  std::vector<int64_t> sample;
  for (int64_t i = 0; i < size; ++i) sample.push_back(size == 1 ? 0 : i * (count - 1) / (size - 1));
  return sample;
}

// ‖actual - wanted‖ / ‖wanted‖; infinite where something isn't a number.
class RelativeError {
 public:
  void Add(double actual, double wanted) {
    difference_ += (actual - wanted) * (actual - wanted);
    size_ += wanted * wanted;
  }
  double Value() const {
    const double error = std::sqrt(difference_ / size_);
    return std::isnan(error) ? INFINITY : error;
  }

 private:
  double difference_ = 0, size_ = 0;
};

// A chain of n roundings of random signs is about √n·u of the sum's size, and stays below six times that, as in
// test/native/ops/ops_under_test.h.
inline double ChainErrorMax(double n) { return 6 * std::sqrt(n) * 0x1.0p-24; }

}  // namespace openlora
