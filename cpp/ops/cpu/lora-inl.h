#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/panels-inl.h"
#include "ops/cpu/simd_common.h"
#include "ops/cpu/weights-inl.h"

// The low-rank part: shrink (h = x·Aᵀ, ranks in lanes) and expand (y += h·Bᵀ, outputs in lanes).

namespace openlora {
namespace {

inline constexpr int kEight = 8;                 // ranks of a tile
inline constexpr int kLanesOfPair = 2 * kEight;  // (rank, k mod 2), k fastest

// A tile's four consecutive k (a quad) as vectors of lanes (rank, k mod 2) for k = 0, 1 and for k = 2, 3.
// kBytes: of one rank's quad.
template <class V>
struct TileF32 {
  static constexpr int kBytes = 16;
  static OPENLORA_INLINE void Load(const uint8_t* quad, int ranks, int lane, int lanes, typename V::F (&w)[2]) {
    const float* p = reinterpret_cast<const float*>(quad) + lane;
    w[0] = lanes == V::kLanes ? V::Load(p) : V::LoadPart(p, lanes);
    w[1] = lanes == V::kLanes ? V::Load(p + 2 * ranks) : V::LoadPart(p + 2 * ranks, lanes);
  }
};

template <class V>
struct TileF16 {
  static constexpr int kBytes = 8;
  static OPENLORA_INLINE void Load(const uint8_t* quad, int ranks, int lane, int lanes, typename V::F (&w)[2]) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(quad) + lane;
    w[0] = lanes == V::kLanes ? V::LoadF16(p) : V::LoadF16Part(p, lanes);
    w[1] = lanes == V::kLanes ? V::LoadF16(p + 2 * ranks) : V::LoadF16Part(p + 2 * ranks, lanes);
  }
};

template <class V>
struct TileBF16 {
  static constexpr int kBytes = 8;
  static OPENLORA_INLINE void Load(const uint8_t* quad, int, int lane, int lanes, typename V::F (&w)[2]) {
    const uint8_t* p = quad + lane * 4;
    const typename V::I both = lanes == V::kLanes ? V::LoadInt(p) : V::LoadIntPart(p, lanes);
    w[0] = V::EvenBF16(both);
    w[1] = V::OddBF16(both);
  }
};

template <class V>
struct TileS8 {
  static constexpr int kBytes = 4;
  static OPENLORA_INLINE void Load(const uint8_t* quad, int ranks, int lane, int lanes, typename V::F (&w)[2]) {
    const int8_t* p = reinterpret_cast<const int8_t*>(quad) + lane;
    w[0] = lanes == V::kLanes ? V::LoadInt8(p) : V::LoadInt8Part(p, lanes);
    w[1] = lanes == V::kLanes ? V::LoadInt8(p + 2 * ranks) : V::LoadInt8Part(p + 2 * ranks, lanes);
  }
};

// Whether a tile has a bf16 scale for each rank and kScaleColumns columns, before their codes.
template <class T>
inline constexpr bool kIsScaled = false;
template <class V>
inline constexpr bool kIsScaled<TileS8<V>> = true;
template <class V>
inline constexpr bool kIsScaled<WeightS8<V>> = true;
inline constexpr int kScaleBytes = 2;

template <class V>
inline constexpr int kPairVectors = kLanesOfPair / V::kLanes;
template <class V>
inline constexpr int kShrinkRows =
    V::kSums / (2 * kPairVectors<V>) < kTileRows ? V::kSums / (2 * kPairVectors<V>) : kTileRows;

// Four chains for each (row, rank): lane parity and j give k mod 4.
template <class V, int rows>
struct ShrinkSums {
  typename V::F sum[rows][2][kPairVectors<V>];
};

// `quads` quads of a tile; x[r] stands at its first column. is_full: eight ranks. As much is prefetched from `next`,
// but of a tile with scales.
template <class V, class T, int rows, bool is_full>
OPENLORA_INLINE void ShrinkQuads(const uint8_t* tile, int ranks, int64_t quads, const float* const (&x)[rows],
                                 int64_t at, const uint8_t* next, ShrinkSums<V, rows>& sums) {
  constexpr int kVectors = kPairVectors<V>;
  const int64_t quad_bytes = int64_t{is_full ? kEight : ranks} * T::kBytes;
  for (; quads > 0; --quads, tile += quad_bytes, next += quad_bytes, at += 4) {
    OPENLORA_UNROLL
    for (int line = 0; line < (kIsScaled<T> ? 0 : kEight * T::kBytes); line += 64) V::PrefetchSoon(next + line);
    OPENLORA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int left = 2 * ranks - v * V::kLanes;
      const int lanes = is_full || left >= V::kLanes ? V::kLanes : left > 0 ? left : 0;
      typename V::F w[2];
      T::Load(tile, is_full ? kEight : ranks, v * V::kLanes, lanes, w);
      OPENLORA_UNROLL
      for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
      for (int j = 0; j < 2; ++j) sums.sum[r][j][v] = V::Fma(w[j], V::SetPair(x[r] + at + 2 * j), sums.sum[r][j][v]);
    }
  }
}

template <class V, int rows>
OPENLORA_INLINE void ClearSums(ShrinkSums<V, rows>& sums) {
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int j = 0; j < 2; ++j) OPENLORA_UNROLL
  for (int v = 0; v < kPairVectors<V>; ++v) sums.sum[r][j][v] = V::Zero();
}

// The same of any number of columns.
template <class V, class T, int rows, bool is_full>
OPENLORA_INLINE void ShrinkColumns(const uint8_t* tile, int ranks, int64_t columns, const float* const (&x)[rows],
                                   int64_t at, const uint8_t* next, ShrinkSums<V, rows>& sums) {
  ShrinkQuads<V, T, rows, is_full>(tile, ranks, columns / 4, x, at, next, sums);
  if (columns % 4 == 0) return;
  float last[rows][4] = {};
  const float* x_last[rows];
  for (int r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < columns % 4; ++k) last[r][k] = x[r][at + columns / 4 * 4 + k];
    x_last[r] = last[r];
  }
  ShrinkQuads<V, T, rows, is_full>(tile + columns / 4 * ranks * T::kBytes, ranks, 1, x_last, 0, next, sums);
}

// Columns with scales: chains of their own for each group, whose sum (k mod 4: 0 + 2, 1 + 3) times the scale goes on
// the first two sums.
template <class V, class T, int rows, bool is_full>
OPENLORA_INLINE void ShrinkScaled(const uint8_t* tile, int ranks, int64_t columns, const float* const (&x)[rows],
                                  int64_t at, const uint8_t* next, ShrinkSums<V, rows>& sums) {
  const int64_t group_bytes = ranks * (kScaleBytes + kScaleColumns * T::kBytes / 4);
  for (; columns > 0; columns -= kScaleColumns, at += kScaleColumns, tile += group_bytes, next += group_bytes) {
    for (int64_t line = 0; line < group_bytes; line += 64) V::PrefetchSoon(next + line);
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(tile);
    const uint8_t* codes = tile + ranks * kScaleBytes;
    ShrinkSums<V, rows> group;
    ClearSums<V, rows>(group);
    if (columns >= kScaleColumns) {
      ShrinkQuads<V, T, rows, is_full>(codes, ranks, kScaleColumns / 4, x, at, next, group);
    } else {
      ShrinkColumns<V, T, rows, is_full>(codes, ranks, columns, x, at, next, group);
    }
    OPENLORA_UNROLL
    for (int v = 0; v < kPairVectors<V>; ++v) {
      const int left = 2 * ranks - v * V::kLanes;
      const uint16_t* p = scales + v * V::kLanes / 2;
      const typename V::F scale =
          is_full || left >= V::kLanes ? V::LoadBF16Twice(p) : V::LoadBF16TwicePart(p, left > 0 ? left : 0);
      OPENLORA_UNROLL
      for (int r = 0; r < rows; ++r)
        sums.sum[r][0][v] = V::Fma(V::Add(group.sum[r][0][v], group.sum[r][1][v]), scale, sums.sum[r][0][v]);
    }
  }
}

template <class V, class T, int rows, bool is_full>
void ShrinkRows(const ShrinkArgs& args, int64_t entry) {
  ShrinkSums<V, rows> sums;
  ClearSums<V, rows>(sums);
  const float* x[rows];
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) x[r] = args.x + args.entry_row[entry + r] * args.x_stride + args.column_begin;
  const TileSpan* span = args.spans;
  for (int64_t column = 0; column < args.columns; column += span->columns, ++span) {
    if constexpr (kIsScaled<T>) {
      ShrinkScaled<V, T, rows, is_full>(span->data, is_full ? kEight : args.ranks, span->columns, x, column,
                                        span->ahead, sums);
    } else {
      ShrinkColumns<V, T, rows, is_full>(span->data, args.ranks, span->columns, x, column, span->ahead, sums);
    }
  }
  for (int r = 0; r < rows; ++r) {
    float chains[2][kLanesOfPair];
    OPENLORA_UNROLL
    for (int j = 0; j < 2; ++j) OPENLORA_UNROLL
    for (int v = 0; v < kPairVectors<V>; ++v) V::Store(chains[j] + v * V::kLanes, sums.sum[r][j][v]);
    float* partial = args.partial + (entry + r) * kEight;
    for (int rank = 0; rank < kEight; ++rank)
      partial[rank] = (chains[0][2 * rank] + chains[0][2 * rank + 1]) + (chains[1][2 * rank] + chains[1][2 * rank + 1]);
  }
}

template <class V, class T, int rows>
OPENLORA_INLINE void ShrinkRest(const ShrinkArgs& args, int64_t entry) {
  if constexpr (rows > 0) {
    if (args.entries - entry != rows) return ShrinkRest<V, T, rows - 1>(args, entry);
    if (args.ranks == kEight) return ShrinkRows<V, T, rows, true>(args, entry);
    ShrinkRows<V, T, rows, false>(args, entry);
  }
}

template <class V, class T>
void Shrink(const ShrinkArgs& args) {
  constexpr int kRows = kShrinkRows<V>;
  int64_t entry = 0;
  for (; entry + kRows <= args.entries; entry += kRows) {
    if (args.ranks == kEight) {
      ShrinkRows<V, T, kRows, true>(args, entry);
    } else {
      ShrinkRows<V, T, kRows, false>(args, entry);
    }
  }
  ShrinkRest<V, T, kRows - 1>(args, entry);
}

template <class V>
void SumChunks(const float* partial, int64_t chunks, int64_t entries, const float* weight, float scale,
               float* coefficients, int64_t stride) {
  constexpr int kStep = V::kLanes < kEight ? V::kLanes : kEight;
  for (int64_t e = 0; e < entries; ++e) {
    for (int rank = 0; rank < kEight; rank += kStep) {
      const float* p = partial + e * kEight + rank;
      typename V::F sum = V::LoadPart(p, kStep);
      for (int64_t chunk = 1; chunk < chunks; ++chunk)
        sum = V::Add(sum, V::LoadPart(p + chunk * entries * kEight, kStep));
      V::StorePart(coefficients + e * stride + rank, V::Mul(V::Set(weight[e] * scale), sum), kStep);
    }
  }
}

// Panel `width` outputs wide, at `b`: sums[r] += Σ coefficient[r][rank] * b[rank] over `ranks` ranks.
template <class V, class W, int rows, bool is_whole>
OPENLORA_INLINE void ExpandTile(const uint8_t* b, int ranks, int width, const float* const (&coefficients)[rows],
                                typename V::F (&sums)[rows][kPanelVectors<V>]) {
  using F = typename V::F;
  const int groups = ranks / W::kGroup;
  for (int group = 0; group < groups; ++group, b += width * W::kGroupElement) {
    OPENLORA_UNROLL
    for (int v = 0; v < kPanelVectors<V>; ++v) {
      const int left = width - v * V::kLanes;
      F w[W::kGroup];
      if (is_whole || left >= V::kLanes) {
        W::Load(b, v * V::kLanes, w);
      } else {
        W::LoadPart(b, v * V::kLanes, left > 0 ? left : 0, w);
      }
      OPENLORA_UNROLL
      for (int j = W::kGroup - 1; j >= 0; --j) OPENLORA_UNROLL
      for (int r = 0; r < rows; ++r)
        sums[r][v] = V::Fma(w[j], V::Set(coefficients[r][group * W::kGroup + j]), sums[r][v]);
    }
  }
  if (ranks % W::kGroup == 0) return;
  OPENLORA_UNROLL
  for (int v = 0; v < kPanelVectors<V>; ++v) {  // the odd last rank of bf16: no pair
    const int left = width - v * V::kLanes;
    const uint16_t* p = reinterpret_cast<const uint16_t*>(b) + v * V::kLanes;
    const typename V::F w = is_whole || left >= V::kLanes ? V::LoadBF16(p) : V::LoadBF16Part(p, left > 0 ? left : 0);
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) sums[r][v] = V::Fma(w, V::Set(coefficients[r][ranks - 1]), sums[r][v]);
  }
}

// The same with the panel's scales at `b`, before its codes: they go on the coefficients.
template <class V, class W, int rows, bool is_whole>
OPENLORA_INLINE void ExpandScaled(const uint8_t* b, int ranks, int width, const float* const (&coefficients)[rows],
                                  typename V::F (&sums)[rows][kPanelVectors<V>]) {
  constexpr int kStep = V::kLanes < kEight ? V::kLanes : kEight;
  float scaled[rows][kEight];
  const float* of_row[rows];
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(b);
  if (ranks == kEight) {
    OPENLORA_UNROLL
    for (int i = 0; i < kEight; i += kStep) {
      const typename V::F eight = V::LoadBF16Part(scales + i, kStep);
      OPENLORA_UNROLL
      for (int r = 0; r < rows; ++r)
        V::StorePart(scaled[r] + i, V::Mul(V::LoadPart(coefficients[r] + i, kStep), eight), kStep);
    }
  } else {
    for (int i = 0; i < ranks; ++i) {
      const float scale = __builtin_bit_cast(float, static_cast<uint32_t>(scales[i]) << 16);
      OPENLORA_UNROLL
      for (int r = 0; r < rows; ++r) scaled[r][i] = coefficients[r][i] * scale;
    }
  }
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) of_row[r] = scaled[r];
  ExpandTile<V, W, rows, is_whole>(b + ranks * kScaleBytes, ranks, width, of_row, sums);
}

template <class V, class W, int rows, bool is_whole>
OPENLORA_INLINE void ExpandRanks(const uint8_t* b, int ranks, int width, const float* const (&coefficients)[rows],
                                 typename V::F (&sums)[rows][kPanelVectors<V>]) {
  if constexpr (kIsScaled<W>) {
    ExpandScaled<V, W, rows, is_whole>(b, ranks, width, coefficients, sums);
  } else {
    ExpandTile<V, W, rows, is_whole>(b, ranks, width, coefficients, sums);
  }
}

template <class W>
OPENLORA_INLINE int64_t TilePanelBytes(int64_t ranks) {
  return ranks * (kPanel * W::kGroupElement / W::kGroup + (kIsScaled<W> ? kScaleBytes : 0));
}

inline constexpr int kEightsTogether = 32;  // of the ranks of an adapter

// Panels that each eight of some ranks has in one tile.
struct ExpandPart {
  const uint8_t* panels[kEightsTogether];  // of each eight, at the first output
  int rank_begin, rank_end;
  int64_t output_begin, output_end;
  const uint8_t* ahead;  // as many bytes as the first eight's are prefetched from here
};

template <class V, class W, int rows, bool is_whole>
OPENLORA_INLINE void ExpandPanel(const ExpandPart& part, int64_t output, int width,
                                 const float* const (&coefficients_begin)[rows], float* const (&y)[rows]) {
  constexpr int kVectors = kPanelVectors<V>;
  typename V::F sums[rows][kVectors];
  const float* coefficients[rows];
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) {
    coefficients[r] = coefficients_begin[r];
    OPENLORA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int left = width - v * V::kLanes;
      sums[r][v] = is_whole || left >= V::kLanes ? V::Load(y[r] + output + v * V::kLanes)
                                                 : V::LoadPart(y[r] + output + v * V::kLanes, left > 0 ? left : 0);
    }
  }
  const int64_t panel = (output - part.output_begin) / kPanel;
  const uint8_t* const* panels = part.panels;
  for (int rank = part.rank_begin; rank < part.rank_end; rank += kEight, ++panels) {
    const int ranks = part.rank_end - rank < kEight ? part.rank_end - rank : kEight;
    const uint8_t* b = *panels + panel * TilePanelBytes<W>(ranks);
    if (ranks == kEight) {
      ExpandRanks<V, W, rows, is_whole>(b, kEight, width, coefficients, sums);
    } else {
      ExpandRanks<V, W, rows, is_whole>(b, ranks, width, coefficients, sums);
    }
    OPENLORA_UNROLL
    for (int r = 0; r < rows; ++r) coefficients[r] += kEight;
  }
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const int left = width - v * V::kLanes;
    if (is_whole || left >= V::kLanes) {
      V::Store(y[r] + output + v * V::kLanes, sums[r][v]);
    } else if (left > 0) {
      V::StorePart(y[r] + output + v * V::kLanes, sums[r][v], left);
    }
  }
}

template <class V, class W, int rows>
void ExpandRows(const ExpandArgs& args, const ExpandPart& part, int64_t entry) {
  const float* coefficients[rows];
  float* y[rows];
  OPENLORA_UNROLL
  for (int r = 0; r < rows; ++r) {
    coefficients[r] = args.coefficients + (entry + r) * args.rank_stride + part.rank_begin;
    y[r] = args.y + args.entry_row[entry + r] * args.y_stride;
  }
  const int ranks = part.rank_end - part.rank_begin < kEight ? part.rank_end - part.rank_begin : kEight;
  const int panel_bytes = static_cast<int>(TilePanelBytes<W>(ranks));
  const uint8_t* ahead = part.ahead;
  int64_t output = part.output_begin;
  for (; output + kPanel <= part.output_end; output += kPanel) {
    for (int line = 0; line < panel_bytes; line += 64) V::PrefetchSoon(ahead + line);
    ahead += panel_bytes;
    ExpandPanel<V, W, rows, true>(part, output, kPanel, coefficients, y);
  }
  if (output < part.output_end)
    ExpandPanel<V, W, rows, false>(part, output, static_cast<int>(part.output_end - output), coefficients, y);
}

template <class V, class W, int rows>
OPENLORA_INLINE void ExpandRest(const ExpandArgs& args, const ExpandPart& part, int64_t entry) {
  if constexpr (rows > 0) {
    if (args.entries - entry == rows) return ExpandRows<V, W, rows>(args, part, entry);
    ExpandRest<V, W, rows - 1>(args, part, entry);
  }
}

// All entries onto outputs [part.output_begin, part.output_end).
template <class V, class W>
OPENLORA_INLINE void ExpandEntries(const ExpandArgs& args, const ExpandPart& part) {
  constexpr int kRows = kRowTile<V>;
  int64_t entry = 0;
  for (; entry + kRows <= args.entries; entry += kRows) ExpandRows<V, W, kRows>(args, part, entry);
  ExpandRest<V, W, kRows - 1>(args, part, entry);
}

// Eight ranks after eight: each tile is read from end to end, in the order in which an adapter lays them.
template <class V, class W>
void ExpandEights(const ExpandArgs& args, int64_t begin, int64_t end) {
  const TileSpan* span = args.spans;
  ExpandPart part;
  for (part.rank_begin = 0; part.rank_begin < args.rank; part.rank_begin += kEight) {
    part.rank_end = part.rank_begin + kEight < args.rank ? part.rank_begin + kEight : args.rank;
    for (part.output_begin = begin; part.output_begin < end; part.output_begin = part.output_end, ++span) {
      part.output_end = part.output_begin + span->columns;
      part.panels[0] = span->data;
      part.ahead = span->ahead;
      ExpandEntries<V, W>(args, part);
    }
  }
}

// All ranks of an output at once, as far as each eight's tile goes: less traffic to y.
template <class V, class W>
void ExpandTogether(const ExpandArgs& args, int64_t begin, int64_t end) {
  const TileSpan* next = args.spans;
  ExpandPart part;
  for (part.rank_begin = 0; part.rank_begin < args.rank; part.rank_begin += kEightsTogether * kEight) {
    const int ranks_left = args.rank - part.rank_begin;
    part.rank_end = ranks_left < kEightsTogether * kEight ? args.rank : part.rank_begin + kEightsTogether * kEight;
    const int eights = (part.rank_end - part.rank_begin + kEight - 1) / kEight;
    const TileSpan* spans[kEightsTogether];
    int64_t used[kEightsTogether];  // columns of spans[i], already done
    for (int i = 0; i < eights; ++i) {
      spans[i] = next;
      used[i] = 0;
      for (int64_t columns = begin; columns < end; ++next) columns += next->columns;
    }
    for (part.output_begin = begin; part.output_begin < end; part.output_begin = part.output_end) {
      part.output_end = end;
      for (int i = 0; i < eights; ++i) {
        const int ranks = i + 1 < eights ? kEight : part.rank_end - part.rank_begin - i * kEight;
        part.panels[i] = spans[i]->data + used[i] / kPanel * TilePanelBytes<W>(ranks);
        const int64_t goes_to = part.output_begin + spans[i]->columns - used[i];
        if (goes_to < part.output_end) part.output_end = goes_to;
      }
      part.ahead = spans[0]->ahead;
      ExpandEntries<V, W>(args, part);
      for (int i = 0; i < eights; ++i) {
        used[i] += part.output_end - part.output_begin;
        if (used[i] < spans[i]->columns) continue;
        ++spans[i];
        used[i] = 0;
      }
    }
  }
}

template <class V, class W>
void Expand(const ExpandArgs& args) {
  const int64_t begin = args.panel_begin * kPanel;
  const int64_t end = args.panel_end * kPanel < args.out ? args.panel_end * kPanel : args.out;
  if (args.entries > kRowTile<V>) {
    ExpandTogether<V, W>(args, begin, end);
  } else {
    ExpandEights<V, W>(args, begin, end);
  }
}

}  // namespace
}  // namespace openlora
