#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/panels-inl.h"
#include "ops/cpu/simd_common.h"
#include "ops/int8_format.h"

// y = x·Wᵀ with int8 weights and activations (ops/int8_format.h). Of an output, a group's products are summed in
// integers, exactly; then sum = fma(float(group) * scale of x, scale of w, sum), groups in ascending order. So no level
// and no way of cutting rows changes a bit.

namespace openlora {
namespace {

// Panels read side by side by one tile of rows. Zen 4, one thread, [896, 4864]: 2 instead of 4 take 281, 224, 314 us at
// 1, 4, 8 rows where 4 take 394, 222, 470.
inline constexpr int kInt8Streams = 2;
// Rows > a tile: this many groups of a panel (28 KB) stay in L1 while all row tiles pass over them. [896, 4864 twice],
// 32 rows: 4 groups take 5 % longer, 2 groups 17 %.
inline constexpr int kInt8BlockGroups = 7;
inline constexpr int kInt8Quads = kInt8GroupK / 4;
inline constexpr int kInt8QuadBytes = kPanel * 4;

// A group of a row of x, as the level's dot product takes it.
template <class V>
struct Int8Activations {
  typename V::Activation x[kInt8GroupK];
  float scale;
  int32_t start;  // of each sum: what the weights' offset adds, undone
};

struct SignTables {
  float flip[kInt8GroupK];  // ±1: step 1 of the rotation
  float alternate[4][16];   // [log2 d]: + for lanes with lane & d == 0
};

constexpr SignTables MakeSignTables() {
  SignTables tables{};
  for (int k = 0; k < kInt8GroupK; ++k) tables.flip[k] = IsInt8SignFlipped(k) ? -1.0f : 1.0f;
  for (int i = 0; i < 4; ++i)
    for (int lane = 0; lane < 16; ++lane) tables.alternate[i][lane] = (lane >> i & 1) != 0 ? -1.0f : 1.0f;
  return tables;
}
constexpr SignTables kSigns = MakeSignTables();

template <class V>
inline constexpr int kGroupVectors = kInt8GroupK / V::kLanes;

// The stages of the rotation at distances below kLanes.
template <class V, int log_distance>
OPENLORA_INLINE typename V::F RotateLanes(typename V::F v) {
  if constexpr ((1 << log_distance) < V::kLanes) {
    const typename V::F signs = V::Load(kSigns.alternate[log_distance]);
    return RotateLanes<V, log_distance + 1>(V::Add(V::template SwapLanes<1 << log_distance>(v), V::Mul(v, signs)));
  }
  return v;
}

// Steps 2 and 3.
template <class V>
OPENLORA_INLINE void Hadamard(typename V::F (&g)[kGroupVectors<V>]) {
  OPENLORA_UNROLL
  for (int v = 0; v < kGroupVectors<V>; ++v) g[v] = RotateLanes<V, 0>(g[v]);
  OPENLORA_UNROLL
  for (int distance = 1; distance < kGroupVectors<V>; distance *= 2) OPENLORA_UNROLL
  for (int v = 0; v < kGroupVectors<V>; ++v) {
    if ((v & distance) != 0) continue;
    const typename V::F a = g[v], b = g[v + distance];
    g[v] = V::Add(a, b);
    g[v + distance] = V::Sub(a, b);
  }
  OPENLORA_UNROLL
  for (int v = 0; v < kGroupVectors<V>; ++v) g[v] = V::Mul(g[v], V::Set(kInt8RotationScale));
}

template <class V>
OPENLORA_INLINE void RotateGroup(const float* x, int32_t count, typename V::F (&g)[kGroupVectors<V>]) {
  OPENLORA_UNROLL
  for (int v = 0; v < kGroupVectors<V>; ++v) {
    const int left = count - v * V::kLanes;
    const typename V::F values = left >= V::kLanes ? V::Load(x + v * V::kLanes)
                                 : left > 0        ? V::LoadPart(x + v * V::kLanes, left)
                                                   : V::Zero();
    g[v] = V::Mul(values, V::Load(kSigns.flip + v * V::kLanes));
  }
  Hadamard<V>(g);
}

// x [count], count <= 128, into rotated [128].
template <class V>
void Int8Rotate(const float* x, int32_t count, float* rotated) {
  typename V::F g[kGroupVectors<V>];
  RotateGroup<V>(x, count, g);
  for (int v = 0; v < kGroupVectors<V>; ++v) V::Store(rotated + v * V::kLanes, g[v]);
}

template <class V>
void Int8RotateBack(const float* rotated, int32_t count, float* x) {
  typename V::F g[kGroupVectors<V>];
  for (int v = 0; v < kGroupVectors<V>; ++v) g[v] = V::Load(rotated + v * V::kLanes);
  Hadamard<V>(g);  // its own inverse
  for (int v = 0; v * V::kLanes < count; ++v) {
    const int left = count - v * V::kLanes;
    V::StorePart(x + v * V::kLanes, V::Mul(g[v], V::Load(kSigns.flip + v * V::kLanes)),
                 left < V::kLanes ? left : V::kLanes);
  }
}

// x [in] into its groups, [begin, end) of them.
template <class V>
void Int8Quantise(const float* x, int64_t in, int64_t begin, int64_t end, uint8_t* groups) {
  using F = typename V::F;
  using I = typename V::I;
  for (int64_t group = begin; group < end; ++group) {
    auto* const out = reinterpret_cast<Int8Activations<V>*>(groups) + group;
    const int64_t left = in - group * kInt8GroupK;
    F g[kGroupVectors<V>];
    RotateGroup<V>(x + group * kInt8GroupK, left < kInt8GroupK ? static_cast<int32_t>(left) : kInt8GroupK, g);
    F largest = V::Zero(), zeros = V::Zero();  // zeros: NaN, if a value is NaN or infinite
    OPENLORA_UNROLL
    for (int v = 0; v < kGroupVectors<V>; ++v) {
      largest = V::Max(largest, V::Max(g[v], V::Sub(V::Zero(), g[v])));
      zeros = V::Add(zeros, V::Mul(g[v], V::Zero()));
    }
    float of_lane[V::kLanes], zero_of_lane[V::kLanes], most = 0, zero = 0;
    V::Store(of_lane, largest);
    V::Store(zero_of_lane, zeros);
    for (int i = 0; i < V::kLanes; ++i) {
      most = of_lane[i] > most ? of_lane[i] : most;
      zero += zero_of_lane[i];
    }
    const bool is_zero = !(most >= kInt8Least);
    const F inverse = V::Set(is_zero ? 0 : 127 / most);
    I sum = V::SetInt(0);
    OPENLORA_UNROLL
    for (int v = 0; v < kGroupVectors<V>; ++v) {
      // Adding 1.5·2^23 leaves the nearest integer in the low bits.
      const F shifted = V::Add(V::Mul(g[v], inverse), V::Set(0x1.8p23f));
      const I q = V::SubInt(V::BitsOf(shifted), V::SetInt(0x4b400000));
      V::StoreActivations(out->x + v * V::kLanes, q);
      sum = V::AddInt(sum, q);
    }
    uint32_t sum_of_lane[V::kLanes], total = 0;
    V::StoreInt(sum_of_lane, sum);
    for (int i = 0; i < V::kLanes; ++i) total += sum_of_lane[i];
    out->scale = (is_zero ? 0 : most / 127) + zero;
    out->start = static_cast<int32_t>(total * static_cast<uint32_t>(V::kSumStart));
  }
}

// A tile's rows of x at one group; `stride` in groups.
template <class V, int rows>
struct Int8Rows {
  Int8Rows(const uint8_t* x, int64_t stride, int64_t group) {
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) {
      row[r] = reinterpret_cast<const Int8Activations<V>*>(x) + r * stride + group;
      OPENLORA_OPAQUE(row[r]);
    }
  }
  const Int8Activations<V>* row[rows];
};

// What to prefetch during a group: two lines for each four k, `step` bytes apart.
struct Ahead {
  const uint8_t* next;
  int64_t step;
};

// One group onto the tile's sums [rows][32], of kDotVectors vectors from `first` on. Few accumulators are split into
// chains, to hide the dot's latency.
template <class V, int rows, int first>
OPENLORA_INLINE void Int8GroupVectors(const uint8_t* weights, const Int8Rows<V, rows>& x, bool is_first, float* partial,
                                      Ahead ahead) {
  using I = typename V::I;
  constexpr int kVectors = V::kDotVectors;
  constexpr int kChains = rows * kVectors <= 2 ? 4 : rows * kVectors <= 4 ? 2 : 1;
  constexpr int kUnroll = kChains < 2 ? 2 : kChains;
  I sums[kChains][rows][kVectors];
  OPENLORA_UNROLL
  for (int c = 0; c < kChains; ++c) OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[c][r][v] = V::SetInt(c == 0 ? x.row[r]->start : 0);

  const uint8_t* quad = weights + first * V::kLanes * 4;
  for (int k = 0; k < kInt8GroupK; k += 4 * kUnroll, quad += kUnroll * kInt8QuadBytes) {
    OPENLORA_UNROLL
    for (int i = 0; i < kUnroll; ++i) {
      if constexpr (first == 0) {
        V::Prefetch(ahead.next);
        V::Prefetch(ahead.next + ahead.step);
        ahead.next += 2 * ahead.step;
      }
      typename V::Weights w[kVectors];
      OPENLORA_UNROLL
      for (int v = 0; v < kVectors; ++v) w[v] = V::LoadWeights(quad + i * kInt8QuadBytes + v * V::kLanes * 4);
      OPENLORA_UNROLL
      for (int r = 0; r < rows; ++r) {
        const typename V::Quad of_row = V::LoadActivations(x.row[r]->x + k + 4 * i);
        OPENLORA_UNROLL
        for (int v = 0; v < kVectors; ++v) sums[i % kChains][r][v] = V::Dot(sums[i % kChains][r][v], w[v], of_row);
      }
    }
  }
  const auto* const scales = reinterpret_cast<const uint16_t*>(weights + kPanel * kInt8GroupK);
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
    Int8GroupVectors<V, rows, first + kVectors>(weights, x, is_first, partial, ahead);
}

template <class V, int rows>
OPENLORA_INLINE void Int8Finish(const PanelsArgs& args, int64_t row, int64_t panel, const float* partial) {
  typename V::F sums[rows][kPanelVectors<V>];
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kPanelVectors<V>; ++v) sums[r][v] = V::Load(partial + r * kPanel + v * V::kLanes);
  Finish<V, rows>(args, row, panel, sums);
}

// One tile of rows: weights go straight from memory into the sums, two panels in turns of a group.
template <class V, int rows>
void Int8FewRows(const PanelsArgs& args) {
  const int64_t groups = (args.in + kInt8GroupK - 1) / kInt8GroupK;
  float* const partial = args.scratch;
  for (int64_t panel = args.panel_begin; panel < args.panel_end; panel += kInt8Streams) {
    const uint8_t* weights = static_cast<const uint8_t*>(args.weights) + panel * args.panel_bytes;
    const int streams = args.panel_end - panel < kInt8Streams ? static_cast<int>(args.panel_end - panel) : kInt8Streams;
    for (int64_t group = 0; group < groups; ++group, weights += kInt8GroupBytes) {
      const Int8Rows<V, rows> x(args.x_int8, args.x_int8_stride, group);
      for (int p = 0; p < streams; ++p) {
        const uint8_t* const at = weights + p * args.panel_bytes;
        Int8GroupVectors<V, rows, 0>(at, x, group == 0, partial + p * rows * kPanel, {at + kPrefetchAhead, 64});
      }
    }
    for (int p = 0; p < streams; ++p) Int8Finish<V, rows>(args, 0, panel + p, partial + p * rows * kPanel);
  }
}

// Groups [begin, end) of one panel, which stay in L1 while all row tiles pass over them.
struct Int8Block {
  const uint8_t* weights;
  int64_t panel;
  int64_t begin;
  int64_t end;
  bool is_last;
};

template <class V, int rows>
void Int8BlockTile(const PanelsArgs& args, const Int8Block& block, int64_t row, Ahead ahead) {
  float* const partial = args.scratch + row * kPanel;
  const uint8_t* const x = args.x_int8 + row * args.x_int8_stride * static_cast<int64_t>(sizeof(Int8Activations<V>));
  const uint8_t* weights = block.weights;
  for (int64_t group = block.begin; group < block.end; ++group, weights += kInt8GroupBytes) {
    const Int8Rows<V, rows> of_group(x, args.x_int8_stride, group);
    Int8GroupVectors<V, rows, 0>(weights, of_group, group == 0, partial, ahead);
    ahead.next += 2 * kInt8Quads * ahead.step;
  }
  if (block.is_last) Int8Finish<V, rows>(args, row, block.panel, partial);
}

template <class V, int rows>
OPENLORA_INLINE void Int8LastTile(const PanelsArgs& args, const Int8Block& block, int64_t row, Ahead ahead) {
  if constexpr (rows > 0) {
    if (args.rows - row == rows) return Int8BlockTile<V, rows>(args, block, row, ahead);
    Int8LastTile<V, rows - 1>(args, block, row, ahead);
  }
}

template <class V>
void Int8ManyRows(const PanelsArgs& args) {
  constexpr int kTile = V::kDotRows;
  const int64_t groups = (args.in + kInt8GroupK - 1) / kInt8GroupK;
  const int64_t tiles = (args.rows + kTile - 1) / kTile;
  // Each tile prefetches its part of the next block.
  const int64_t step = (kInt8GroupBytes + 2 * kInt8Quads * tiles - 1) / (2 * kInt8Quads * tiles);
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    const uint8_t* weights = static_cast<const uint8_t*>(args.weights) + panel * args.panel_bytes;
    for (int64_t group = 0; group < groups; group += kInt8BlockGroups) {
      const int64_t end = group + kInt8BlockGroups < groups ? group + kInt8BlockGroups : groups;
      const Int8Block block{weights, panel, group, end, end == groups};
      const int64_t share = (end - group) * 2 * kInt8Quads * step;
      weights += (end - group) * kInt8GroupBytes;
      Ahead ahead{weights, step};
      int64_t row = 0;
      for (; row + kTile <= args.rows; row += kTile, ahead.next += share)
        Int8BlockTile<V, kTile>(args, block, row, ahead);
      Int8LastTile<V, kTile - 1>(args, block, row, ahead);
    }
  }
}

template <class V, int rows>
OPENLORA_INLINE bool Int8TryFewRows(const PanelsArgs& args) {
  if constexpr (rows > 0) {
    if (args.rows == rows) {
      Int8FewRows<V, rows>(args);
      return true;
    }
    return Int8TryFewRows<V, rows - 1>(args);
  }
  return false;
}

template <class V>
void Int8Panels(const PanelsArgs& args) {
  if (!Int8TryFewRows<V, V::kDotRows>(args)) Int8ManyRows<V>(args);
}

template <class V>
constexpr Int8Kernels MakeInt8Kernels() {
  return {sizeof(Int8Activations<V>), &Int8Rotate<V>, &Int8RotateBack<V>, &Int8Quantise<V>, &Int8Panels<V>};
}

}  // namespace
}  // namespace openlora
