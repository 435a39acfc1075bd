#pragma once

#include <arm_neon.h>

#include "ops/cpu/simd_common.h"

namespace openlora {
namespace {

struct Simd {
  using F = float32x4_t;
  using I = int32x4_t;
  static constexpr int kLanes = 4;
  static constexpr int kSums = 16;  // of 32 registers

  static F Zero() { return vdupq_n_f32(0); }
  static F Set(float v) { return vdupq_n_f32(v); }
  static F SetPair(const float* p) {
    const float32x2_t pair = vld1_f32(p);
    return vcombine_f32(pair, pair);
  }
  static F Load(const float* p) { return vld1q_f32(p); }
  static F LoadPart(const float* p, int n) {
    float lanes[4] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return vld1q_f32(lanes);
  }
  static void Store(float* p, F v) { vst1q_f32(p, v); }
  static void StorePart(float* p, F v, int n) {
    float lanes[4];
    vst1q_f32(lanes, v);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }

  static F Add(F a, F b) { return vaddq_f32(a, b); }
  static F Sub(F a, F b) { return vsubq_f32(a, b); }
  static F Mul(F a, F b) { return vmulq_f32(a, b); }
  static F Div(F a, F b) { return vdivq_f32(a, b); }
  static F Sqrt(F a) { return vsqrtq_f32(a); }
  static F Fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F Max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }  // fmax keeps a NaN of a
  static F Min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }

  static I LoadInt(const void* p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p))); }
  static I LoadIntPart(const void* p, int n) {
    int32_t lanes[4] = {};
    __builtin_memcpy(lanes, p, static_cast<size_t>(n) * 4);
    return vld1q_s32(lanes);
  }
  static F EvenBF16(I pairs) { return FromBits(vshlq_n_s32(pairs, 16)); }
  static F OddBF16(I pairs) { return FromBits(vandq_s32(pairs, vdupq_n_s32(static_cast<int32_t>(0xffff0000u)))); }
  static F LoadBF16(const uint16_t* p) { return FromBits(vreinterpretq_s32_u32(vshll_n_u16(vld1_u16(p), 16))); }
  static F LoadBF16Part(const uint16_t* p, int n) {
    const Lanes16 lanes(p, n);
    return LoadBF16(lanes.v);
  }
  static F LoadF16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static F LoadF16Part(const uint16_t* p, int n) {
    const Lanes16 lanes(p, n);
    return LoadF16(lanes.v);
  }
  static F LoadInt8(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return FloatOf(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
  }
  static F LoadInt8Part(const int8_t* p, int n) {
    int8_t lanes[4] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return LoadInt8(lanes);
  }

  static F LoadBF16Twice(const uint16_t* p) { return LoadBF16TwicePart(p, 4); }
  static F LoadBF16TwicePart(const uint16_t* p, int n) {
    uint64_t bits = 0;
    __builtin_memcpy(&bits, p, static_cast<size_t>(n));
    const uint16x4_t two = vcreate_u16(bits);
    return FromBits(vreinterpretq_s32_u32(vshll_n_u16(vzip1_u16(two, two), 16)));
  }

  static I SetInt(int32_t v) { return vdupq_n_s32(v); }
  static I AddInt(I a, I b) { return vaddq_s32(a, b); }
  static I SubInt(I a, I b) { return vsubq_s32(a, b); }
  template <int bits>
  static I ShiftLeft(I a) {
    return vshlq_n_s32(a, bits);
  }
  template <int bits>
  static I ShiftRight(I a) {
    return vshrq_n_s32(a, bits);
  }
  static I BitsOf(F a) { return vreinterpretq_s32_f32(a); }
  static F FromBits(I a) { return vreinterpretq_f32_s32(a); }
  static F FloatOf(I a) { return vcvtq_f32_s32(a); }
  static void StoreInt(void* p, I a) { vst1q_s32(static_cast<int32_t*>(p), a); }
  static F AddWhere(F sum, F a, F b, F c) {
    return vaddq_f32(sum, vreinterpretq_f32_u32(vandq_u32(vcgtq_f32(a, b), vreinterpretq_u32_f32(c))));
  }
  template <int distance>
  static F SwapLanes(F a) {
    if constexpr (distance == 1) return vrev64q_f32(a);
    if constexpr (distance == 2) return vextq_f32(a, a, 2);
  }

  static constexpr int kDotVectors = 4;
  static constexpr int kDotRows = 4;
  using Activation = int8_t;
  using Weights = int8x16_t;
  using Quad = int8x16_t;
  static constexpr int kSumStart = 0;  // the dots take signed bytes: flipping the top bit takes 128 away
  static void StoreActivations(Activation* p, I q) {
    const int16x4_t words = vmovn_s32(q);
    const int32x2_t bytes = vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words)));
    const int32_t quad = vget_lane_s32(bytes, 0);
    __builtin_memcpy(p, &quad, sizeof quad);
  }
  static Quad LoadActivations(const Activation* p) {
    int32_t quad;
    __builtin_memcpy(&quad, p, sizeof quad);
    return vreinterpretq_s8_s32(vdupq_n_s32(quad));
  }
  static Weights LoadWeights(const uint8_t* p) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(0x80))); }
  using Table = int8x16_t;
  static Table LoadTable(const uint8_t* p) { return LoadWeights(p); }
  static Weights LoadNibbles(const uint8_t* p, Table table, bool is_high) {
    const uint8x16_t bytes = vld1q_u8(p);
    return vqtbl1q_s8(table, is_high ? vshrq_n_u8(bytes, 4) : vandq_u8(bytes, vdupq_n_u8(15)));
  }
#if defined(__ARM_FEATURE_DOTPROD)
  static I Dot(I sum, Weights w, Quad x) { return vdotq_s32(sum, w, x); }
#else
  static I Dot(I sum, Weights w, Quad x) {
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    return vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(w, x))));
  }
#endif
  static OPENLORA_INLINE void Prefetch(const void* p) { __builtin_prefetch(p); }
  static OPENLORA_INLINE void PrefetchSoon(const void* p) { __builtin_prefetch(p, 0, 2); }

  static I PairsOf(F low, F high) {
    return vreinterpretq_s32_u16(
        vuzp2q_u16(vreinterpretq_u16_u32(RoundToBF16(low)), vreinterpretq_u16_u32(RoundToBF16(high))));
  }

  static constexpr bool kHasBF16Dot = false;
  static constexpr bool kHasFlushMode = false;  // FPCR.FZ flushes what is tiny before rounding
  static bool IsAnyTiny(F a) { return vmaxvq_u32(vcaleq_f32(a, vdupq_n_f32(0x1p-126f))) != 0; }

 private:
  // BF16Bits, with any low 16 bits.
  static uint32x4_t RoundToBF16(F v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t number = vbslq_u32(vceqq_f32(v, v), rounded, vorrq_u32(bits, vdupq_n_u32(0x400000)));
    const uint32x4_t is_normal = vtstq_u32(bits, vdupq_n_u32(0x7f800000));
    return vbslq_u32(is_normal, number, vandq_u32(bits, vdupq_n_u32(0x80000000u)));
  }
  struct Lanes16 {
    Lanes16(const uint16_t* p, int n) {
      for (int i = 0; i < n; ++i) v[i] = p[i];
    }
    uint16_t v[4] = {};
  };
};

}  // namespace
}  // namespace openlora
