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

inline constexpr int kStreams = 4;
inline constexpr int kStreamBytes = 2048;    // of a stream before the next one has its turn, where they take turns
inline constexpr int kPrefetchAhead = 2048;  // bytes of each stream
inline constexpr int kUnrollK = 4;           // pointer arithmetic competes with the FMAs for ports

// Panels that one pass reads side by side: more streams read DRAM faster (measured on Ice Lake; see README.md).
template <class V, int rows>
inline constexpr int kPanelsAtOnce = kRowTile<V> / rows >= kStreams ? kStreams
                                     : kRowTile<V> / rows >= 2      ? 2
                                                                    : 1;

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

template <class V, int rows, int panels>
struct FewSums {
  typename V::F sum[panels][rows][kPanelVectors<V>];
};

// One group of k (k = first_k, …, 0 of it) of `panels` panels.
template <class V, class W, int rows, int panels, int first_k>
OPENLORA_INLINE void FewRowsStep(const uint8_t* group, int64_t panel_bytes, const RowPointers<rows>& x, int at,
                                 FewSums<V, rows, panels>& sums) {
  using F = typename V::F;
  OPENLORA_UNROLL
  for (int p = 0; p < panels; ++p, group += panel_bytes) {
    OPENLORA_UNROLL
    for (int line = 0; line < kPanel * W::kGroupElement; line += 64) V::Prefetch(group + kPrefetchAhead + line);
    F w[kPanelVectors<V>][W::kGroup];
    OPENLORA_UNROLL
    for (int v = 0; v < kPanelVectors<V>; ++v) W::Load(group, v * V::kLanes, w[v]);
    OPENLORA_UNROLL
    for (int k = first_k; k >= 0; --k) OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) {
      const F x_k = V::Set(x.row[r][at + k]);
      OPENLORA_UNROLL
      for (int v = 0; v < kPanelVectors<V>; ++v) sums.sum[p][r][v] = V::Fma(w[v][k], x_k, sums.sum[p][r][v]);
    }
  }
}

// Columns [k_begin, k_end) for all rows (<= kRowTile) and `panels` panels from `panel` on. Between calls for one panel
// the sums stand in `partial` [panels][rows][32].
template <class V, class W, int rows, int panels>
void FewRows(const PanelsArgs& args, int64_t panel, int64_t k_begin, int64_t k_end, float* partial) {
  constexpr int kGroupBytes = kPanel * W::kGroupElement, kUnroll = kUnrollK / W::kGroup;
  const int64_t panel_bytes = args.panel_bytes;
  const uint8_t* group =
      static_cast<const uint8_t*>(args.weights) + panel * panel_bytes + k_begin / W::kGroup * kGroupBytes;
  RowPointers<rows> x(args.x + k_begin, args.x_stride);
  FewSums<V, rows, panels> sums;
  OPENLORA_UNROLL
  for (int p = 0; p < panels; ++p) OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kPanelVectors<V>; ++v)
    sums.sum[p][r][v] = k_begin == 0 ? V::Zero() : V::Load(partial + (p * rows + r) * kPanel + v * V::kLanes);
  int64_t left = (k_end - k_begin) / W::kGroup;
  for (; left >= kUnroll; left -= kUnroll) {
    OPENLORA_UNROLL
    for (int i = 0; i < kUnroll; ++i)
      FewRowsStep<V, W, rows, panels, W::kGroup - 1>(group + i * kGroupBytes, panel_bytes, x, i * W::kGroup, sums);
    x.Advance(kUnrollK);
    group += kUnroll * kGroupBytes;
  }
  for (; left > 0; --left, group += kGroupBytes) {
    FewRowsStep<V, W, rows, panels, W::kGroup - 1>(group, panel_bytes, x, 0, sums);
    x.Advance(W::kGroup);
  }
  if ((k_end - k_begin) % W::kGroup != 0) FewRowsStep<V, W, rows, panels, 0>(group, panel_bytes, x, 0, sums);
  OPENLORA_UNROLL
  for (int p = 0; p < panels; ++p) {
    if (k_end == args.in) {
      Finish<V, rows>(args, 0, panel + p, sums.sum[p]);
      continue;
    }
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
    for (int v = 0; v < kPanelVectors<V>; ++v)
      V::Store(partial + (p * rows + r) * kPanel + v * V::kLanes, sums.sum[p][r][v]);
  }
}

template <class V, class W, int rows>
void FewRowsAllPanels(const PanelsArgs& args) {
  constexpr int kAtOnce = kPanelsAtOnce<V, rows>;
  constexpr int64_t kBlock = kStreamBytes / (kPanel * W::kGroupElement / W::kGroup);
  int64_t panel = args.panel_begin;
  if constexpr (kAtOnce == kStreams) {
    for (; panel + kStreams <= args.panel_end; panel += kStreams)
      FewRows<V, W, rows, kStreams>(args, panel, 0, args.in, args.scratch);
  } else {
    float* const partial = args.scratch;
    for (; panel + kStreams <= args.panel_end; panel += kStreams)
      for (int64_t k = 0; k < args.in; k += kBlock)
        for (int p = 0; p < kStreams; p += kAtOnce)
          FewRows<V, W, rows, kAtOnce>(args, panel + p, k, k + kBlock < args.in ? k + kBlock : args.in,
                                       partial + p * rows * kPanel);
  }
  for (; panel < args.panel_end; ++panel) FewRows<V, W, rows, 1>(args, panel, 0, args.in, args.scratch);
}

// A block of one panel: columns [k_begin, k_begin + count) as f32 [count][32].
struct Block {
  const float* weights;
  int64_t panel;
  int64_t k_begin;
  int64_t count;
  bool is_first;
  bool is_last;
  const uint8_t* next;  // the bytes to prefetch meanwhile, next_step for every two k
  int64_t next_step;
};

// `rows` rows from `row` on: their partial sums in `partial` [rows][32] go on over this block, k descending in groups.
template <class V, int group, int rows>
void BlockTile(const PanelsArgs& args, const Block& block, int64_t row, float* partial) {
  using F = typename V::F;
  constexpr int kVectors = kPanelVectors<V>;
  F sums[rows][kVectors];
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v)
    sums[r][v] = block.is_first ? V::Zero() : V::Load(partial + r * kPanel + v * V::kLanes);

  RowPointers<rows> x(args.x + row * args.x_stride + block.k_begin, args.x_stride);
  const float* weights = block.weights;
  const uint8_t* next = block.next;
  const int64_t next_step = block.next_step;
  const auto step = [&](int k) OPENLORA_INLINE_LAMBDA {
    F w[kVectors];
    OPENLORA_UNROLL
    for (int v = 0; v < kVectors; ++v) w[v] = V::Load(weights + k * kPanel + v * V::kLanes);
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) {
      const F x_k = V::Set(x.row[r][k]);
      OPENLORA_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = V::Fma(w[v], x_k, sums[r][v]);
    }
  };
  int64_t left = block.count;
  for (; left >= kUnrollK; left -= kUnrollK) {
    V::Prefetch(next);
    V::Prefetch(next + next_step);
    next += 2 * next_step;
    OPENLORA_UNROLL
    for (int i = 0; i < kUnrollK; i += group) OPENLORA_UNROLL
    for (int k = group - 1; k >= 0; --k) step(i + k);
    x.Advance(kUnrollK);
    weights += kUnrollK * kPanel;
  }
  for (; left >= group; left -= group) {
    OPENLORA_UNROLL
    for (int k = group - 1; k >= 0; --k) step(k);
    x.Advance(group);
    weights += group * kPanel;
  }
  if (left != 0) step(0);

  if (block.is_last) return Finish<V, rows>(args, row, block.panel, sums);
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) V::Store(partial + r * kPanel + v * V::kLanes, sums[r][v]);
}

template <class V, int group, int rows>
OPENLORA_INLINE void LastTile(const PanelsArgs& args, const Block& block, int64_t row, float* partial) {
  if constexpr (rows > 0) {
    if (args.rows - row == rows) return BlockTile<V, group, rows>(args, block, row, partial);
    LastTile<V, group, rows - 1>(args, block, row, partial);
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

// More rows than a tile: blocks of K stay in L1 while all row tiles pass over them, so DRAM is read once.
template <class V, class W>
void ManyRows(const PanelsArgs& args) {
  constexpr int kTile = kRowTile<V>;
  constexpr bool kIsF32 = W::kGroup == 1 && W::kGroupElement == 4;
  constexpr int kBytesPerK = kPanel * W::kGroupElement / W::kGroup;
  float* partial = args.scratch;
  float* unpacked = args.scratch + int64_t{args.rows} * kPanel;
  const int64_t tiles = (args.rows + kTile - 1) / kTile;
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    const uint8_t* weights = static_cast<const uint8_t*>(args.weights) + panel * args.panel_bytes;
    for (int64_t k = 0; k < args.in; k += kBlockK) {
      const int64_t left = args.in - k;
      const uint8_t* source = weights + k * kBytesPerK;
      Block block{nullptr, panel, k, left < kBlockK ? left : kBlockK, k == 0, left <= kBlockK, nullptr, 0};
      block.next_step = 2 * kBytesPerK / tiles;
      if constexpr (kIsF32) {
        block.weights = reinterpret_cast<const float*>(source);
      } else {
        Unpack<V, W>(source, block.count, unpacked);
        block.weights = unpacked;
      }
      const uint8_t* next = source + (block.count + W::kGroup - 1) / W::kGroup * W::kGroup * kBytesPerK;
      int64_t row = 0;
      for (int64_t tile = 0; row + kTile <= args.rows; row += kTile, ++tile) {
        block.next = next + tile * block.next_step * (kBlockK / 2);
        BlockTile<V, W::kGroup, kTile>(args, block, row, partial + row * kPanel);
      }
      block.next = next + (tiles - 1) * block.next_step * (kBlockK / 2);
      LastTile<V, W::kGroup, kTile - 1>(args, block, row, partial + row * kPanel);
    }
  }
}

template <class V, class W, int rows>
OPENLORA_INLINE bool TryFewRows(const PanelsArgs& args) {
  if constexpr (rows > 0) {
    if (args.rows == rows) {
      FewRowsAllPanels<V, W, rows>(args);
      return true;
    }
    return TryFewRows<V, W, rows - 1>(args);
  }
  return false;
}

template <class V, class W>
void Panels(const PanelsArgs& args) {
  if (!TryFewRows<V, W, kRowTile<V>>(args)) ManyRows<V, W>(args);
}

}  // namespace
}  // namespace openlora
