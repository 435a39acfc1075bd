#pragma once

#include <cstdint>

#include "base/prng.h"

namespace openlora::sim {

// One stream of draws; streams of one seed don't know of each other.
class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : key_(Philox(seed, ~stream)) {}

  uint64_t Next() { return Philox(key_, counter_++); }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // In [low, high].
  int32_t Range(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(Next() % (static_cast<uint64_t>(high - low) + 1));
  }
  bool Chance(double probability) { return Uniform() < probability; }
  template <typename T, size_t n>
  T Pick(const T (&values)[n]) {
    return values[Next() % n];
  }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace openlora::sim
