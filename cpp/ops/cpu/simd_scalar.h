#pragma once

#define OPENLORA_SIMD_ROLLED
#include "ops/cpu/simd_common.h"

namespace openlora {
namespace {

// Portable: four lanes, as on NEON, of plain C++. Without -mfma a fused multiply-add is a call of the C library: slow,
// and exact all the same.
struct Simd {
  struct F {
    float v[4];
  };
  struct I {
    uint32_t v[4];
  };
  static constexpr int kLanes = 4;
  static constexpr int kSums = 16;

  static F Zero() { return {}; }
  static F Set(float v) { return {{v, v, v, v}}; }
  static F SetPair(const float* p) { return {{p[0], p[1], p[0], p[1]}}; }
  static F Load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static F LoadPart(const float* p, int n) {
    return Map([=](int i) { return i < n ? p[i] : 0.0f; });
  }
  static void Store(float* p, F a) { StorePart(p, a, 4); }
  static void StorePart(float* p, F a, int n) {
    for (int i = 0; i < n; ++i) p[i] = a.v[i];
  }

  static F Add(F a, F b) {
    return Map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F Sub(F a, F b) {
    return Map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F Mul(F a, F b) {
    return Map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F Div(F a, F b) {
    return Map([&](int i) { return a.v[i] / b.v[i]; });
  }
  static F Sqrt(F a) {
    return Map([&](int i) { return __builtin_sqrtf(a.v[i]); });
  }
  static F Fma(F a, F b, F c) {
    return Map([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
  }
  static F Max(F a, F b) {
    return Map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F Min(F a, F b) {
    return Map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }

  static I LoadInt(const void* p) { return LoadIntPart(p, 4); }
  static I LoadIntPart(const void* p, int n) {
    I lanes{};
    __builtin_memcpy(&lanes, p, static_cast<size_t>(n) * 4);
    return lanes;
  }
  static F EvenBF16(I pairs) {
    return FromBits(MapInt([&](int i) { return pairs.v[i] << 16; }));
  }
  static F OddBF16(I pairs) {
    return FromBits(MapInt([&](int i) { return pairs.v[i] & 0xffff0000u; }));
  }
  static F LoadBF16(const uint16_t* p) { return LoadBF16Part(p, 4); }
  static F LoadBF16Part(const uint16_t* p, int n) {
    return FromBits(MapInt([=](int i) { return i < n ? uint32_t{p[i]} << 16 : 0; }));
  }
  static F LoadF16(const uint16_t* p) { return LoadF16Part(p, 4); }
  static F LoadF16Part(const uint16_t* p, int n) {
    return Map([=](int i) { return i < n ? F16(p[i]) : 0.0f; });
  }
  static F LoadInt8(const int8_t* p) { return LoadInt8Part(p, 4); }
  static F LoadInt8Part(const int8_t* p, int n) {
    return Map([=](int i) { return i < n ? static_cast<float>(p[i]) : 0.0f; });
  }

  static F LoadBF16Twice(const uint16_t* p) { return LoadBF16TwicePart(p, 4); }
  static F LoadBF16TwicePart(const uint16_t* p, int n) {
    return FromBits(MapInt([=](int i) { return i < n ? uint32_t{p[i / 2]} << 16 : 0; }));
  }

  static I SetInt(int32_t v) {
    return MapInt([=](int) { return static_cast<uint32_t>(v); });
  }
  static I AddInt(I a, I b) {
    return MapInt([&](int i) { return a.v[i] + b.v[i]; });
  }
  static I SubInt(I a, I b) {
    return MapInt([&](int i) { return a.v[i] - b.v[i]; });
  }
  template <int bits>
  static I ShiftLeft(I a) {
    return MapInt([&](int i) { return a.v[i] << bits; });
  }
  template <int bits>
  static I ShiftRight(I a) {
    return MapInt([&](int i) { return static_cast<uint32_t>(static_cast<int32_t>(a.v[i]) >> bits); });
  }
  static I BitsOf(F a) { return __builtin_bit_cast(I, a); }
  static F FromBits(I a) { return __builtin_bit_cast(F, a); }
  static F FloatOf(I a) {
    return Map([&](int i) { return static_cast<float>(static_cast<int32_t>(a.v[i])); });
  }
  static void StoreInt(void* p, I a) { __builtin_memcpy(p, &a, sizeof a); }
  static F AddWhere(F sum, F a, F b, F c) {
    return Map([&](int i) { return sum.v[i] + (a.v[i] > b.v[i] ? c.v[i] : 0); });
  }
  template <int distance>
  static F SwapLanes(F a) {
    return Map([&](int i) { return a.v[i ^ distance]; });
  }

  static constexpr int kDotVectors = 4;
  static constexpr int kDotRows = 4;
  using Activation = int8_t;
  using Weights = I;
  struct Quad {
    int8_t x[4];
  };
  static constexpr int kSumStart = -128;
  static void StoreActivations(Activation* p, I q) {
    for (int i = 0; i < 4; ++i) p[i] = static_cast<int8_t>(q.v[i]);
  }
  static Quad LoadActivations(const Activation* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static Weights LoadWeights(const uint8_t* p) { return LoadInt(p); }
  using Table = const uint8_t*;
  static Table LoadTable(const uint8_t* p) { return p; }
  static Weights LoadNibbles(const uint8_t* p, Table table, bool is_high) {
    return MapInt([=](int i) {
      uint32_t four = 0;
      for (int j = 0; j < 4; ++j) four |= uint32_t{table[is_high ? p[4 * i + j] >> 4 : p[4 * i + j] & 15]} << (8 * j);
      return four;
    });
  }
  static I Dot(I sum, Weights w, Quad x) {
    return MapInt([&](int i) {
      uint32_t total = sum.v[i];
      for (int j = 0; j < 4; ++j) total += (w.v[i] >> (8 * j) & 0xffu) * static_cast<uint32_t>(int32_t{x.x[j]});
      return total;
    });
  }
  static OPENLORA_INLINE void Prefetch(const void* p) { __builtin_prefetch(p); }
  static OPENLORA_INLINE void PrefetchSoon(const void* p) { __builtin_prefetch(p, 0, 2); }

  static I PairsOf(F low, F high) {
    return MapInt([&](int i) {
      const float* const pair = i < 2 ? low.v + 2 * i : high.v + 2 * i - 4;
      return BF16Bits(__builtin_bit_cast(uint32_t, pair[0])) >> 16 | BF16Bits(__builtin_bit_cast(uint32_t, pair[1]));
    });
  }

  static constexpr bool kHasBF16Dot = false;
  static constexpr bool kHasFlushMode = false;
  static bool IsAnyTiny(F a) {
    bool is_any = false;
    for (int i = 0; i < 4; ++i) is_any |= __builtin_fabsf(a.v[i]) <= 0x1p-126f;
    return is_any;
  }

 private:
  template <class Function>
  static F Map(Function function) {
    return {{function(0), function(1), function(2), function(3)}};
  }
  template <class Function>
  static I MapInt(Function function) {
    return {{function(0), function(1), function(2), function(3)}};
  }
  static float F16(uint16_t bits) {
    const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    if (exponent == 0x1f) {  // a signalling NaN becomes a quiet one, as vcvtph2ps makes it
      const uint32_t quiet = mantissa != 0 ? 0x400000u : 0;
      return __builtin_bit_cast(float, sign | 0x7f800000u | quiet | (mantissa << 13));
    }
    if (exponent != 0) return __builtin_bit_cast(float, sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
};

}  // namespace
}  // namespace openlora
