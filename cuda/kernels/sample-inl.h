#pragma once

// What the kernels of sample.cuh and sample_finish.cuh share: places, weights, rows.

#include "device/device.cuh"
#include "kernels/sample.h"

// A token's place in the order of likelihood is the integer (rank of its logit, its id): no two are equal, the most
// likely is the smallest.

namespace openlora::sample {

inline constexpr float kLargest = 0x1.fffffep127f;
inline constexpr uint64_t kNowhere = ~uint64_t{0};
inline constexpr uint64_t kInvalid = 0;  // a place before all others: of NaN and +inf
inline constexpr int kWarpsMax = 32;

// --- places, weights ---

// Falls as x rises; the same for both zeros.
__device__ __forceinline__ uint32_t RankOf(float x) {
  const uint32_t bits = x == 0 ? 0 : dev::FloatToBits(x);
  return bits >> 31 != 0 ? bits : bits ^ 0x7fffffff;
}
__device__ __forceinline__ uint64_t PlaceOf(float x, int id) {
  return uint64_t{RankOf(x)} << 32 | static_cast<uint32_t>(id);
}
__device__ __forceinline__ float LogitAt(uint64_t place) {
  const auto rank = static_cast<uint32_t>(place >> 32);
  return dev::BitsToFloat(rank >> 31 != 0 ? rank : rank ^ 0x7fffffff);
}
__device__ __forceinline__ int IdAt(uint64_t place) { return static_cast<int>(place & 0xffffffff); }

// A row as it is drawn from, or reported.
struct View {
  float* logits;
  float max;
  float scale;  // 1 / temperature, at most FLT_MAX: infinity times 0 would be NaN
};
__device__ __forceinline__ float DistanceOf(const View& view, float x) { return (view.max - x) * view.scale; }
__device__ __forceinline__ int BinOf(float distance) {
  return distance < kBins - 1 ? static_cast<int>(distance) : kBins - 1;
}
__device__ __forceinline__ float WeightOf(float distance) { return dev::Exp2(-1.44269504f * distance); }
__device__ __forceinline__ uint64_t MassOf(float weight) { return static_cast<uint64_t>(weight * 0x1p44f); }
__device__ __forceinline__ uint64_t MassAt(const View& view, float x) {
  const float distance = DistanceOf(view, x);
  return distance < kBins - 1 ? MassOf(WeightOf(distance)) : 0;
}

// a * b / 2^64, rounded down.
__device__ __forceinline__ uint64_t MultiplyHigh(uint64_t a, uint64_t b) {
  const uint64_t a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
  return a1 * b1 + (middle >> 32) + ((a0 * b1 + (middle & 0xffffffff)) >> 32);
}

// The draw of base/prng.h, Philox4x32-10: 53 bits, the highest of 64.
__device__ __forceinline__ uint64_t Uniform(uint64_t seed, uint64_t counter) {
  auto c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = 0, c3 = 0;
  auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (uint64_t{c1} << 32 | c0) >> 11 << 11;
}

// log(mass / 2^44) for mass >= 2^44. log(m) = 2 atanh((m - 1) / (m + 1)), m within a factor of sqrt(2) of 1.
__device__ __forceinline__ float LogOfMass(uint64_t mass) {
  const uint32_t bits = dev::FloatToBits(static_cast<float>(mass));
  uint32_t fraction = (bits & 0x7fffff) | 0x3f800000;
  int exponent = static_cast<int>(bits >> 23) - 127 - kMassBits;
  if (fraction > 0x3fb504f3) {
    fraction -= 0x800000;
    ++exponent;
  }
  const float m = dev::BitsToFloat(fraction), f = (m - 1) / (m + 1), f2 = f * f;
  float series = 1.0f / 9;
  series = dev::Fma(series, f2, 1.0f / 7);
  series = dev::Fma(series, f2, 1.0f / 5);
  series = dev::Fma(series, f2, 1.0f / 3);
  const float log = dev::Fma(2 * f * f2, series, 2 * f);
  const auto n = static_cast<float>(exponent);
  return dev::Fma(n, 0.693359375f, dev::Fma(n, -2.12194440e-4f, log));  // ln 2 in two parts, the first of ten bits
}

// --- sums of a warp, of a block ---

__device__ __forceinline__ int CountOf(uint32_t bits) {
  bits -= bits >> 1 & 0x55555555;
  bits = (bits & 0x33333333) + (bits >> 2 & 0x33333333);
  return static_cast<int>(((bits + (bits >> 4)) & 0x0f0f0f0f) * 0x01010101u >> 24);
}
__device__ __forceinline__ uint64_t ShuffleXor64(uint64_t value, int lanes) {
  const uint32_t low = dev::ShuffleXor(static_cast<uint32_t>(value), lanes);
  const uint32_t high = dev::ShuffleXor(static_cast<uint32_t>(value >> 32), lanes);
  return uint64_t{high} << 32 | low;
}
__device__ __forceinline__ uint64_t WarpSum(uint64_t value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += ShuffleXor64(value, lanes);
  return value;
}
__device__ __forceinline__ uint64_t WarpMin(uint64_t value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value = dev::Min(value, ShuffleXor64(value, lanes));
  return value;
}
// Of all lanes up to this one.
__device__ __forceinline__ uint64_t WarpScan(uint64_t value) {
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t low = dev::Shuffle(static_cast<uint32_t>(value), dev::Lane() - distance);
    const uint32_t high = dev::Shuffle(static_cast<uint32_t>(value >> 32), dev::Lane() - distance);
    if (dev::Lane() >= distance) value += uint64_t{high} << 32 | low;
  }
  return value;
}

// A value of each warp.
struct Parts {
  uint64_t of_warp[kWarpsMax];
};
__device__ __forceinline__ int Warps() { return dev::BlockThreads() / 32; }

__device__ __forceinline__ uint64_t BlockSum(Parts& parts, uint64_t value) {
  const uint64_t own = WarpSum(value);
  if (dev::Lane() == 0) parts.of_warp[dev::Warp()] = own;
  dev::SyncBlock();
  uint64_t sum = 0;
  for (int w = 0; w < Warps(); ++w) sum += parts.of_warp[w];
  dev::SyncBlock();
  return sum;
}
__device__ __forceinline__ uint64_t BlockMin(Parts& parts, uint64_t value) {
  const uint64_t own = WarpMin(value);
  if (dev::Lane() == 0) parts.of_warp[dev::Warp()] = own;
  dev::SyncBlock();
  uint64_t min = kNowhere;
  for (int w = 0; w < Warps(); ++w) min = dev::Min(min, parts.of_warp[w]);
  dev::SyncBlock();
  return min;
}
// The sum of all threads up to this one; `all` becomes that of the block.
__device__ __forceinline__ uint64_t BlockScan(Parts& parts, uint64_t value, uint64_t& all) {
  uint64_t scan = WarpScan(value);
  if (dev::Lane() == 31) parts.of_warp[dev::Warp()] = scan;
  dev::SyncBlock();
  all = 0;
  for (int w = 0; w < Warps(); ++w) {
    if (w < dev::Warp()) scan += parts.of_warp[w];
    all += parts.of_warp[w];
  }
  dev::SyncBlock();
  return scan;
}

// --- rows ---

struct Four {
  float x[4];
};
// Logits from `first` on; those from `end` on aren't read.
__device__ __forceinline__ Four LoadFour(const float* logits, int first, int end) {
  Four four = {};
  if (first + 4 <= end) {
    const auto words = *reinterpret_cast<const dev::Vec16*>(logits + first);
#pragma unroll
    for (int i = 0; i < 4; ++i) four.x[i] = dev::BitsToFloat(words.w[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 3; ++i)
      if (first + i < end) four.x[i] = logits[first + i];
  }
  return four;
}
// of(x, id) for each logit of [begin, end), by all threads of the block.
template <class Of>
__device__ __forceinline__ void ForEach(const float* logits, int begin, int end, const Of& of) {
  for (int first = begin + dev::ThreadIndex() * 4; first < end; first += dev::BlockThreads() * 4) {
    const Four four = LoadFour(logits, first, end);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (first + i < end) of(four.x[i], first + i);
  }
}

__device__ __forceinline__ bool IsAdjusted(const Row& row) {
  return row.target < 0 && row.bias_count + row.seen_count > 0;
}
__device__ __forceinline__ bool IsDrawn(const Row& row) { return row.target < 0 && row.temperature > 0; }
__device__ __forceinline__ bool IsReported(const Row& row) { return row.target >= 0 || row.logprobs >= 0; }

__device__ __forceinline__ int Chunks(const Params& params) { return dev::CeilDiv(params.vocabulary, params.chunk); }
__device__ __forceinline__ int64_t ChunkIndex(const Params& params, int view, int row) {
  return (static_cast<int64_t>(view) * params.rows_max + row) * Chunks(params);
}

// The place of a row's most likely token; every warp finds it for itself.
__device__ __forceinline__ uint64_t BestOf(const Params& params, int view, int row) {
  const uint64_t* const best = params.best + ChunkIndex(params, view, row);
  uint64_t min = kNowhere;
  for (int chunk = dev::Lane(); chunk < Chunks(params); chunk += 32) min = dev::Min(min, best[chunk]);
  return WarpMin(min);
}
// No NaN, no +inf, not everything forbidden.
__device__ __forceinline__ bool IsValid(uint64_t best) { return best != kInvalid && LogitAt(best) >= -kLargest; }

__device__ __forceinline__ View ViewOf(const Params& params, int view, int index, uint64_t best) {
  const float scale = view == kDrawn ? dev::Min(1 / params.rows[index].temperature, kLargest) : 1.0f;
  return {params.logits + index * params.stride, LogitAt(best), scale};
}

// `count` in the output. Steps are rounded one by one: the product with zero added can't become part of the difference.
__device__ __forceinline__ float Penalised(float x, const Row& row, int count) {
  const bool was_finite = x - x == 0;
  x = x < 0 ? x * row.repetition_penalty : x / row.repetition_penalty;
  if (was_finite) x = dev::Max(-kLargest, dev::Min(kLargest, x));
  x -= dev::Fma(row.frequency_penalty, static_cast<float>(count), 0.0f);
  return count > 0 ? x - row.presence_penalty : x;
}

// Changes a row's logits of [begin, end) in place and keeps what they were. A token may be biased and penalised.
__device__ __forceinline__ void Adjust(const Params& params, const Row& row, float* logits, int begin, int end) {
  dev::SyncBlock();
  for (int i = row.bias_begin + dev::ThreadIndex(); i < row.bias_begin + row.bias_count; i += dev::BlockThreads()) {
    const Bias bias = params.bias[i];
    if (bias.token < begin || bias.token >= end) continue;
    const float x = logits[bias.token];
    params.saved_bias[i] = x;
    logits[bias.token] = x + bias.bias;
  }
  dev::SyncBlock();
  for (int i = row.seen_begin + dev::ThreadIndex(); i < row.seen_begin + row.seen_count; i += dev::BlockThreads()) {
    const Seen seen = params.seen[i];
    if (seen.token < begin || seen.token >= end) continue;
    const float x = logits[seen.token];
    params.saved_seen[i] = x;
    logits[seen.token] = Penalised(x, row, seen.count);
  }
  dev::SyncBlock();
}
__device__ __forceinline__ void Restore(const Params& params, const Row& row, float* logits, int begin, int end) {
  dev::SyncBlock();
  for (int i = row.seen_begin + dev::ThreadIndex(); i < row.seen_begin + row.seen_count; i += dev::BlockThreads()) {
    const int token = params.seen[i].token;
    if (token >= begin && token < end) logits[token] = params.saved_seen[i];
  }
  dev::SyncBlock();
  for (int i = row.bias_begin + dev::ThreadIndex(); i < row.bias_begin + row.bias_count; i += dev::BlockThreads()) {
    const int token = params.bias[i].token;
    if (token >= begin && token < end) logits[token] = params.saved_bias[i];
  }
  dev::SyncBlock();
}

// The place of the token that a row would take at temperature 0.
__device__ __forceinline__ uint64_t BestDrawn(const Params& params, const Row& row, int index) {
  return BestOf(params, IsAdjusted(row) ? kDrawn : kRaw, index);
}

// --- bins ---

// Bins of which each thread has its own, [bins][threads]: a count above a mass. So at most 1023 tokens of a thread.
inline constexpr int kCountShift = 54;

__device__ __forceinline__ void ClearBins(uint64_t* own, int bins) {
  for (int b = 0; b < bins; ++b) own[b * dev::BlockThreads() + dev::ThreadIndex()] = 0;
}
__device__ __forceinline__ void AddToBin(uint64_t* own, int bin, uint64_t mass) {
  own[bin * dev::BlockThreads() + dev::ThreadIndex()] += (uint64_t{1} << kCountShift) + mass;
}
__device__ __forceinline__ Bin Sum(const Bin& a, const Bin& b) { return {a.mass + b.mass, a.count + b.count}; }
// Adds up what all threads have, a bin to a lane; `of_warps` is [warps][bins].
__device__ __forceinline__ void SumBins(const uint64_t* own, int bins, Bin* of_warps, Bin* sums) {
  dev::SyncBlock();
  const int lane = dev::Lane();
  if (lane < bins) {
    Bin sum = {0, 0};
    for (int i = 0; i < 32; ++i) {  // lanes in different banks
      const uint64_t bin = own[lane * dev::BlockThreads() + dev::Warp() * 32 + (i + lane) % 32];
      sum.count += bin >> kCountShift;
      sum.mass += bin & ((uint64_t{1} << kCountShift) - 1);
    }
    of_warps[dev::Warp() * bins + lane] = sum;
  }
  dev::SyncBlock();
  if (dev::Warp() == 0 && lane < bins) {
    Bin sum = {0, 0};
    for (int w = 0; w < Warps(); ++w) sum = Sum(sum, of_warps[w * bins + lane]);
    sums[lane] = sum;
  }
  dev::SyncBlock();
}

}  // namespace openlora::sample
