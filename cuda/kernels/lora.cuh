#include "device/device.cuh"
#include "kernels/lora-inl.h"

// Weights are M, rows are N = 8 of mma.m16n8k16: what is padded is at most seven rows of tensor-core work that would be
// idle. A persistent grid shares out work items, which every block counts for itself; no atomics, fixed order of every
// sum.

namespace openlora::lora {

using Bits16 = uint16_t;  // bf16 or f16

template <bool is_f16>
__device__ __forceinline__ void Mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (is_f16) {
    dev::MmaF16(sums, a, b0, b1);
  } else {
    dev::MmaBF16(sums, a, b0, b1);
  }
}

// The work of a batch: segment by segment, its items in the order (row group, product, part).
struct Work {
  int32_t begin[kSegmentsMax + 1];  // the first item of each segment
};

struct Item {
  int segment;
  int entry;  // the first of up to kRows
  int rows;
  int product;
  int part;
};

// Parts of a segment's product: of a shrink (16 ranks x 2048 columns), of an expand 256 outputs.
__device__ __forceinline__ int ShrinkParts(const Params& params, int rank) {
  return dev::CeilDiv(rank, kTileRanks) * dev::CeilDiv(params.in, kPart);
}
__device__ __forceinline__ int ExpandParts(const Product& product, int rank) {
  return rank > 0 ? dev::CeilDiv(product.out, kChunkOuts) : 0;
}
template <bool is_shrink>
__device__ __forceinline__ int PartsOf(const Params& params, int segment, int product) {
  const Slot& slot = params.slots[params.segment_slot[segment]];
  const int rank = slot.sites[params.products[product].site].rank;
  return is_shrink ? ShrinkParts(params, rank) : ExpandParts(params.products[product], rank);
}

// Counts the items of every segment and adds them up; returns how many there are.
template <bool is_shrink>
__device__ __forceinline__ int CountWork(const Params& params, int segments, Work& work) {
  for (int s = dev::ThreadIndex(); s < segments; s += kThreads) {
    int parts = 0;
    for (int p = 0; p < params.product_count; ++p) parts += PartsOf<is_shrink>(params, s, p);
    const int entries = params.segment_start[s + 1] - params.segment_start[s];
    work.begin[s + 1] = parts * dev::CeilDiv(entries, kRows);
  }
  dev::SyncBlock();
  if (dev::Warp() == 0) {
    int before = 0;
    for (int first = 0; first < segments; first += 32) {
      const int s = first + dev::Lane();
      int sum = s < segments ? work.begin[s + 1] : 0;
      for (int distance = 1; distance < 32; distance *= 2) {
        const int left = dev::Shuffle(sum, dev::Lane() - distance);
        if (dev::Lane() >= distance) sum += left;
      }
      if (s < segments) work.begin[s + 1] = before + sum;
      before += dev::Shuffle(sum, 31);
    }
    if (dev::Lane() == 0) work.begin[0] = 0;
  }
  dev::SyncBlock();
  return work.begin[segments];
}

template <bool is_shrink>
__device__ __forceinline__ Item ItemOf(const Params& params, int segments, const Work& work, int index) {
  int low = 0, high = segments - 1;  // the last segment that begins at or before index
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (work.begin[middle] <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  int parts = 0;
  for (int p = 0; p < params.product_count; ++p) parts += PartsOf<is_shrink>(params, low, p);
  const int inside = index - work.begin[low];
  const int begin = params.segment_start[low], end = params.segment_start[low + 1];
  Item item;
  item.segment = low;
  item.entry = begin + inside / parts * kRows;
  item.rows = dev::Min(kRows, end - item.entry);
  item.product = 0;
  item.part = inside % parts;
  for (int p = 0; p < params.product_count; ++p) {
    const int of_product = PartsOf<is_shrink>(params, low, p);
    if (item.part < of_product) {
      item.product = p;
      break;
    }
    item.part -= of_product;
  }
  return item;
}

inline constexpr int kStages = 3;
inline constexpr int kStageGroups = 2;

struct alignas(128) ShrinkShared {
  Bits16 a[kWarps][kStages][kStageGroups][kTileRanks][kGroup];  // each warp has its quarter and its ring
  Bits16 x[kWarps][kStages][kStageGroups][kRows][kGroup];
  float sum[kWarps][kTileRanks][kRows];
  Work work;
};
static_assert(sizeof(ShrinkShared) == kShrinkSharedBytes);

// One item of a shrink: 16 ranks of A and up to eight entries over 2048 columns.
struct ShrinkItem {
  Item item;
  Slot slot;
  Site site;
  int rank0;            // the first of its ranks
  int column0;          // its first column
  const Bits16* x_row;  // of the lane's entry
};

// Copies two groups of A and of x into a stage of the warp's ring.
__device__ __forceinline__ void FetchShrink(const Params& params, ShrinkShared& shared, const ShrinkItem& work,
                                            Tile (&tiles)[2], int step) {
  const int warp = dev::Warp(), lane = dev::Lane(), stage = step % kStages;
  const int quarter = work.column0 + warp * kQuarter;
#pragma unroll
  for (int q = 0; q < kStageGroups; ++q) {
    const int column = quarter + (step * kStageGroups + q) * kGroup;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int first = work.rank0 + half * kRunRanks, ranks = dev::Min(kRunRanks, work.site.rank - first);
      const bool has_run = ranks > 0 && column < params.in;
      if (has_run && column >= tiles[half].end)
        tiles[half] = TileOf(params, work.slot, work.site.a + first / kRunRanks, column);
      const int rank = lane / 4, c = lane % 4 * 8;
      const bool has = has_run && rank < ranks;
      dev::CopyAsync16(&shared.a[warp][stage][q][half * kRunRanks + rank][c],
                       has ? AddressIn(tiles[half], ranks, rank, column + c) : params.pool, has ? 16 : 0);
    }
    const int row = lane / 4, c = lane % 4 * 8;
    const int valid = row < work.item.rows ? dev::Min(8, dev::Max(0, params.in - column - c)) : 0;
    dev::CopyAsync16(&shared.x[warp][stage][q][row][c], valid > 0 ? work.x_row + column + c : params.x, valid * 2);
  }
}

template <bool is_f16>
__device__ __forceinline__ void ShrinkOne(const Params& params, ShrinkShared& shared, const ShrinkItem& work) {
  const int warp = dev::Warp(), lane = dev::Lane(), group = lane / 4, pair = lane % 4;
  const int quarter = work.column0 + warp * kQuarter;
  const int columns = dev::Min(kQuarter, dev::Max(0, params.in - quarter));
  const int steps = dev::CeilDiv(columns, kStageGroups * kGroup);
  Tile tiles[2] = {{nullptr, 0, 0}, {nullptr, 0, 0}};
  const auto fetch = [&](int step) {
    if (step < steps) FetchShrink(params, shared, work, tiles, step);
    dev::CopyAsyncCommit();
  };
  float sums[4] = {};
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % kStages;
    dev::CopyAsyncWait<kStages - 2>();  // a lane reads what it copied itself: no barrier
    fetch(step + kStages - 1);
#pragma unroll
    for (int q = 0; q < kStageGroups; ++q) {
      // Which column is which k is free, as long as A and x agree: a lane takes eight adjacent ones of the group.
      const auto low = *reinterpret_cast<const dev::Vec16*>(&shared.a[warp][stage][q][group][pair * 8]);
      const auto high = *reinterpret_cast<const dev::Vec16*>(&shared.a[warp][stage][q][group + 8][pair * 8]);
      const auto x = *reinterpret_cast<const dev::Vec16*>(&shared.x[warp][stage][q][group][pair * 8]);
      const uint32_t a0[4] = {low.w[0], high.w[0], low.w[1], high.w[1]};
      const uint32_t a1[4] = {low.w[2], high.w[2], low.w[3], high.w[3]};
      Mma<is_f16>(sums, a0, x.w[0], x.w[1]);
      Mma<is_f16>(sums, a1, x.w[2], x.w[3]);
    }
  }
  dev::CopyAsyncWait<0>();
#pragma unroll
  for (int i = 0; i < 4; ++i) shared.sum[warp][group + i / 2 * 8][pair * 2 + i % 2] = sums[i];
  dev::SyncBlock();
  const int row = dev::ThreadIndex() / kTileRanks, rank = dev::ThreadIndex() % kTileRanks;
  if (row < work.item.rows) {  // ranks beyond the last one are zeros, which nobody reads
    float h = shared.sum[0][rank][row];
    for (int w = 1; w < kWarps; ++w) h += shared.sum[w][rank][row];
    const int parts = dev::CeilDiv(params.in, kPart);
    const int64_t entry = static_cast<int64_t>(work.item.product) * params.entries_max + work.item.entry + row;
    params.h[(entry * parts + work.column0 / kPart) * kRankMax + work.rank0 + rank] = h;
  }
  dev::SyncBlock();  // sums and rings are free again
}

template <bool is_f16>
__device__ __forceinline__ void ShrinkAll(const Params& params) {
  auto& shared = dev::Shared<ShrinkShared>();
  const int segments = *params.segment_count;
  if (segments == 0) return;
  const int count = CountWork<true>(params, segments, shared.work);
  for (int i = dev::BlockIndex(); i < count; i += dev::GridBlocks()) {
    ShrinkItem work;
    work.item = ItemOf<true>(params, segments, shared.work, i);
    work.slot = params.slots[params.segment_slot[work.item.segment]];
    work.site = work.slot.sites[params.products[work.item.product].site];
    const int parts = dev::CeilDiv(params.in, kPart);
    work.rank0 = work.item.part / parts * kTileRanks;
    work.column0 = work.item.part % parts * kPart;
    const int row = dev::Min(dev::Lane() / 4, work.item.rows - 1);
    work.x_row = params.x + params.entry_row[work.item.entry + row] * params.x_stride;
    ShrinkOne<is_f16>(params, shared, work);
  }
}
__global__ void __launch_bounds__(kThreads, kBlocksOfSm) ShrinkBF16(const Params params) { ShrinkAll<false>(params); }
__global__ void __launch_bounds__(kThreads, kBlocksOfSm) ShrinkF16(const Params params) { ShrinkAll<true>(params); }

struct alignas(128) ExpandShared {
  Bits16 b[kStages][kTileRanks][kChunkOuts + 8];  // eight rows of ldmatrix fall into different banks
  Bits16 h[kRows][kRankMax + 8];
  float y[kRows][kChunkOuts + 4];
  Work work;
};
static_assert(sizeof(ExpandShared) == kExpandSharedBytes);

struct ExpandItem {
  Item item;
  Slot slot;
  Site site;
  int out0;
};

// Copies 16 ranks of B, 256 outputs, into a stage of the ring.
__device__ __forceinline__ void FetchExpand(const Params& params, ExpandShared& shared, const ExpandItem& work, int t) {
  const int c = dev::Lane() * 8, column = work.out0 + c;
  const int width = dev::CeilDiv(params.products[work.item.product].out, kGroup) * kGroup;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = t * kTileRanks + half * kRunRanks, ranks = dev::Min(kRunRanks, work.site.rank - first);
    const bool has_run = ranks > 0 && column < width;
    Tile tile = {nullptr, 0, 0};
    if (has_run) tile = TileOf(params, work.slot, work.site.b + first / kRunRanks, column);
#pragma unroll
    for (int i = 0; i < kRunRanks / kWarps; ++i) {
      const int rank = i * kWarps + dev::Warp();
      const bool has = has_run && rank < ranks;
      dev::CopyAsync16(&shared.b[t % kStages][half * kRunRanks + rank][c],
                       has ? AddressIn(tile, ranks, rank, column) : params.pool, has ? 16 : 0);
    }
  }
}

// h of the item's rows in 16 bits: what the parts of the shrink give, times scale and weight; ranks beyond are zero
// there.
template <bool is_f16>
__device__ __forceinline__ void LoadH(const Params& params, ExpandShared& shared, const ExpandItem& work) {
  const int parts = dev::CeilDiv(params.in, kPart);
  const int ranks = dev::CeilDiv(work.site.rank, kTileRanks) * kTileRanks;
  for (int i = dev::ThreadIndex(); i < ranks * kRows; i += kThreads) {
    const int row = i / ranks, rank = i % ranks;
    float h = 0;
    if (row < work.item.rows) {
      const int entry = work.item.entry + row;
      const int64_t at =
          (static_cast<int64_t>(work.item.product) * params.entries_max + entry) * parts * kRankMax + rank;
      h = params.h[at];
      for (int part = 1; part < parts; ++part) h += params.h[at + static_cast<int64_t>(part) * kRankMax];
      h = h * work.site.scale * params.entry_weight[entry];
    }
    shared.h[row][rank] = static_cast<Bits16>(is_f16 ? dev::PackF16(h, 0) : dev::PackBF16(h, 0));
  }
}

__device__ __forceinline__ void StoreExpand(const Params& params, ExpandShared& shared, const ExpandItem& work) {
  const Product& product = params.products[work.item.product];
  for (int i = dev::ThreadIndex(); i < kRows * kChunkOuts; i += kThreads) {
    const int row = i / kChunkOuts, c = i % kChunkOuts;
    if (row < work.item.rows && work.out0 + c < product.out)
      product.y[params.entry_row[work.item.entry + row] * product.y_stride + work.out0 + c] += shared.y[row][c];
  }
}

template <bool is_f16>
__device__ __forceinline__ void ExpandOne(const Params& params, ExpandShared& shared, const ExpandItem& work) {
  const int warp = dev::Warp(), lane = dev::Lane(), group = lane / 4, pair = lane % 4;
  const int tiles = dev::CeilDiv(work.site.rank, kTileRanks);
  const auto fetch = [&](int t) {
    if (t < tiles) FetchExpand(params, shared, work, t);
    dev::CopyAsyncCommit();
  };
  for (int t = 0; t < kStages - 1; ++t) fetch(t);
  LoadH<is_f16>(params, shared, work);
  float sums[4][4] = {};
  for (int t = 0; t < tiles; ++t) {
    dev::CopyAsyncWait<kStages - 2>();
    dev::SyncBlock();
    fetch(t + kStages - 1);
    const auto h0 = *reinterpret_cast<const uint32_t*>(&shared.h[group][t * kTileRanks + pair * 2]);
    const auto h1 = *reinterpret_cast<const uint32_t*>(&shared.h[group][t * kTileRanks + pair * 2 + 8]);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      uint32_t a[4];
      const int rank = lane / 16 * 8 + lane % 8, out = warp * 64 + m * 16 + lane / 8 % 2 * 8;
      dev::LoadMatrix4Trans(a, &shared.b[t % kStages][rank][out]);
      Mma<is_f16>(sums[m], a, h0, h1);
    }
  }
  dev::CopyAsyncWait<0>();
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int i = 0; i < 4; ++i) shared.y[pair * 2 + i % 2][warp * 64 + m * 16 + group + i / 2 * 8] = sums[m][i];
  dev::SyncBlock();
  StoreExpand(params, shared, work);
  // No barrier: what the next item writes to, its loop reads after one.
}

template <bool is_f16>
__device__ __forceinline__ void ExpandAll(const Params& params) {
  auto& shared = dev::Shared<ExpandShared>();
  const int segments = *params.segment_count;
  if (segments == 0) return;
  const int count = CountWork<false>(params, segments, shared.work);
  for (int i = dev::BlockIndex(); i < count; i += dev::GridBlocks()) {
    ExpandItem work;
    work.item = ItemOf<false>(params, segments, shared.work, i);
    work.slot = params.slots[params.segment_slot[work.item.segment]];
    work.site = work.slot.sites[params.products[work.item.product].site];
    work.out0 = work.item.part * kChunkOuts;
    ExpandOne<is_f16>(params, shared, work);
  }
}
__global__ void __launch_bounds__(kThreads, kBlocksOfSm) ExpandBF16(const Params params) { ExpandAll<false>(params); }
__global__ void __launch_bounds__(kThreads, kBlocksOfSm) ExpandF16(const Params params) { ExpandAll<true>(params); }

}  // namespace openlora::lora
