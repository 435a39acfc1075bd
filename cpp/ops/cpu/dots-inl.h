#pragma once

#include "ops/cpu/activations-inl.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/panels-inl.h"
#include "ops/cpu/simd_common.h"
#include "ops/int4_format.h"

// y = x·Wᵀ with int8 or int4 weights and int8 activations. Of an output, a group's products are summed in integers,
// exactly; then sum = fma(float(group) * scale of x, scale of w, sum), groups in ascending order. So no level and no
// way of cutting rows changes a bit.

namespace openlora {
namespace {

inline constexpr int kFourBytes = kPanel * 4;  // fours of k, as bytes, of a panel

struct Int4Bytes {
  alignas(16) uint8_t w[kInt4Values];
};
constexpr Int4Bytes MakeInt4Bytes() {
  Int4Bytes bytes{};
  for (int i = 0; i < kInt4Values; ++i) bytes.w[i] = static_cast<uint8_t>(kInt4Table[i] + 128);
  return bytes;
}
constexpr Int4Bytes kInt4Bytes = MakeInt4Bytes();

// A format: how a group of a panel's weights is stored, scales last, and how quad + i of it (four k of every output) is
// read; quad is even.
struct Int8Weights {
  static constexpr int kGroupK = kInt8GroupK;
  static constexpr bool kIsRotated = true;
  static constexpr int64_t kGroupBytes = kInt8GroupBytes;
  static constexpr int kPrefetches = 2;  // lines, for each quad
  // Groups of a panel (28 KB) that stay in L1 while all row tiles pass over them. Few tiles gain little by that, and
  // are so slow with a block that one group ahead is soon enough: Zen 4, two threads, Qwen2.5-0.5B's three large
  // products, us with blocks of 1 and 7 groups: 8 rows 548 and 608, 9 rows 533 and 666, 16 rows 706 and 758; but 4 rows
  // 500 and 458, 24 rows 893 and 890.
  static constexpr int64_t BlockGroups(int64_t rows) { return rows > 4 && rows <= 16 ? 1 : 7; }
  // Few accumulators are split into chains, to hide the dot's latency.
  static constexpr int Chains(int accumulators) { return accumulators <= 2 ? 4 : accumulators <= 4 ? 2 : 1; }
  template <class V>
  OPENLORA_INLINE static typename V::Weights Load(const uint8_t* group, int quad, int i, int vector) {
    return V::LoadWeights(group + (quad + i) * kFourBytes + vector * V::kLanes * 4);
  }
};

struct Int4Weights {
  static constexpr int kGroupK = kInt4GroupK;
  static constexpr bool kIsRotated = false;
  static constexpr int64_t kGroupBytes = kInt4GroupBytes;
  static constexpr int kPrefetches = 1;
  static constexpr int64_t BlockGroups(int64_t) { return 48; }  // 27 KB
  static constexpr int Chains(int accumulators) { return accumulators <= 2 ? 2 : 1; }
  template <class V>
  OPENLORA_INLINE static typename V::Weights Load(const uint8_t* group, int quad, int i, int vector) {
    return V::LoadNibbles(group + (quad + i) / 2 * kFourBytes + vector * V::kLanes * 4, V::LoadTable(kInt4Bytes.w),
                          i % 2 != 0);
  }
};

// A tile's rows of x, from one group on; `stride` in groups.
template <class V, class Q, int rows>
struct GroupRows {
  GroupRows(const uint8_t* x, int64_t stride, int64_t group) {
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) {
      row[r] = reinterpret_cast<const Activations<V, Q::kGroupK>*>(x) + r * stride + group;
      OPENLORA_OPAQUE(row[r]);
    }
  }
  OPENLORA_INLINE void Advance() {
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) ++row[r];
  }
  const Activations<V, Q::kGroupK>* row[rows];
};

// What to prefetch during a group: lines `step` bytes apart.
struct Ahead {
  const uint8_t* next;
  int64_t step;
};
template <class Q>
inline constexpr int kGroupPrefetches = Q::kPrefetches * Q::kGroupK / 4;

// One group onto the tile's sums [rows][32], of kDotVectors vectors from `first` on.
template <class V, class Q, int rows, int first>
OPENLORA_INLINE void GroupVectors(const uint8_t* weights, const GroupRows<V, Q, rows>& x, bool is_first, float* partial,
                                  Ahead ahead) {
  using I = typename V::I;
  constexpr int kVectors = V::kDotVectors;
  constexpr int kChains = Q::Chains(rows * kVectors);
  constexpr int kUnroll = kChains < 2 ? 2 : kChains;  // even: halves of a byte are told apart while compiling
  I sums[kChains][rows][kVectors];
  OPENLORA_UNROLL
  for (int c = 0; c < kChains; ++c) OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[c][r][v] = V::SetInt(c == 0 ? x.row[r]->start : 0);

  for (int quad = 0; quad < Q::kGroupK / 4; quad += kUnroll) {
    OPENLORA_UNROLL
    for (int i = 0; i < kUnroll; ++i) {
      if constexpr (first == 0) {
        OPENLORA_UNROLL
        for (int line = 0; line < Q::kPrefetches; ++line) V::Prefetch(ahead.next + line * ahead.step);
        ahead.next += Q::kPrefetches * ahead.step;
      }
      typename V::Weights w[kVectors];
      OPENLORA_UNROLL
      for (int v = 0; v < kVectors; ++v) w[v] = Q::template Load<V>(weights, quad, i, first + v);
      OPENLORA_UNROLL
      for (int r = 0; r < rows; ++r) {
        const typename V::Quad of_row = V::LoadActivations(x.row[r]->x + 4 * (quad + i));
        OPENLORA_UNROLL
        for (int v = 0; v < kVectors; ++v) sums[i % kChains][r][v] = V::Dot(sums[i % kChains][r][v], w[v], of_row);
      }
    }
  }
  const auto* const scales = reinterpret_cast<const uint16_t*>(weights + Q::kGroupBytes) - kPanel;
  OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const int lane = (first + v) * V::kLanes;
    const typename V::F scale = V::LoadF16(scales + lane);
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) {
      float* const at = partial + r * kPanel + lane;
      I sum = sums[0][r][v];
      OPENLORA_UNROLL
      for (int c = 1; c < kChains; ++c) sum = V::AddInt(sum, sums[c][r][v]);
      const typename V::F scaled = V::Mul(V::FloatOf(sum), V::Set(x.row[r]->scale));
      V::Store(at, V::Fma(scaled, scale, is_first ? V::Zero() : V::Load(at)));
    }
  }
  if constexpr (first + kVectors < kPanelVectors<V>)
    GroupVectors<V, Q, rows, first + kVectors>(weights, x, is_first, partial, ahead);
}

template <class V, int rows>
OPENLORA_INLINE void FinishPartial(const PanelsArgs& args, int64_t row, int64_t panel, const float* partial) {
  typename V::F sums[rows][kPanelVectors<V>];
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kPanelVectors<V>; ++v) sums[r][v] = V::Load(partial + r * kPanel + v * V::kLanes);
  Finish<V, rows>(args, row, panel, sums);
}

// What Finish will write, asked for in time. Zen 4, [896, 4864], 256 rows: int8 2 %, int4 2.5 %
// faster; with 32 rows outputs are still in a cache, and asking costs 1 %.
inline constexpr int kFarRows = 64;
template <class V, int rows>
OPENLORA_INLINE void PrefetchOutputs(const PanelsArgs& args, int64_t row, int64_t panel) {
  if (args.rows < kFarRows) return;
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) {
    const float* y = args.y + (row + r) * args.y_stride + panel * kPanel;
    for (int line = 0; line < kPanel; line += 16) V::Prefetch(y + line);
  }
}

// Groups [begin, end) of one panel, which stay in L1 while all row tiles pass over them.
struct DotBlock {
  const uint8_t* weights;
  int64_t panel;
  int64_t begin;
  int64_t end;
  bool is_last;
};

template <class V, class Q, int rows>
void DotBlockTile(const PanelsArgs& args, const DotBlock& block, int64_t row, Ahead ahead) {
  float* const partial = args.scratch + row * kPanel;
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Activations<V, Q::kGroupK>));
  GroupRows<V, Q, rows> x(args.x_quantised + row * args.x_stride_groups * kBytes, args.x_stride_groups, block.begin);
  if (block.is_last) PrefetchOutputs<V, rows>(args, row, block.panel);
  const uint8_t* weights = block.weights;
  for (int64_t group = block.begin; group < block.end; ++group, weights += Q::kGroupBytes, x.Advance()) {
    GroupVectors<V, Q, rows, 0>(weights, x, group == 0, partial, ahead);
    ahead.next += kGroupPrefetches<Q> * ahead.step;
  }
  if (block.is_last) FinishPartial<V, rows>(args, row, block.panel, partial);
}

template <class V, class Q, int rows>
OPENLORA_INLINE void DotAnyTile(int64_t height, const PanelsArgs& args, const DotBlock& block, int64_t row,
                                Ahead ahead) {
  if constexpr (rows > 0) {
    if (height == rows) return DotBlockTile<V, Q, rows>(args, block, row, ahead);
    DotAnyTile<V, Q, rows - 1>(height, args, block, row, ahead);
  }
}

template <class V, class Q>
void DotPanels(const PanelsArgs& args) {
  constexpr int kTile = V::kDotRows;
  const int64_t groups = (args.in + Q::kGroupK - 1) / Q::kGroupK;
  const int64_t tiles = (args.rows + kTile - 1) / kTile;
  // Each tile prefetches its part of the next block.
  const int64_t step = (Q::kGroupBytes + kGroupPrefetches<Q> * tiles - 1) / (kGroupPrefetches<Q> * tiles);
  const int64_t block_groups = Q::BlockGroups(args.rows);
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    const uint8_t* weights = static_cast<const uint8_t*>(args.weights) + panel * args.panel_bytes;
    for (int64_t group = 0; group < groups; group += block_groups) {
      const int64_t end = group + block_groups < groups ? group + block_groups : groups;
      const DotBlock block{weights, panel, group, end, end == groups};
      const int64_t share = (end - group) * kGroupPrefetches<Q> * step;
      weights += (end - group) * Q::kGroupBytes;
      Ahead ahead{weights, step};
      int64_t row = 0;
      for (int64_t tile = 0; tile < tiles; ++tile, ahead.next += share) {
        const int64_t height = TileHeight(args.rows - row, tiles - tile);
        DotAnyTile<V, Q, kTile>(height, args, block, row, ahead);
        row += height;
      }
    }
  }
}

}  // namespace
}  // namespace openlora
