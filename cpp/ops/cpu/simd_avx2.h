#pragma once

#include <immintrin.h>

#include "ops/cpu/simd_common.h"
#include "ops/cpu/simd_x86.h"

namespace openlora {
namespace {

struct Simd : SimdX86 {
  using F = __m256;
  using I = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kSums = 12;  // of 16 registers

  static F Zero() { return _mm256_setzero_ps(); }
  static F Set(float v) { return _mm256_set1_ps(v); }
  static F SetPair(const float* p) {
    double pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm256_castpd_ps(_mm256_set1_pd(pair));
  }
  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static F LoadPart(const float* p, int n) { return _mm256_maskload_ps(p, First(n)); }
  static void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static void StorePart(float* p, F v, int n) { _mm256_maskstore_ps(p, First(n), v); }

  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F Sqrt(F a) { return _mm256_sqrt_ps(a); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }

  static I LoadInt(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static I LoadIntPart(const void* p, int n) { return _mm256_maskload_epi32(static_cast<const int*>(p), First(n)); }
  static F EvenBF16(I pairs) { return FromBits(_mm256_slli_epi32(pairs, 16)); }
  static F OddBF16(I pairs) {
    return FromBits(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static F LoadBF16(const uint16_t* p) { return WidenBF16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static F LoadBF16Part(const uint16_t* p, int n) { return WidenBF16(Load16Part(p, n)); }
  static F LoadF16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static F LoadF16Part(const uint16_t* p, int n) { return _mm256_cvtph_ps(Load16Part(p, n)); }
  static F LoadInt8(const int8_t* p) {
    return FloatOf(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static F LoadInt8Part(const int8_t* p, int n) {
    int8_t lanes[8] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return LoadInt8(lanes);
  }

  static F LoadBF16Twice(const uint16_t* p) { return Twice(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
  static F LoadBF16TwicePart(const uint16_t* p, int n) { return Twice(Load16Part(p, n / 2)); }

  static I SetInt(int32_t v) { return _mm256_set1_epi32(v); }
  static I AddInt(I a, I b) { return _mm256_add_epi32(a, b); }
  static I SubInt(I a, I b) { return _mm256_sub_epi32(a, b); }
  template <int bits>
  static I ShiftLeft(I a) {
    return _mm256_slli_epi32(a, bits);
  }
  template <int bits>
  static I ShiftRight(I a) {
    return _mm256_srai_epi32(a, bits);
  }
  static I BitsOf(F a) { return _mm256_castps_si256(a); }
  static F FromBits(I a) { return _mm256_castsi256_ps(a); }
  static F FloatOf(I a) { return _mm256_cvtepi32_ps(a); }
  static void StoreInt(void* p, I a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
  static F AddWhere(F sum, F a, F b, F c) {
    return _mm256_add_ps(sum, _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ), c));
  }
  template <int distance>
  static F SwapLanes(F a) {
    if constexpr (distance == 1) return _mm256_permute_ps(a, 0xb1);
    if constexpr (distance == 2) return _mm256_permute_ps(a, 0x4e);
    if constexpr (distance == 4) return _mm256_permute2f128_ps(a, a, 1);
  }

  static constexpr int kDotVectors = 2;
  static constexpr int kDotRows = 4;
  // Bytes 0 and 2, 1 and 3 as 16-bit integers: _mm256_maddubs_epi16 would saturate.
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
    asm("vpbroadcastd %1, %0" : "=x"(pair) : "m"(*reinterpret_cast<const Pair*>(p)));
    return pair;
  }
  static constexpr int kSumStart = -128;
  static void StoreActivations(Activation* p, I q) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    const __m128i pairs = _mm_shufflehi_epi16(_mm_shufflelo_epi16(words, 0xd8), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), pairs);
  }
  static Quad LoadActivations(const Activation* p) { return {Broadcast(p), Broadcast(p + 2)}; }
  static Weights LoadWeights(const uint8_t* p) { return Halves(LoadInt(p)); }
  using Table = I;
  static Table LoadTable(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Weights LoadNibbles(const uint8_t* p, Table table, bool is_high) {
    const I bytes = is_high ? _mm256_srli_epi16(LoadInt(p), 4) : LoadInt(p);
    return Halves(_mm256_shuffle_epi8(table, _mm256_and_si256(bytes, _mm256_set1_epi8(0x0f))));
  }
  static I Dot(I sum, Weights w, Quad x) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.even, x.even));
    asm("" : "+x"(sum));  // gcc 12 would add up four products first, and spill them
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.odd, x.odd));
    asm("" : "+x"(sum));
    return sum;
  }
  static constexpr bool kHasBF16Dot = false;
  static I PairsOf(F low, F high) {
    const I pairs = _mm256_packus_epi32(_mm256_srli_epi32(RoundToBF16(low), 16),  //
                                        _mm256_srli_epi32(RoundToBF16(high), 16));
    return _mm256_permute4x64_epi64(pairs, 0xd8);
  }

 private:
  // BF16Bits, with any low 16 bits.
  static I RoundToBF16(F v) {
    const I bits = BitsOf(v);
    const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), SetInt(1));
    const I rounded = AddInt(bits, AddInt(odd, SetInt(0x7fff)));
    const I quiet = _mm256_or_si256(bits, SetInt(0x400000));
    const I number = BitsOf(_mm256_blendv_ps(FromBits(rounded), FromBits(quiet), _mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
    const I is_tiny = _mm256_cmpeq_epi32(_mm256_and_si256(bits, SetInt(0x7f800000)), _mm256_setzero_si256());
    return _mm256_blendv_epi8(number, _mm256_and_si256(bits, SetInt(INT32_MIN)), is_tiny);
  }
  static Weights Halves(I bytes) {
    return {_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(bytes, 8)};
  }
  static __m256i First(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  // Each of the first four goes to the upper halves of two lanes.
  static F Twice(__m128i v) {
    const I from = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 2, 3,  //
                                    -1, -1, 4, 5, -1, -1, 4, 5, -1, -1, 6, 7, -1, -1, 6, 7);
    return FromBits(_mm256_shuffle_epi8(_mm256_broadcastq_epi64(v), from));
  }
  static F WidenBF16(__m128i v) { return FromBits(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
  static __m128i Load16Part(const uint16_t* p, int n) {  // AVX2 has no masked load of 16-bit lanes
    alignas(16) uint16_t lanes[8] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return _mm_load_si128(reinterpret_cast<const __m128i*>(lanes));
  }
};

}  // namespace
}  // namespace openlora
