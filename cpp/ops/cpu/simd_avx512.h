#pragma once

#include <immintrin.h>

#include "ops/cpu/simd_common.h"
#include "ops/cpu/simd_x86.h"

namespace openlora {
namespace {

struct Simd : SimdX86 {
  using F = __m512;
  using I = __m512i;
  static constexpr int kLanes = 16;
  static constexpr int kSums = 16;  // of 32 registers; gcc 12 spills from 24 on

  static F Zero() { return _mm512_setzero_ps(); }
  static F Set(float v) { return _mm512_set1_ps(v); }
  static F SetPair(const float* p) {
    double pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
  }
  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static F LoadPart(const float* p, int n) { return _mm512_maskz_loadu_ps(First(n), p); }
  static void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void StorePart(float* p, F v, int n) { _mm512_mask_storeu_ps(p, First(n), v); }

  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Sqrt(F a) { return _mm512_sqrt_ps(a); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }

  static I LoadInt(const void* p) { return _mm512_loadu_si512(p); }
  static I LoadIntPart(const void* p, int n) { return _mm512_maskz_loadu_epi32(First(n), p); }
  static F EvenBF16(I pairs) { return FromBits(_mm512_slli_epi32(pairs, 16)); }
  static F OddBF16(I pairs) {
    return FromBits(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static F LoadBF16(const uint16_t* p) { return WidenBF16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static F LoadBF16Part(const uint16_t* p, int n) { return WidenBF16(_mm256_maskz_loadu_epi16(First(n), p)); }
  static F LoadF16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F LoadF16Part(const uint16_t* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(First(n), p)); }
  static F LoadInt8(const int8_t* p) {
    return FloatOf(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F LoadInt8Part(const int8_t* p, int n) {
    return FloatOf(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(First(n), p)));
  }

  static F LoadBF16Twice(const uint16_t* p) { return Twice(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static F LoadBF16TwicePart(const uint16_t* p, int n) {
    return Twice(_mm_maskz_loadu_epi16(static_cast<__mmask8>((1u << n / 2) - 1), p));
  }

  static I SetInt(int32_t v) { return _mm512_set1_epi32(v); }
  static I AddInt(I a, I b) { return _mm512_add_epi32(a, b); }
  static I SubInt(I a, I b) { return _mm512_sub_epi32(a, b); }
  template <int bits>
  static I ShiftLeft(I a) {
    return _mm512_slli_epi32(a, bits);
  }
  template <int bits>
  static I ShiftRight(I a) {
    return _mm512_srai_epi32(a, bits);
  }
  static I BitsOf(F a) { return _mm512_castps_si512(a); }
  static F FromBits(I a) { return _mm512_castsi512_ps(a); }
  static F FloatOf(I a) { return _mm512_cvtepi32_ps(a); }
  static void StoreInt(void* p, I a) { _mm512_storeu_si512(p, a); }
  static F AddWhere(F sum, F a, F b, F c) {
    return _mm512_mask_add_ps(sum, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), sum, c);
  }
  template <int distance>
  static F SwapLanes(F a) {
    if constexpr (distance == 1) return _mm512_permute_ps(a, 0xb1);
    if constexpr (distance == 2) return _mm512_permute_ps(a, 0x4e);
    if constexpr (distance == 4) return _mm512_shuffle_f32x4(a, a, 0xb1);
    if constexpr (distance == 8) return _mm512_shuffle_f32x4(a, a, 0x4e);
  }

  static constexpr int kDotVectors = 2;
  static constexpr int kDotRows = 8;
  static constexpr int kSumStart = -128;
  using Table = I;
  static Table LoadTable(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
#if defined(__AVX512VNNI__)
  using Activation = int8_t;
  using Weights = I;
  using Quad = I;
  static void StoreActivations(Activation* p, I q) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(q));
  }
  static Quad LoadActivations(const Activation* p) {
    int32_t quad;
    __builtin_memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
  }
  static Weights LoadWeights(const uint8_t* p) { return LoadInt(p); }
  static Weights LoadNibbles(const uint8_t* p, Table table, bool is_high) { return Lookup(p, table, is_high); }
  // By value and in assembly: around _mm512_dpbusd_epi32, gcc 12 copies the accumulators, a third of the speed.
  static I Dot(I sum, Weights w, Quad x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
  }
#else
  // Bytes 0 and 2, 1 and 3 as 16-bit integers: _mm512_maddubs_epi16 would saturate.
  using Activation = int16_t;
  struct Weights {
    I even, odd;
  };
  using Quad = Weights;
  struct Pair {
    Activation x[2];
  };
  // gcc 12 would load both pairs of a quad into a general register and take them apart there.
  static I Broadcast(const Activation* p) {
    I pair;
    asm("vpbroadcastd %1, %0" : "=v"(pair) : "m"(*reinterpret_cast<const Pair*>(p)));
    return pair;
  }
  static void StoreActivations(Activation* p, I q) {
    const __m256i pairs = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(_mm512_cvtepi32_epi16(q), 0xd8), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), pairs);
  }
  static Quad LoadActivations(const Activation* p) { return {Broadcast(p), Broadcast(p + 2)}; }
  static Weights LoadWeights(const uint8_t* p) { return Halves(LoadInt(p)); }
  static Weights LoadNibbles(const uint8_t* p, Table table, bool is_high) { return Halves(Lookup(p, table, is_high)); }
  static Weights Halves(I bytes) {
    return {_mm512_and_si512(bytes, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(bytes, 8)};
  }
  static I Dot(I sum, Weights w, Quad x) {
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(w.even, x.even));
    asm("" : "+v"(sum));  // gcc 12 would add up four products first, and spill them
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(w.odd, x.odd));
    asm("" : "+v"(sum));
    return sum;
  }
#endif
#if defined(__AVX512BF16__)
  static constexpr bool kHasBF16Dot = true;
  // By value and in assembly, as Dot.
  static F DotBF16(F sum, F w, F x) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
  }
  static I PairsOf(F low, F high) { return __builtin_bit_cast(I, _mm512_cvtne2ps_pbh(high, low)); }
#else
  static constexpr bool kHasBF16Dot = false;
  static I PairsOf(F low, F high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(RoundToBF16(low)), RoundToBF16(high), 1);
  }
#endif

 private:
  // BF16Bits, its high 16 bits.
  static __m256i RoundToBF16(F v) {
    const I bits = BitsOf(v);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), SetInt(1));
    I rounded = AddInt(bits, AddInt(odd, SetInt(0x7fff)));
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), bits, SetInt(0x400000));
    const __mmask16 is_tiny = _mm512_testn_epi32_mask(bits, SetInt(0x7f800000));
    rounded = _mm512_mask_and_epi32(rounded, is_tiny, bits, SetInt(INT32_MIN));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }
  static I Lookup(const uint8_t* p, Table table, bool is_high) {
    const I bytes = is_high ? _mm512_srli_epi16(LoadInt(p), 4) : LoadInt(p);
    return _mm512_shuffle_epi8(table, _mm512_and_si512(bytes, _mm512_set1_epi8(0x0f)));
  }
  static __mmask16 First(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  // Each goes to the upper halves of two lanes.
  static F Twice(__m128i v) {
    constexpr int kHigh = 1 << 16;
    const I from = _mm512_setr_epi32(0, 0, kHigh, kHigh, 2 * kHigh, 2 * kHigh, 3 * kHigh, 3 * kHigh, 4 * kHigh,
                                     4 * kHigh, 5 * kHigh, 5 * kHigh, 6 * kHigh, 6 * kHigh, 7 * kHigh, 7 * kHigh);
    return FromBits(_mm512_maskz_permutexvar_epi16(0xaaaaaaaau, from, _mm512_castsi128_si512(v)));
  }
  static F WidenBF16(__m256i v) { return FromBits(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
};

}  // namespace
}  // namespace openlora
