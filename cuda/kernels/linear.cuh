#include "device/device.cuh"
#include "kernels/linear.h"

// Weights are M, rows are N of mma.m16n8k16. Shared memory holds pieces: 8 outputs or rows x 32 columns, 16 bytes a
// lane: row lane / 4, the eight columns from lane % 4 · 8 on. A lane reads of a piece what stands at its own index: no
// ldmatrix, no padding, no bank conflict.

namespace openlora::linear {

using dev::Vec16;
using Piece = Vec16[32];

inline constexpr int kPieceElements = 256;
inline constexpr int kTileElements = kTileOuts * kGroup;  // two pieces
inline constexpr int kStages = 3;

struct alignas(16) Sums {
  float v[4];  // of mma: outputs lane / 4 and that + 8, rows lane % 4 · 2 and the next
};

// Outputs and rows that a block takes at once. Row blocks run fastest: neighbours read the same weights.
struct Item {
  int product;
  int tile;  // its first
  int tiles;
  int row;  // its first
};

struct Batch {
  int rows;
  int row_blocks;
  int groups;  // of columns
  int items;
};

__device__ __forceinline__ int PartsOf(const Product& product, int tiles_each) {
  return dev::CeilDiv(dev::CeilDiv(product.out, kTileOuts), tiles_each);
}

__device__ __forceinline__ Batch BatchOf(const Params& params, int tiles_each, int rows_each) {
  Batch batch;
  batch.rows = dev::Min(*params.rows, params.rows_max);
  batch.row_blocks = dev::CeilDiv(batch.rows, rows_each);
  batch.groups = dev::CeilDiv(params.in, kGroup);
  int parts = 0;
  for (int p = 0; p < params.product_count; ++p) parts += PartsOf(params.products[p], tiles_each);
  batch.items = parts * batch.row_blocks;
  return batch;
}

__device__ __forceinline__ Item ItemOf(const Params& params, const Batch& batch, int index, int tiles_each,
                                       int rows_each) {
  Item item;
  int part = index / batch.row_blocks;
  item.row = index % batch.row_blocks * rows_each;
  item.product = 0;
  for (int p = 0; p < params.product_count; ++p) {
    const int parts = PartsOf(params.products[p], tiles_each);
    if (part < parts) {
      item.product = p;
      break;
    }
    part -= parts;
  }
  item.tile = part * tiles_each;
  item.tiles = dev::Min(tiles_each, dev::CeilDiv(params.products[item.product].out, kTileOuts) - item.tile);
  return item;
}

// Copies a tile of weights, 16 outputs x 32 columns.
__device__ __forceinline__ void FetchTile(const Params& params, const Batch& batch, const Item& item, int tile,
                                          int group, Piece* to) {
  const int lane = dev::Lane();
  const uint16_t* const from = params.products[item.product].weight +
                               (static_cast<int64_t>(item.tile + tile) * batch.groups + group) * kTileElements +
                               lane * 8;
  dev::CopyAsync16(&to[0][lane], from);
  dev::CopyAsync16(&to[1][lane], from + kPieceElements);
}

// Copies 32 columns of the eight rows from `row` on; zeros where there are none.
__device__ __forceinline__ void FetchRows(const Params& params, const Batch& batch, int row, int group, Piece* to) {
  const int lane = dev::Lane(), own = row + lane / 4, column = group * kGroup + lane % 4 * 8;
  const int valid = own < batch.rows ? dev::Min(8, dev::Max(0, params.in - column)) : 0;
  dev::CopyAsync16(&to[0][lane], valid > 0 ? params.x + own * params.x_stride + column : params.x, valid * 2);
}

template <bool is_f16>
__device__ __forceinline__ void Mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (is_f16) {
    dev::MmaF16(sums, a, b0, b1);
  } else {
    dev::MmaBF16(sums, a, b0, b1);
  }
}

// A group of 32 columns of a tile of outputs and `row_tiles` tiles of rows.
template <bool is_f16>
__device__ __forceinline__ void Multiply(Sums (&sums)[4], const Piece* tile, const Vec16 (&x)[4], int row_tiles) {
  const Vec16 low = tile[0][dev::Lane()], high = tile[1][dev::Lane()];
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint32_t a[4] = {low.w[step * 2], high.w[step * 2], low.w[step * 2 + 1], high.w[step * 2 + 1]};
#pragma unroll
    for (int n = 0; n < 4; ++n)
      if (n < row_tiles) Mma<is_f16>(sums[n].v, a, x[n].w[step * 2], x[n].w[step * 2 + 1]);
  }
}

__device__ __forceinline__ void Store(const Params& params, const Batch& batch, const Item& item, int tile, int row,
                                      const Sums& sums) {
  const Product& product = params.products[item.product];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int out = (item.tile + tile) * kTileOuts + dev::Lane() / 4 + i / 2 * 8;
    const int own = row + dev::Lane() % 4 * 2 + i % 2;
    if (out >= product.out || own >= batch.rows) continue;
    float* const y = product.y + own * product.y_stride + out;
    float sum = sums.v[i];
    if (product.bias) sum += product.bias[out];
    *y = product.accumulates ? *y + sum : sum;
  }
}

// --- few rows ---

inline constexpr int kStagePieces = 2 * kStreamTilesMax + kStreamRowTiles;  // of a warp

struct alignas(128) StreamShared {
  Piece ring[kStreamWarps][kStages][kStagePieces];  // what a lane copies, it alone reads: no barrier
  Sums chunk[2][kStreamWarps][kStreamRowTiles][32];
};
static_assert(sizeof(StreamShared) == kStreamSharedBytes);

// What a warp fetches next. It runs ahead of what it computes, across the borders of items.
struct StreamFetch {
  int index;
  Item item;
  int group;
  int stage;
};

struct StreamShape {
  int row_tiles;    // of the largest item
  int pieces;       // of a group: tiles of outputs, then of rows
  int groups_each;  // of a stage: as many as it holds
};

__device__ __forceinline__ int RowTilesOf(const Batch& batch, const Item& item) {
  return dev::Min(kStreamRowTiles, dev::CeilDiv(batch.rows - item.row, kTileRows));
}
__device__ __forceinline__ int ChunkEnd(const Batch& batch, int group) {
  return dev::Min(batch.groups, (group / kChunkGroups + 1) * kChunkGroups);
}

// Copies one stage and closes its group of copies, which is empty when nothing is left.
__device__ __forceinline__ void FetchStream(const Params& params, const Batch& batch, const StreamShape& shape,
                                            StreamShared& shared, StreamFetch& next) {
  const int warp = dev::Warp();
  if (next.index < batch.items && next.group < batch.groups) {
    const int row_tiles = RowTilesOf(batch, next.item), end = ChunkEnd(batch, next.group);
    for (int q = 0; q < shape.groups_each && next.group + q < end; ++q) {
      Piece* const pieces = &shared.ring[warp][next.stage][q * shape.pieces];
      for (int m = 0; m < next.item.tiles; ++m) FetchTile(params, batch, next.item, m, next.group + q, pieces + 2 * m);
      for (int n = 0; n < row_tiles; ++n)
        FetchRows(params, batch, next.item.row + n * kTileRows, next.group + q, pieces + 2 * params.tiles_each + n);
    }
    const int chunk = next.group / kChunkGroups;
    next.group += shape.groups_each;
    if (next.group >= end) next.group = (chunk + kStreamWarps) * kChunkGroups;
    if (next.group >= batch.groups) {
      next.group = warp * kChunkGroups;
      next.index += dev::GridBlocks();
      if (next.index < batch.items) next.item = ItemOf(params, batch, next.index, params.tiles_each, kStreamRows);
    }
  }
  next.stage = (next.stage + 1) % kStages;
  dev::CopyAsyncCommit();
}

// The warp's chunk that begins at `first`, of one item.
template <bool is_f16>
__device__ __forceinline__ void StreamChunk(const Params& params, const Batch& batch, const StreamShape& shape,
                                            const Item& item, int first, StreamShared& shared, StreamFetch& next,
                                            Sums (&sums)[kStreamTilesMax][kStreamRowTiles]) {
  const int warp = dev::Warp(), lane = dev::Lane();
  const int row_tiles = RowTilesOf(batch, item), end = ChunkEnd(batch, first);
  for (int group = first; group < end; group += shape.groups_each) {
    dev::CopyAsyncWait<kStages - 2>();
    FetchStream(params, batch, shape, shared, next);
    // The ring's oldest stage is the one that the next fetch will fill.
    for (int q = 0; q < shape.groups_each && group + q < end; ++q) {
      const Piece* const pieces = &shared.ring[warp][next.stage][q * shape.pieces];
      Vec16 x[kStreamRowTiles];
#pragma unroll
      for (int n = 0; n < kStreamRowTiles; ++n)
        if (n < row_tiles) x[n] = pieces[2 * params.tiles_each + n][lane];
#pragma unroll
      for (int m = 0; m < kStreamTilesMax; ++m)
        if (m < item.tiles) Multiply<is_f16>(sums[m], pieces + 2 * m, x, row_tiles);
    }
  }
}

// Adds the sums of four chunks, one of each warp, in the order of the chunks; zeros, which change nothing, where there
// is none. Warp n adds the rows of tile n.
__device__ __forceinline__ void AddChunks(const Batch& batch, const Item& item, StreamShared& shared, int& turn,
                                          const Sums (&sums)[kStreamTilesMax][kStreamRowTiles],
                                          Sums (&totals)[kStreamTilesMax]) {
  const int warp = dev::Warp(), lane = dev::Lane(), row_tiles = RowTilesOf(batch, item);
#pragma unroll
  for (int m = 0; m < kStreamTilesMax; ++m) {
    if (m >= item.tiles) break;
#pragma unroll
    for (int n = 0; n < kStreamRowTiles; ++n)
      if (n < row_tiles) shared.chunk[turn][warp][n][lane] = sums[m][n];
    dev::SyncBlock();  // one for each of two buffers: whoever writes to one again has passed the other's
    if (warp < row_tiles) {
#pragma unroll
      for (int c = 0; c < kStreamWarps; ++c) {
        const Sums sum = shared.chunk[turn][c][warp][lane];
#pragma unroll
        for (int i = 0; i < 4; ++i) totals[m].v[i] += sum.v[i];
      }
    }
    turn ^= 1;
  }
}

template <bool is_f16>
__device__ __forceinline__ void Stream(const Params& params) {
  auto& shared = dev::Shared<StreamShared>();
  const Batch batch = BatchOf(params, params.tiles_each, kStreamRows);
  if (dev::BlockIndex() >= batch.items) return;
  StreamShape shape;
  shape.row_tiles = dev::Min(kStreamRowTiles, dev::CeilDiv(batch.rows, kTileRows));
  shape.pieces = 2 * params.tiles_each + shape.row_tiles;
  shape.groups_each = kStagePieces / shape.pieces;
  StreamFetch next = {dev::BlockIndex(), ItemOf(params, batch, dev::BlockIndex(), params.tiles_each, kStreamRows),
                      dev::Warp() * kChunkGroups, 0};
  for (int stage = 0; stage < kStages - 1; ++stage) FetchStream(params, batch, shape, shared, next);
  int turn = 0;
  for (int index = dev::BlockIndex(); index < batch.items; index += dev::GridBlocks()) {
    const Item item = ItemOf(params, batch, index, params.tiles_each, kStreamRows);
    Sums totals[kStreamTilesMax] = {};
    for (int group0 = 0; group0 < batch.groups; group0 += kStreamWarps * kChunkGroups) {
      Sums sums[kStreamTilesMax][kStreamRowTiles] = {};
      const int first = group0 + dev::Warp() * kChunkGroups;
      StreamChunk<is_f16>(params, batch, shape, item, first, shared, next, sums);
      AddChunks(batch, item, shared, turn, sums, totals);
    }
    const int row = item.row + dev::Warp() * kTileRows;
#pragma unroll
    for (int m = 0; m < kStreamTilesMax; ++m)
      if (m < item.tiles) Store(params, batch, item, m, row, totals[m]);
  }
  dev::CopyAsyncWait<0>();
}

__global__ void __launch_bounds__(kStreamThreads, kStreamBlocksOfSm) StreamBF16(const Params params) {
  Stream<false>(params);
}
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocksOfSm) StreamF16(const Params params) {
  Stream<true>(params);
}

// --- many rows ---

inline constexpr int kStageGroups = 2;
inline constexpr int kWarpTiles = 4;  // 64 outputs x 32 rows of a warp
inline constexpr int kWarpRowTiles = 4;
inline constexpr int kGemmPieces = 2 * kGemmTiles + kGemmRowTiles;

struct alignas(128) GemmShared {
  Piece ring[kStages][kStageGroups][kGemmPieces];
};
static_assert(sizeof(GemmShared) == kGemmSharedBytes);

struct GemmFetch {
  int index;
  Item item;
  int group;
  int stage;
};

// Copies one stage and closes its group of copies. Each of the eight warps copies a tile of outputs and two of rows.
__device__ __forceinline__ void FetchGemm(const Params& params, const Batch& batch, GemmShared& shared,
                                          GemmFetch& next) {
  const int warp = dev::Warp();
  if (next.index < batch.items) {
#pragma unroll
    for (int q = 0; q < kStageGroups; ++q) {
      const int group = next.group + q;
      if (group >= batch.groups) break;
      Piece* const pieces = shared.ring[next.stage][q];
      if (warp < next.item.tiles) FetchTile(params, batch, next.item, warp, group, pieces + 2 * warp);
      if (next.item.row + warp / 2 * kWarpRowTiles * kTileRows >= batch.rows) continue;  // nobody will read them
#pragma unroll
      for (int n = warp * 2; n < warp * 2 + 2; ++n)
        FetchRows(params, batch, next.item.row + n * kTileRows, group, pieces + 2 * kGemmTiles + n);
    }
    next.group += kStageGroups;
    if (next.group >= batch.groups) {
      next.group = 0;
      next.index += dev::GridBlocks();
      if (next.index < batch.items) next.item = ItemOf(params, batch, next.index, kGemmTiles, kGemmRows);
    }
  }
  next.stage = (next.stage + 1) % kStages;
  dev::CopyAsyncCommit();
}

// A stage of all tiles of the warp, whether the item has them or not: a branch between two keeps the loads of the
// second behind the products of the first. What comes of old pieces isn't stored.
template <bool is_f16>
__device__ __forceinline__ void GemmStage(const Piece (&ring)[kStageGroups][kGemmPieces], int groups, int tile0,
                                          int row_tile0, Sums (&sums)[kWarpTiles][kWarpRowTiles]) {
#pragma unroll
  for (int q = 0; q < kStageGroups; ++q) {
    if (q >= groups) break;
    Vec16 x[kWarpRowTiles];
#pragma unroll
    for (int n = 0; n < kWarpRowTiles; ++n) x[n] = ring[q][2 * kGemmTiles + row_tile0 + n][dev::Lane()];
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m) Multiply<is_f16>(sums[m], &ring[q][2 * (tile0 + m)], x, kWarpRowTiles);
  }
}

template <bool is_f16>
__device__ __forceinline__ void Gemm(const Params& params) {
  auto& shared = dev::Shared<GemmShared>();
  const Batch batch = BatchOf(params, kGemmTiles, kGemmRows);
  if (dev::BlockIndex() >= batch.items) return;
  const int tile0 = dev::Warp() % 2 * kWarpTiles, row_tile0 = dev::Warp() / 2 * kWarpRowTiles;
  GemmFetch next = {dev::BlockIndex(), ItemOf(params, batch, dev::BlockIndex(), kGemmTiles, kGemmRows), 0, 0};
  for (int stage = 0; stage < kStages - 1; ++stage) FetchGemm(params, batch, shared, next);
  for (int index = dev::BlockIndex(); index < batch.items; index += dev::GridBlocks()) {
    const Item item = ItemOf(params, batch, index, kGemmTiles, kGemmRows);
    const int row = item.row + row_tile0 * kTileRows;
    const bool has_work = row < batch.rows && tile0 < item.tiles;
    Sums totals[kWarpTiles][kWarpRowTiles] = {}, sums[kWarpTiles][kWarpRowTiles] = {};
    for (int group = 0; group < batch.groups; group += kStageGroups) {
      dev::CopyAsyncWait<kStages - 2>();
      dev::SyncBlock();
      FetchGemm(params, batch, shared, next);
      // The ring's oldest stage is the one that the next fetch will fill.
      if (has_work) GemmStage<is_f16>(shared.ring[next.stage], batch.groups - group, tile0, row_tile0, sums);
      const int done = group + kStageGroups;
      if (done % kChunkGroups != 0 && done < batch.groups) continue;
#pragma unroll
      for (int m = 0; m < kWarpTiles; ++m)
#pragma unroll
        for (int n = 0; n < kWarpRowTiles; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            totals[m][n].v[i] += sums[m][n].v[i];
            sums[m][n].v[i] = 0;
          }
    }
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m)
#pragma unroll
      for (int n = 0; n < kWarpRowTiles; ++n) Store(params, batch, item, tile0 + m, row + n * kTileRows, totals[m][n]);
  }
  dev::CopyAsyncWait<0>();
}

__global__ void __launch_bounds__(kGemmThreads, kGemmBlocksOfSm) GemmBF16(const Params params) { Gemm<false>(params); }
__global__ void __launch_bounds__(kGemmThreads, kGemmBlocksOfSm) GemmF16(const Params params) { Gemm<true>(params); }

}  // namespace openlora::linear
