#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/simd_common.h"

namespace openlora {
namespace {

// How rows of weights (32 outputs of a base panel, or of a B tile) become f32 vectors. A group is what stands together:
// kGroup consecutive k, `width` outputs, kGroupElement bytes per output. Load gives k ascending.
// A chain of FMAs takes a group's k in descending order: k + 1 before k is the order in which vdpbf16ps adds a pair.

template <class V>
struct WeightF32 {
  using F = typename V::F;
  static constexpr int kGroup = 1;
  static constexpr int kGroupElement = 4;
  static OPENLORA_INLINE void Load(const uint8_t* group, int output, F (&w)[kGroup]) {
    w[0] = V::Load(reinterpret_cast<const float*>(group) + output);
  }
  static OPENLORA_INLINE void LoadPart(const uint8_t* group, int output, int lanes, F (&w)[kGroup]) {
    w[0] = V::LoadPart(reinterpret_cast<const float*>(group) + output, lanes);
  }
};

template <class V>
struct WeightF16 {
  using F = typename V::F;
  static constexpr int kGroup = 1;
  static constexpr int kGroupElement = 2;
  static OPENLORA_INLINE void Load(const uint8_t* group, int output, F (&w)[kGroup]) {
    w[0] = V::LoadF16(reinterpret_cast<const uint16_t*>(group) + output);
  }
  static OPENLORA_INLINE void LoadPart(const uint8_t* group, int output, int lanes, F (&w)[kGroup]) {
    w[0] = V::LoadF16Part(reinterpret_cast<const uint16_t*>(group) + output, lanes);
  }
};

template <class V>
struct WeightS8 {  // codes: the scales stand before them
  using F = typename V::F;
  static constexpr int kGroup = 1;
  static constexpr int kGroupElement = 1;
  static OPENLORA_INLINE void Load(const uint8_t* group, int output, F (&w)[kGroup]) {
    w[0] = V::LoadInt8(reinterpret_cast<const int8_t*>(group) + output);
  }
  static OPENLORA_INLINE void LoadPart(const uint8_t* group, int output, int lanes, F (&w)[kGroup]) {
    w[0] = V::LoadInt8Part(reinterpret_cast<const int8_t*>(group) + output, lanes);
  }
};

template <class V>
struct WeightBF16 {
  using F = typename V::F;
  static constexpr int kGroup = 2;
  static constexpr int kGroupElement = 4;
  static OPENLORA_INLINE void Load(const uint8_t* group, int output, F (&w)[kGroup]) {
    const typename V::I pairs = V::LoadInt(group + output * kGroupElement);
    w[0] = V::EvenBF16(pairs);
    w[1] = V::OddBF16(pairs);
  }
  static OPENLORA_INLINE void LoadPart(const uint8_t* group, int output, int lanes, F (&w)[kGroup]) {
    const typename V::I pairs = V::LoadIntPart(group + output * kGroupElement, lanes);
    w[0] = V::EvenBF16(pairs);
    w[1] = V::OddBF16(pairs);
  }
};

}  // namespace
}  // namespace openlora
