#include "native/limits.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "base/check.h"
#include "base/clock.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace openlora::bench {
namespace {

constexpr int kStreams = 4;
constexpr int kChains = 16;          // independent: latency 4 times two units, twice over
constexpr int64_t kBurst = 700'000;  // fused multiply-adds of each chain: about 2 ms

std::atomic<uint64_t> sink;  // what was computed is used

#if defined(__x86_64__)

// `bytes` at `data` as four streams side by side; a multiple of 4 · 128.
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

__attribute__((target("avx512f"))) float FmaAvx512(int64_t count, float x) {
  __m512 sum[kChains], a = _mm512_set1_ps(x), b = _mm512_set1_ps(1 - x);
  for (int c = 0; c < kChains; ++c) sum[c] = _mm512_set1_ps(static_cast<float>(c));
  for (; count > 0; --count)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sum[c] = _mm512_fmadd_ps(sum[c], a, b);
  for (int c = 1; c < kChains; ++c) sum[0] = _mm512_add_ps(sum[0], sum[c]);
  return _mm512_cvtss_f32(sum[0]);
}

__attribute__((target("avx2,fma"))) float FmaAvx2(int64_t count, float x) {
  constexpr int kFew = 12;  // of 16 registers
  __m256 sum[kFew], a = _mm256_set1_ps(x), b = _mm256_set1_ps(1 - x);
  for (int c = 0; c < kFew; ++c) sum[c] = _mm256_set1_ps(static_cast<float>(c));
  for (count = count * kChains / kFew; count > 0; --count)
#pragma GCC unroll 12
    for (int c = 0; c < kFew; ++c) sum[c] = _mm256_fmadd_ps(sum[c], a, b);
  for (int c = 1; c < kFew; ++c) sum[0] = _mm256_add_ps(sum[0], sum[c]);
  return _mm256_cvtss_f32(sum[0]);
}

// By value: applied to an array's element, the instruction would work on memory.
__attribute__((target("avx512f"), always_inline)) inline __m512i DotVnni(__m512i sum, __m512i a, __m512i b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

__attribute__((target("avx512f"))) float DotsVnni(int64_t count, float x) {
  __m512i sum[kChains];
  const __m512i a = _mm512_set1_epi32(static_cast<int>(x * 1e6f)), b = _mm512_set1_epi8(3);
  for (int c = 0; c < kChains; ++c) sum[c] = _mm512_set1_epi32(c);
  for (; count > 0; --count)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sum[c] = DotVnni(sum[c], a, b);
  for (int c = 1; c < kChains; ++c) sum[0] = _mm512_add_epi32(sum[0], sum[c]);
  alignas(64) int32_t lanes[16];
  _mm512_store_si512(lanes, sum[0]);
  return static_cast<float>(lanes[0]);
}

// Exact for bytes: they are 16 bits wide when they are multiplied.
__attribute__((target("avx2"))) float DotsAvx2(int64_t count, float x) {
  constexpr int kFew = 12;
  __m256i sum[kFew];
  const __m256i a = _mm256_set1_epi16(static_cast<int16_t>(x * 100)), b = _mm256_set1_epi16(3);
  for (int c = 0; c < kFew; ++c) sum[c] = _mm256_set1_epi32(c);
  for (count = count * kChains / kFew; count > 0; --count)
#pragma GCC unroll 12
    for (int c = 0; c < kFew; ++c) {
      __m256i product;
      asm volatile("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(a), "x"(b));  // not moved out of the loop
      sum[c] = _mm256_add_epi32(sum[c], product);
    }
  for (int c = 1; c < kFew; ++c) sum[0] = _mm256_add_epi32(sum[0], sum[c]);
  return static_cast<float>(_mm256_extract_epi32(sum[0], 0));
}

#elif defined(__aarch64__)

float FmaNeon(int64_t count, float x) {
  float32x4_t sum[kChains], a = vdupq_n_f32(x), b = vdupq_n_f32(1 - x);
  for (int c = 0; c < kChains; ++c) sum[c] = vdupq_n_f32(static_cast<float>(c));
  for (; count > 0; --count)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sum[c] = vfmaq_f32(b, sum[c], a);
  for (int c = 1; c < kChains; ++c) sum[0] = vaddq_f32(sum[0], sum[c]);
  return vgetq_lane_f32(sum[0], 0);
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

float FmaPlain(int64_t count, float x) {
  float sum[kChains];
  for (int c = 0; c < kChains; ++c) sum[c] = static_cast<float>(c);
  for (; count > 0; --count)
    for (float& s : sum) s = std::fma(s, x, 1 - x);
  for (int c = 1; c < kChains; ++c) sum[0] += sum[c];
  return sum[0];
}

Burst BestBurst() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {FmaAvx512, 16};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {FmaAvx2, 8};
#elif defined(__aarch64__)
  return {FmaNeon, 4};
#endif
  return {FmaPlain, 1};
}

Burst BestInt8Burst() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) return {DotsVnni, 64};
  if (__builtin_cpu_supports("avx2")) return {DotsAvx2, 16};
#endif
  return {nullptr, 0};
}

uint64_t Read(const uint8_t* data, size_t bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return ReadWide(data, bytes);
#endif
  return ReadPlain(data, bytes);
}

}  // namespace

LimitProbe::LimitProbe(int threads)
    : pool_(threads), buffer_(std::max(2 * LastLevelCacheBytes(), size_t{128} << 20) + (size_t{64} << 20)) {
  OPENLORA_CHECK(buffer_.data() != nullptr);
  uint64_t* words = static_cast<uint64_t*>(buffer_.data());
  for (size_t i = 0; i < buffer_.bytes() / 8; ++i) words[i] = i * 0x9E3779B97F4A7C15u;
}

double LimitProbe::ReadGbs() {
  const size_t share = buffer_.bytes() / static_cast<size_t>(pool_.size()) / 4096 * 4096;
  const double begin = NowMs();
  pool_.Run([&](int member, int) {
    const uint8_t* data = static_cast<const uint8_t*>(buffer_.data()) + static_cast<size_t>(member) * share;
    sink.fetch_add(Read(data, share), std::memory_order_relaxed);
  });
  return static_cast<double>(share) * pool_.size() / (NowMs() - begin) * 1e-6;
}

double LimitProbe::GopsOf(const Burst& burst) {
  const double begin = NowMs();
  pool_.Run([&](int, int) {
    const float sum = burst.run(kBurst, 0.999f);
    sink.fetch_add(static_cast<uint64_t>(std::abs(sum)), std::memory_order_relaxed);
  });
  return 2.0 * static_cast<double>(kBurst) * kChains * burst.lanes * pool_.size() / (NowMs() - begin) * 1e-6;
}

double LimitProbe::Gflops() {
  static const Burst burst = BestBurst();
  return GopsOf(burst);
}

double LimitProbe::Int8Gops() {
  static const Burst burst = BestInt8Burst();
  return burst.run == nullptr ? 0 : GopsOf(burst);
}

Limits LimitProbe::Measure(int rounds) {
  std::vector<double> reads, bursts, int8_bursts;
  for (int round = 0; round < rounds; ++round) {
    reads.push_back(ReadGbs());
    for (int i = 0; i < 3; ++i) {
      bursts.push_back(Gflops());
      int8_bursts.push_back(Int8Gops());
    }
  }
  return {Quantile(reads, 0.5), Quantile(bursts, 0.5), Quantile(int8_bursts, 0.5)};
}

size_t LastLevelCacheBytes() {
  for (const int name : {_SC_LEVEL4_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL2_CACHE_SIZE}) {
    const long bytes = sysconf(name);
    if (bytes > 0) return static_cast<size_t>(bytes);
  }
  return size_t{32} << 20;
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

double Quantile(std::vector<double>& values, double share) {
  OPENLORA_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

}  // namespace openlora::bench
