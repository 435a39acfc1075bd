#pragma once

#include <bit>
#include <cstdint>

namespace openlora {

// For |value| < 2^22, ties to even: adding 1.5·2^23 leaves the integer in the low bits.
constexpr int NearestInteger(float value) { return std::bit_cast<int32_t>(value + 0x1.8p23f) - 0x4b400000; }

// The bits of the least bf16 that is no less than a finite value >= 0.
constexpr uint16_t BF16NoLess(float value) {
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0xffffu) >> 16);
}

}  // namespace openlora
