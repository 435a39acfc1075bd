#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/simd_common.h"
#include "ops/cpu/weights-inl.h"

// y = x·Wᵀ over panels of 32 outputs. An output is one chain of FMAs over k; its lane never meets another k.

namespace openlora {
namespace {

template <class V>
inline constexpr int kPanelVectors = kPanel / V::kLanes;
template <class V>
inline constexpr int kRowTile = V::kSums / kPanelVectors<V> < kTileRows ? V::kSums / kPanelVectors<V> : kTileRows;

inline constexpr int kUnrollK = 4;  // pointer arithmetic competes with the FMAs for ports

// The rows of x under a tile, a register for each.
template <int rows>
struct RowPointers {
  RowPointers(const float* x, int64_t stride) {
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) {
      row[r] = x + r * stride;
      OPENLORA_OPAQUE(row[r]);
    }
  }
  OPENLORA_INLINE void Advance(int k) {
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) row[r] += k;
  }
  const float* row[rows];
};

// Writes a tile's sums [rows][32] of `panel`: plus bias, plus y where asked, cut off at `out`.
template <class V, int rows>
OPENLORA_INLINE void Finish(const PanelsArgs& args, int64_t row, int64_t panel,
                            const typename V::F (&sums)[rows][kPanelVectors<V>]) {
  const int64_t output = panel * kPanel;
  const int64_t width = args.out - output;
  OPENLORA_UNROLL
  for (int v = 0; v < kPanelVectors<V>; ++v) {
    const int64_t left = width - v * V::kLanes;
    const int lanes = left >= V::kLanes ? V::kLanes : left > 0 ? static_cast<int>(left) : 0;
    const int64_t at = output + v * V::kLanes;
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) {
      float* y = args.y + (row + r) * args.y_stride + at;
      typename V::F sum = sums[r][v];
      if (lanes == V::kLanes) {
        if (args.bias != nullptr) sum = V::Add(sum, V::Load(args.bias + at));
        if (args.accumulates) sum = V::Add(V::Load(y), sum);
        V::Store(y, sum);
      } else if (lanes > 0) {
        if (args.bias != nullptr) sum = V::Add(sum, V::LoadPart(args.bias + at, lanes));
        if (args.accumulates) sum = V::Add(V::LoadPart(y, lanes), sum);
        V::StorePart(y, sum, lanes);
      }
    }
  }
}

// One group of k (k = first_k, …, 0 of it) of a panel.
template <class V, class W, int rows, int first_k>
OPENLORA_INLINE void GroupStep(const uint8_t* group, const RowPointers<rows>& x, int at,
                               typename V::F (&sums)[rows][kPanelVectors<V>]) {
  using F = typename V::F;
  F w[kPanelVectors<V>][W::kGroup];
  OPENLORA_UNROLL
  for (int v = 0; v < kPanelVectors<V>; ++v) W::Load(group, v * V::kLanes, w[v]);
  OPENLORA_UNROLL
  for (int k = first_k; k >= 0; --k) OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) {
    const F x_k = V::Set(x.row[r][at + k]);
    OPENLORA_UNROLL
    for (int v = 0; v < kPanelVectors<V>; ++v) sums[r][v] = V::Fma(w[v][k], x_k, sums[r][v]);
  }
}

// A block of one panel: columns [k_begin, k_begin + count), as they are stored or unpacked to f32 [count][32].
struct Block {
  const uint8_t* weights;
  int64_t panel;
  int64_t k_begin;
  int64_t count;
  bool is_first;
  bool is_last;
  const uint8_t* next;  // the bytes to prefetch meanwhile, next_step apart
  int64_t next_step;
};

// Columns unpacked to f32, read in the groups of W.
template <class V, class W>
struct Unpacked {
  using F = typename V::F;
  static constexpr int kGroup = W::kGroup;
  static constexpr int kGroupElement = 4 * kGroup;
  static OPENLORA_INLINE void Load(const uint8_t* group, int output, F (&w)[kGroup]) {
    OPENLORA_UNROLL
    for (int k = 0; k < kGroup; ++k) w[k] = V::Load(reinterpret_cast<const float*>(group) + k * kPanel + output);
  }
};

// Prefetches for every kUnrollK columns: the lines that as many have as stored.
template <class W>
inline constexpr int kPrefetches = kUnrollK * kPanel * W::kGroupElement / W::kGroup / 64;
template <class V, class W>
inline constexpr int kPrefetches<Unpacked<V, W>> = kPrefetches<W>;

// `rows` rows from `row` on: their partial sums in `partial` [rows][32] go on over this block, k descending in groups.
template <class V, class W, int rows>
void BlockTile(const PanelsArgs& args, const Block& block, int64_t row, float* partial) {
  constexpr int kVectors = kPanelVectors<V>, kGroupBytes = kPanel * W::kGroupElement, kUnroll = kUnrollK / W::kGroup;
  typename V::F sums[rows][kVectors];
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v)
    sums[r][v] = block.is_first ? V::Zero() : V::Load(partial + r * kPanel + v * V::kLanes);

  RowPointers<rows> x(args.x + row * args.x_stride + block.k_begin, args.x_stride);
  const uint8_t* group = block.weights;
  const uint8_t* next = block.next;
  const int64_t next_step = block.next_step;
  int64_t left = block.count / W::kGroup;
  for (; left >= kUnroll; left -= kUnroll) {
    OPENLORA_UNROLL
    for (int line = 0; line < kPrefetches<W>; ++line) V::Prefetch(next + line * next_step);
    next += kPrefetches<W> * next_step;
    OPENLORA_UNROLL
    for (int i = 0; i < kUnroll; ++i)
      GroupStep<V, W, rows, W::kGroup - 1>(group + i * kGroupBytes, x, i * W::kGroup, sums);
    x.Advance(kUnrollK);
    group += kUnroll * kGroupBytes;
  }
  for (; left > 0; --left, group += kGroupBytes) {
    GroupStep<V, W, rows, W::kGroup - 1>(group, x, 0, sums);
    x.Advance(W::kGroup);
  }
  if (block.count % W::kGroup != 0) GroupStep<V, W, rows, 0>(group, x, 0, sums);

  if (block.is_last) return Finish<V, rows>(args, row, block.panel, sums);
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) V::Store(partial + r * kPanel + v * V::kLanes, sums[r][v]);
}

template <class V, class W, int rows>
OPENLORA_INLINE void AnyTile(int64_t height, const PanelsArgs& args, const Block& block, int64_t row, float* partial) {
  if constexpr (rows > 0) {
    if (height == rows) return BlockTile<V, W, rows>(args, block, row, partial);
    AnyTile<V, W, rows - 1>(height, args, block, row, partial);
  }
}

// Of the next of `tiles` tiles that `rows` rows are cut into, as high as each other or one row less: a tile of one row
// would take as long as one of four.
OPENLORA_INLINE int64_t TileHeight(int64_t rows, int64_t tiles) { return (rows + tiles - 1) / tiles; }

// All rows over a block.
template <class V, class W>
void AllTiles(const PanelsArgs& args, int64_t tiles, Block block, float* partial) {
  const uint8_t* const next = block.next;
  int64_t row = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t height = TileHeight(args.rows - row, tiles - tile);
    block.next = next + tile * block.next_step * (block.count / kUnrollK * kPrefetches<W>);
    AnyTile<V, W, kRowTile<V>>(height, args, block, row, partial + row * kPanel);
    row += height;
  }
}

// Columns of a panel as f32 [count][32].
template <class V, class W>
void Unpack(const uint8_t* groups, int64_t count, float* block) {
  typename V::F w[W::kGroup];
  for (int64_t k = 0; k < count; k += W::kGroup, groups += kPanel * W::kGroupElement) {
    for (int v = 0; v < kPanel; v += V::kLanes) {
      W::Load(groups, v, w);
      for (int j = 0; j < W::kGroup; ++j) V::Store(block + (k + j) * kPanel + v, w[j]);
    }
  }
}

template <class W>
inline constexpr bool kIsF32 = W::kGroup == 1 && W::kGroupElement == 4;

// Row tiles up to which a block is converted anew for each of them, not unpacked first. Zen 4, [896, 4864], one thread,
// GFLOP/s direct and unpacked: avx512 bf16 98 and 73 with 9 rows, 101 and 90 with 17, as f16 87 and 75, 94 and 94; avx2
// (3 rows a tile) bf16 54 and 47 with 5 rows, 56 and 68 with 9.
template <class V, class W>
inline constexpr int kDirectTiles = kIsF32<W>                           ? INT32_MAX
                                    : V::kLanes == 16 && W::kGroup == 2 ? 4
                                                                        : 2;

// Blocks of K stay in L1, while all row tiles pass over them and prefetch the next one, so DRAM is read once. Both must
// fit there: f32 in few tiles, which are soon done, wants short blocks (9 rows: 64 k 83 GFLOP/s, 128 k 72, 192 k 59).
template <class V, class W>
void Panels(const PanelsArgs& args) {
  constexpr int kBytesPerK = kPanel * W::kGroupElement / W::kGroup;
  float* partial = args.scratch;
  float* unpacked = args.scratch + int64_t{args.rows} * kPanel;
  const int64_t tiles = (args.rows + kRowTile<V> - 1) / kRowTile<V>;
  const int64_t block_k = kIsF32<W> && tiles <= 3 ? kBlockK / 2 : kBlockK;
  const int64_t next_step = kUnrollK * kBytesPerK / kPrefetches<W> / tiles;
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    const uint8_t* source = static_cast<const uint8_t*>(args.weights) + panel * args.panel_bytes;
    for (int64_t k = 0; k < args.in; k += block_k) {
      const int64_t left = args.in - k, count = left < block_k ? left : block_k;
      const uint8_t* const next = source + (count + W::kGroup - 1) / W::kGroup * W::kGroup * kBytesPerK;
      Block block{source, panel, k, count, k == 0, left <= block_k, next, next_step};
      if (tiles <= kDirectTiles<V, W>) {
        AllTiles<V, W>(args, tiles, block, partial);
      } else {
        Unpack<V, W>(source, count, unpacked);
        block.weights = reinterpret_cast<const uint8_t*>(unpacked);
        AllTiles<V, Unpacked<V, W>>(args, tiles, block, partial);
      }
      source = next;
    }
  }
}

}  // namespace
}  // namespace openlora
