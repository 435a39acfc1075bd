#include "ops/cpu/peaks.h"

#include <cmath>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace openlora {
namespace {

constexpr int kStreams = 4;
constexpr int kFew = 12;     // chains where there are 16 registers
constexpr int kChains = 16;  // independent: latency 4 times two units, twice over

#if defined(__x86_64__)

__attribute__((target("avx2"))) uint64_t ReadWide(const uint8_t* data, size_t bytes) {
  constexpr int kAhead = 2048;
  const size_t stream = bytes / kStreams;
  __m256i sum[kStreams] = {};
  for (size_t at = 0; at < stream; at += 64) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const uint8_t* p = data + s * stream + at;
      _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T0);
      sum[s] = _mm256_add_epi64(sum[s], _mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
      sum[s] = _mm256_add_epi64(sum[s], _mm256_load_si256(reinterpret_cast<const __m256i*>(p + 32)));
    }
  }
  const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), all);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

__attribute__((target("avx512f"))) uint64_t FmaAvx512(int64_t rounds) {
  __m512 sum[kChains], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int c = 0; c < kChains; ++c) sum[c] = _mm512_set1_ps(static_cast<float>(c));
  for (; rounds > 0; --rounds)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sum[c] = _mm512_fmadd_ps(sum[c], a, b);
  for (int c = 1; c < kChains; ++c) sum[0] = _mm512_add_ps(sum[0], sum[c]);
  return static_cast<uint64_t>(_mm512_cvtss_f32(sum[0]));
}

__attribute__((target("avx2,fma"))) uint64_t FmaAvx2(int64_t rounds) {
  __m256 sum[kFew], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int c = 0; c < kFew; ++c) sum[c] = _mm256_set1_ps(static_cast<float>(c));
  for (; rounds > 0; --rounds)
#pragma GCC unroll 12
    for (int c = 0; c < kFew; ++c) sum[c] = _mm256_fmadd_ps(sum[c], a, b);
  for (int c = 1; c < kFew; ++c) sum[0] = _mm256_add_ps(sum[0], sum[c]);
  return static_cast<uint64_t>(_mm256_cvtss_f32(sum[0]));
}

// Without VNNI: exact if bytes are 16 bits wide when they are multiplied.
__attribute__((target("avx2"))) uint64_t BytesAvx2(int64_t rounds) {
  __m256i sum[kFew];
  const __m256i a = _mm256_set1_epi32(0x00020001), b = _mm256_set1_epi32(static_cast<int32_t>(0xffff0003));
  for (int c = 0; c < kFew; ++c) sum[c] = _mm256_set1_epi32(c);
  for (; rounds > 0; --rounds)
#pragma GCC unroll 12
    for (int c = 0; c < kFew; ++c) {
      __m256i product;
      asm volatile("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(a), "x"(b));  // not moved out of the loop
      sum[c] = _mm256_add_epi32(sum[c], product);
    }
  for (int c = 1; c < kFew; ++c) sum[0] = _mm256_add_epi32(sum[0], sum[c]);
  return static_cast<uint32_t>(_mm256_extract_epi32(sum[0], 0));
}

// By value: gcc 12 copies the accumulators of the intrinsics at every use (CPU-KERNELS.md, section 1).
__attribute__((target("avx512f"))) inline __m512i DotBytes(__m512i sum, __m512i a, __m512i b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

__attribute__((target("avx512f"))) inline __m512 DotHalves(__m512 sum, __m512i a, __m512i b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

__attribute__((target("avx512f"))) uint64_t BytesAvx512(int64_t rounds) {
  __m512i sum[kChains], a = _mm512_set1_epi32(0x01020301), b = _mm512_set1_epi32(0x01ff01ff);
  for (int c = 0; c < kChains; ++c) sum[c] = _mm512_set1_epi32(c);
  for (; rounds > 0; --rounds)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sum[c] = DotBytes(sum[c], a, b);
  for (int c = 1; c < kChains; ++c) sum[0] = _mm512_add_epi32(sum[0], sum[c]);
  return static_cast<uint32_t>(_mm512_cvtsi512_si32(sum[0]));
}

__attribute__((target("avx512f"))) uint64_t HalvesAvx512(int64_t rounds) {
  // 1 and -1 in bf16, so that the sums stay where they are.
  __m512 sum[kChains];
  const __m512i a = _mm512_set1_epi32(0x3f803f80), b = _mm512_set1_epi32(static_cast<int32_t>(0xbf803f80));
  for (int c = 0; c < kChains; ++c) sum[c] = _mm512_set1_ps(static_cast<float>(c));
  for (; rounds > 0; --rounds)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sum[c] = DotHalves(sum[c], a, b);
  for (int c = 1; c < kChains; ++c) sum[0] = _mm512_add_ps(sum[0], sum[c]);
  return static_cast<uint64_t>(_mm512_cvtss_f32(sum[0]));
}

#elif defined(__aarch64__)

uint64_t FmaNeon(int64_t rounds) {
  float32x4_t sum[kChains], a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.001f);
  for (int c = 0; c < kChains; ++c) sum[c] = vdupq_n_f32(static_cast<float>(c));
  for (; rounds > 0; --rounds)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sum[c] = vfmaq_f32(b, sum[c], a);
  for (int c = 1; c < kChains; ++c) sum[0] = vaddq_f32(sum[0], sum[c]);
  return static_cast<uint64_t>(vgetq_lane_f32(sum[0], 0));
}

#endif

uint64_t ReadPlain(const uint8_t* data, size_t bytes) {
  const size_t stream = bytes / kStreams;
  uint64_t sum[kStreams] = {};
  for (size_t at = 0; at < stream; at += 8)
    for (int s = 0; s < kStreams; ++s) {
      uint64_t word;
      std::memcpy(&word, data + s * stream + at, 8);
      sum[s] += word;
    }
  return sum[0] + sum[1] + sum[2] + sum[3];
}

uint64_t FmaPlain(int64_t rounds) {
  float sum[kChains];
  for (int c = 0; c < kChains; ++c) sum[c] = static_cast<float>(c);
  for (; rounds > 0; --rounds)
    for (float& s : sum) s = std::fma(s, 0.999f, 0.001f);
  for (int c = 1; c < kChains; ++c) sum[0] += sum[c];
  return static_cast<uint64_t>(sum[0]);
}

std::vector<InstructionPeak> FindPeaks() {
  std::vector<InstructionPeak> peaks;
  // Operations: chains × lanes × 2, and a dot's lane takes 2 halves or 4 bytes.
#if defined(__x86_64__)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (__builtin_cpu_supports("avx512f"))
    peaks.push_back({"f32 fma", kChains * 16 * 2, FmaAvx512});
  else if (has_avx2)
    peaks.push_back({"f32 fma", kFew * 8 * 2, FmaAvx2});
  if (__builtin_cpu_supports("avx512bf16")) peaks.push_back({"bf16 dot", kChains * 16 * 2 * 2, HalvesAvx512});
  if (__builtin_cpu_supports("avx512vnni"))
    peaks.push_back({"int8 dot", kChains * 16 * 2 * 4, BytesAvx512});
  else if (has_avx2)
    peaks.push_back({"int8 dot", kFew * 8 * 2 * 2, BytesAvx2});
#elif defined(__aarch64__)
  peaks.push_back({"f32 fma", kChains * 4 * 2, FmaNeon});
#endif
  if (peaks.empty()) peaks.push_back({"f32 fma", kChains * 2, FmaPlain});
  return peaks;
}

}  // namespace

std::span<const InstructionPeak> InstructionPeaks() {
  static const std::vector<InstructionPeak> peaks = FindPeaks();
  return peaks;
}

const InstructionPeak& PeakOf(const char* name) {
  for (const InstructionPeak& peak : InstructionPeaks())
    if (std::strcmp(peak.name, name) == 0) return peak;
  return InstructionPeaks().front();
}

uint64_t ReadStreams(const uint8_t* data, size_t bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return ReadWide(data, bytes);
#endif
  return ReadPlain(data, bytes);
}

}  // namespace openlora
