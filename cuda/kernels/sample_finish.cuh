#include "device/device.cuh"
#include "kernels/sample-inl.h"
#include "kernels/sample_finish.h"

namespace openlora::sample {

inline constexpr int kNarrowing = 4;  // bins of a block's threads fit where the list will stand
static_assert(kNarrowing * kFinishThreads <= 2 * kListMax);

struct alignas(128) FinishShared {
  uint64_t list[2 * kListMax];  // places, in order; then masses, up to and including each. Bins, before there is a list
  Parts parts;
  Bin bins[kBins];  // of the row
  Bin narrowed[kNarrowing];
  Bin of_warps[kNarrowing * kFinishThreads / 32];
  int32_t list_begin[kChunksMax + 1];  // where a chunk's tokens stand in the list
  uint64_t chunk_mass[kChunksMax];
  int32_t token;
};
static_assert(sizeof(FinishShared) <= kFinishSharedBytes);

// Consecutive places of a view: those within [low, high] whose bin is one of [bin_first, bin_last].
struct Range {
  int bin_first;
  int bin_last;
  uint64_t low;
  uint64_t high;
  Bin before;  // of the places before it
  Bin own;
};
__device__ __forceinline__ bool Holds(const Range& range, const View& view, float x, int id) {
  const int bin = BinOf(DistanceOf(view, x));
  const uint64_t place = PlaceOf(x, id);
  return bin >= range.bin_first && bin <= range.bin_last && place >= range.low && place <= range.high;
}

enum class By { kCount, kMass };
__device__ __forceinline__ uint64_t SizeOf(const Bin& bin, By by) { return by == By::kCount ? bin.count : bin.mass; }

// The row that a block is at, in one view.
struct Finishing {
  View view;
  const Bin* bins;  // [chunks][kBins]
  Range listed;     // what the list holds
};

__device__ __forceinline__ int BitsOf(uint64_t value) {
  int bits = 0;
  for (; value != 0; value >>= 1) ++bits;
  return bits;
}

// One of four equal parts of a range: that which holds the place where the size reaches `wanted`.
__device__ __forceinline__ Range Narrowed(const Params& params, FinishShared& shared, const View& view,
                                          const Range& range, By by, uint64_t wanted) {
  const int shift = dev::Max(0, BitsOf(range.high - range.low) - 2);
  ClearBins(shared.list, kNarrowing);
  ForEach(view.logits, 0, params.vocabulary, [&](float x, int id) {
    const uint64_t place = PlaceOf(x, id);
    if (place < range.low || place > range.high) return;
    AddToBin(shared.list, static_cast<int>((place - range.low) >> shift), MassAt(view, x));
  });
  SumBins(shared.list, kNarrowing, shared.of_warps, shared.narrowed);
  Range found = range;
  int part = 0;
  while (part < kNarrowing - 1 && SizeOf(Sum(found.before, shared.narrowed[part]), by) < wanted)
    found.before = Sum(found.before, shared.narrowed[part++]);
  found.own = shared.narrowed[part];
  found.low = range.low + (static_cast<uint64_t>(part) << shift);
  found.high = dev::Min(range.high, found.low + ((uint64_t{1} << shift) - 1));
  return found;
}

// A range that fits into the list and holds the place where the size reaches `wanted`; from the first place on, if that
// fits too. As it does where `wanted` is a count of at most kTop.
__device__ __forceinline__ Range RangeOf(const Params& params, FinishShared& shared, const View& view, By by,
                                         uint64_t wanted) {
  int bin = 0;
  Bin before = {0, 0};
  for (; bin < kBins - 1 && SizeOf(Sum(before, shared.bins[bin]), by) < wanted; ++bin)
    before = Sum(before, shared.bins[bin]);
  Range range = {bin, bin, 0, kNowhere, before, shared.bins[bin]};
  const auto list_max = static_cast<uint64_t>(params.list_max);
  if (range.own.count > list_max - kTop) {
    uint64_t low = kNowhere, not_high = kNowhere;
    ForEach(view.logits, 0, params.vocabulary, [&](float x, int id) {
      if (!Holds(range, view, x, id)) return;
      low = dev::Min(low, PlaceOf(x, id));
      not_high = dev::Min(not_high, ~PlaceOf(x, id));
    });
    range.low = BlockMin(shared.parts, low);
    range.high = ~BlockMin(shared.parts, not_high);
  }
  while (range.own.count > list_max - kTop) range = Narrowed(params, shared, view, range, by, wanted);
  if (range.before.count + range.own.count <= list_max)
    range = {0, bin, 0, range.high, {0, 0}, Sum(range.before, range.own)};
  return range;
}

// The tokens of a chunk that a range holds, by one warp; of(has, place) for 32 at a time.
template <class Of>
__device__ __forceinline__ void ForEachOfChunk(const Params& params, const View& view, const Range& range, int chunk,
                                               const Of& of) {
  const int begin = chunk * params.chunk, end = dev::Min(params.vocabulary, begin + params.chunk);
  constexpr int kLoads = 4;  // on their way at once
  for (int i = begin; i < end; i += kLoads * 128) {
    Four fours[kLoads];
#pragma unroll
    for (int load = 0; load < kLoads; ++load)
      fours[load] = LoadFour(view.logits, i + load * 128 + dev::Lane() * 4, end);
#pragma unroll
    for (int k = 0; k < kLoads * 4; ++k) {
      const int id = i + k / 4 * 128 + dev::Lane() * 4 + k % 4;
      const float x = fours[k / 4].x[k % 4];
      of(id < end && Holds(range, view, x, id), PlaceOf(x, id));
    }
  }
}

// Where each chunk's tokens of a range stand in the list.
__device__ __forceinline__ void PlanList(const Params& params, FinishShared& shared, const Finishing& finishing,
                                         const Range& range) {
  for (int chunk = dev::Warp(); chunk < Chunks(params); chunk += Warps()) {
    uint64_t count = 0;
    if (range.high == kNowhere) {  // whole bins
      const bool has = dev::Lane() >= range.bin_first && dev::Lane() <= range.bin_last;
      count = WarpSum(has ? finishing.bins[chunk * kBins + dev::Lane()].count : 0);
    } else {
      ForEachOfChunk(params, finishing.view, range, chunk, [&](bool has, uint64_t) {
        const uint32_t votes = dev::Ballot(has);
        count += static_cast<uint64_t>(CountOf(votes));
      });
    }
    if (dev::Lane() == 0) shared.list_begin[chunk + 1] = static_cast<int32_t>(count);
  }
  dev::SyncBlock();
  if (dev::ThreadIndex() == 0) {
    shared.list_begin[0] = 0;
    for (int chunk = 0; chunk < Chunks(params); ++chunk) shared.list_begin[chunk + 1] += shared.list_begin[chunk];
  }
  dev::SyncBlock();
}

// Bitonic sort of the list's first `count` places.
__device__ __forceinline__ void SortList(FinishShared& shared, int count) {
  int size = 1;
  while (size < count) size *= 2;
  for (int i = count + dev::ThreadIndex(); i < size; i += dev::BlockThreads()) shared.list[i] = kNowhere;
  dev::SyncBlock();
  for (int run = 2; run <= size; run *= 2)
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = dev::ThreadIndex(); i < size / 2; i += dev::BlockThreads()) {
        const int low = 2 * i - (i & (step - 1)), high = low + step;
        const uint64_t a = shared.list[low], b = shared.list[high];
        if ((a > b) == ((low & run) == 0)) {
          shared.list[low] = b;
          shared.list[high] = a;
        }
      }
      dev::SyncBlock();
    }
}

__device__ __forceinline__ void MakeList(const Params& params, FinishShared& shared, Finishing& finishing,
                                         const Range& range) {
  PlanList(params, shared, finishing, range);
  for (int chunk = dev::Warp(); chunk < Chunks(params); chunk += Warps()) {
    int next = shared.list_begin[chunk];
    if (next == shared.list_begin[chunk + 1]) continue;
    ForEachOfChunk(params, finishing.view, range, chunk, [&](bool has, uint64_t place) {
      const uint32_t votes = dev::Ballot(has);
      if (has) shared.list[next + CountOf(votes & ((1u << dev::Lane()) - 1))] = place;
      next += CountOf(votes);
    });
  }
  const auto count = static_cast<int>(range.own.count);
  SortList(shared, count);
  uint64_t before = 0;
  for (int first = 0; first < count; first += dev::BlockThreads()) {
    const int i = first + dev::ThreadIndex();
    uint64_t all = 0;
    const uint64_t mass = i < count ? MassAt(finishing.view, LogitAt(shared.list[i])) : 0;
    const uint64_t scan = BlockScan(shared.parts, mass, all);
    if (i < count) shared.list[kListMax + i] = before + scan;
    before += all;
  }
  dev::SyncBlock();
  finishing.listed = range;
}

// The index in the list, which is made unless it has it, of the first token up to which the size is at least `wanted`.
__device__ __forceinline__ int Find(const Params& params, FinishShared& shared, Finishing& finishing, By by,
                                    uint64_t wanted) {
  const uint64_t begin = SizeOf(finishing.listed.before, by);
  if (wanted <= begin || wanted > begin + SizeOf(finishing.listed.own, by))
    MakeList(params, shared, finishing, RangeOf(params, shared, finishing.view, by, wanted));
  const uint64_t inside = wanted - SizeOf(finishing.listed.before, by);
  if (by == By::kCount) return static_cast<int>(inside) - 1;
  int low = 0, high = static_cast<int>(finishing.listed.own.count) - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (shared.list[kListMax + middle] >= inside) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// Adds up the row's chunks.
__device__ __forceinline__ Mass LoadRow(const Params& params, FinishShared& shared, const Finishing& finishing,
                                        const Mass* masses) {
  Mass own = {0, 0};
  for (int chunk = dev::ThreadIndex(); chunk < Chunks(params); chunk += dev::BlockThreads()) {
    const Mass mass = masses[chunk];
    shared.chunk_mass[chunk] = mass.all;
    own = {own.all + mass.all, own.kept + mass.kept};
  }
  if (dev::Warp() == 0) {
    Bin sum = {0, 0};
    for (int chunk = 0; chunk < Chunks(params); ++chunk) sum = Sum(sum, finishing.bins[chunk * kBins + dev::Lane()]);
    shared.bins[dev::Lane()] = sum;
  }
  const uint64_t all = BlockSum(shared.parts, own.all);
  const uint64_t kept = BlockSum(shared.parts, own.kept);
  return {all, kept};
}

// The first token by id up to which the mass is more than `target`.
__device__ __forceinline__ int DrawById(const Params& params, FinishShared& shared, const View& view, uint64_t target) {
  int chunk = 0;
  uint64_t before = 0;
  while (before + shared.chunk_mass[chunk] <= target) before += shared.chunk_mass[chunk++];
  const int begin = chunk * params.chunk, end = dev::Min(params.vocabulary, begin + params.chunk);
  for (int i = begin; before <= target; i += dev::BlockThreads() * 4) {
    const int first = i + dev::ThreadIndex() * 4;
    const Four four = LoadFour(view.logits, first, end);
    uint64_t mass[4], own = 0, all = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) own += mass[k] = first + k < end ? MassAt(view, four.x[k]) : 0;
    uint64_t sum = before + BlockScan(shared.parts, own, all) - own;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (sum <= target && target < sum + mass[k]) shared.token = first + k;
      sum += mass[k];
    }
    before += all;
  }
  dev::SyncBlock();
  return shared.token;
}

enum Cut { kTopK, kTopP, kDraw };

// top_k, then top_p, then min_p, each of which leaves the first tokens in the order of likelihood; inverse CDF over
// these, or over all by id where the row asks for no truncation.
__device__ __forceinline__ int Draw(const Params& params, FinishShared& shared, const Row& row, int index,
                                    uint64_t best) {
  const int64_t at = ChunkIndex(params, kDrawn, index);
  Finishing finishing = {ViewOf(params, kDrawn, index, best), params.bins + at * kBins, {}};
  const Mass mass = LoadRow(params, shared, finishing, params.masses + at);
  const uint64_t u = Uniform(row.seed, row.draw_index);
  const bool has_top_k = row.top_k > 0 && row.top_k < params.vocabulary;
  if (!has_top_k && row.top_p >= 1 && row.min_p <= 0)
    return DrawById(params, shared, finishing.view, MultiplyHigh(u, mass.all));
  uint64_t kept = mass.all;
  const auto weighty = params.vocabulary - static_cast<int>(shared.bins[kBins - 1].count);
  int i = 0;
#pragma unroll 1
  for (int cut = kTopK; cut <= kDraw; ++cut) {
    By by = By::kMass;
    uint64_t wanted = 0;
    if (cut == kTopK) {
      if (!has_top_k || row.top_k > weighty) continue;
      by = By::kCount;
      wanted = static_cast<uint64_t>(row.top_k);
    } else if (cut == kTopP) {
      if (row.top_p >= 1) continue;
      const auto top_p = static_cast<uint64_t>(row.top_p * 0x1p64f);
      wanted = dev::Max(MultiplyHigh(top_p, kept) + (top_p * kept != 0 ? 1 : 0), uint64_t{1});  // rounded up
    } else {
      if (row.min_p > 0) kept = dev::Max(dev::Min(kept, mass.kept), uint64_t{1} << kMassBits);
      wanted = MultiplyHigh(u, kept) + 1;
    }
    i = Find(params, shared, finishing, by, wanted);
    kept = finishing.listed.before.mass + shared.list[kListMax + i];
  }
  return IdAt(shared.list[i]);
}

__device__ __forceinline__ void Report(const Params& params, FinishShared& shared, const Row& row, int index,
                                       Result& result, int token) {
  const int64_t at = ChunkIndex(params, kRaw, index);
  const uint64_t best = BestOf(params, kRaw, index);
  Finishing finishing = {ViewOf(params, kRaw, index, best), params.bins + at * kBins, {}};
  const Mass mass = LoadRow(params, shared, finishing, params.masses + at);
  const float log_sum = LogOfMass(mass.all);
  const int top = dev::Min(dev::Min(dev::Max(row.logprobs, 0), kTop), params.vocabulary);
  if (top > 0) Find(params, shared, finishing, By::kCount, static_cast<uint64_t>(top));
  for (int i = dev::ThreadIndex(); i < top; i += dev::BlockThreads()) {
    result.top_token[i] = IdAt(shared.list[i]);
    result.top_logprob[i] = LogitAt(shared.list[i]) - finishing.view.max - log_sum;
  }
  if (dev::ThreadIndex() != 0) return;
  result.logprob = finishing.view.logits[token] - finishing.view.max - log_sum;
  result.top_count = top;
}

__global__ void __launch_bounds__(kFinishThreads, 1) Finish(const Params params) {
  auto& shared = dev::Shared<FinishShared>();
  const int rows = *params.row_count;
  for (int index = dev::BlockIndex(); index < rows; index += dev::GridBlocks()) {
    const Row& row = params.rows[index];
    Result& result = params.results[index];
    const uint64_t best = BestDrawn(params, row, index);
    int token = IsValid(best) ? IdAt(best) : -1;
    if (token >= 0 && row.target >= 0) token = row.target;
    if (token >= 0 && IsDrawn(row)) {
      token = Draw(params, shared, row, index, best);
      if (IsAdjusted(row)) Restore(params, row, params.logits + index * params.stride, 0, params.vocabulary);
    }
    if (dev::ThreadIndex() == 0) {
      result.token = token;
      result.logprob = 0;
      result.top_count = 0;
    }
    dev::SyncBlock();
    if (token >= 0 && IsReported(row)) Report(params, shared, row, index, result, token);
    dev::SyncBlock();
  }
}

}  // namespace openlora::sample
