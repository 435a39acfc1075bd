#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace openlora {

class Landing;

// Where the rows of a step come from. Rows of one sequence are contiguous and ascend in position.
struct RowsView {
  int32_t rows = 0;                       // T
  const int32_t* row_token = nullptr;     // [T]
  const int32_t* row_pos = nullptr;       // [T] position in its sequence, from 0
  const int32_t* row_sequence = nullptr;  // [T] index of the sequence within the batch, ascending
  const uint8_t* row_is_long = nullptr;   // [T] or null: not 0 where the sequence is beyond RopeFrequencies' switch
};

// The adapters of the rows. One entry = (row, adapter, weight). Entries are grouped into segments of one adapter
// each; a row's entries stand in the order of its request's adapter list, never in slot order.
struct EntriesView {
  int32_t entries = 0;                     // E
  const int32_t* entry_row = nullptr;      // [E]
  const float* entry_weight = nullptr;     // [E]
  int32_t segments = 0;                    // S
  const int32_t* segment_start = nullptr;  // [S+1], into the entries
  const int32_t* segment_slot = nullptr;   // [S], into AdapterPages::slots
};

// What a site (a linear module of one layer, the head, or the embedding) takes and gives.
struct SiteShape {
  int64_t in = 0;
  int64_t out = 0;
};

inline constexpr int kTileRanks = 8;
inline constexpr int kTileGroup = 32;  // columns: a panel of B, and what shares an int8 scale
// Columns whose partial sums are one term of a shrink; of int8 (ops/int8_adapter.h) whole groups that take 4080 bytes
// of eight ranks.
constexpr int32_t ShrinkChunk(DType dtype) { return dtype == DType::kI8 ? 480 : 512; }

// A tile is cut from its run at multiples of so many columns. Half a group of an f32 A: 7 ranks of a group take 896
// bytes, of which four leave an eighth of 4 KiB.
constexpr int32_t TileStep(DType dtype, bool is_a) {
  return dtype == DType::kF32 && is_a ? kTileGroup / 2 : kTileGroup;
}
// Of a tile of `ranks` <= kTileRanks: its values, padded with zeros to whole steps, and of int8 a bf16 scale for each
// rank and group.
constexpr int64_t TileBytes(DType dtype, int32_t ranks, int64_t columns) {
  const int64_t step = TileStep(dtype, true), steps = (columns + step - 1) / step;
  return steps * ranks * (step * static_cast<int64_t>(SizeOf(dtype)) + (dtype == DType::kI8 ? 2 : 0));
}

// How one adapter acts on one site.
struct SitePages {
  int32_t rank = 0;  // 0: the adapter doesn't act here
  uint32_t a = 0;    // index of its first A run in SlotPages::runs: one for each eight of ranks
  uint32_t b = 0;    // likewise of B
  float scale = 1;   // ΔW = scale · B·A; applied in f32 between them: B as it was saved loses no bit in 16
};

// Up to eight ranks of a matrix with all its columns (`in` of A, `out` of B), as a row of tiles: the first one
// somewhere in a frame, each further one at the beginning of the next frame.
struct TileRun {
  uint32_t frame = 0;         // the first tile's, an index into SlotPages::frames
  uint32_t offset = 0;        // bytes, of the first tile within its frame
  int32_t columns_first = 0;  // of the first tile; multiples of TileStep, more than there are if it is the last one
  int32_t columns_each = 0;   // of the others, but for the last one
};

// One resident adapter.
struct SlotPages {
  const SitePages* sites = nullptr;  // [sites of the base]
  const TileRun* runs = nullptr;
  const uint32_t* frames = nullptr;  // numbers within the pool, in the adapter's order
  // For who copies the three: how long the other two are, and which load of all the adapter came with.
  uint32_t run_count = 0;
  uint32_t frame_count = 0;
  uint64_t load = 0;
  Landing* landing = nullptr;  // where its frames may be on their way to the device
};

struct AdapterPages {
  const uint8_t* pool = nullptr;
  const SlotPages* slots = nullptr;
  DType dtype = DType::kF32;
  int64_t frame_bytes = 0;
};

// A tile of a run.
struct TilePlace {
  int64_t frame = 0;         // index into SlotPages::frames
  int64_t offset = 0;        // bytes, of the tile within its frame
  int64_t column_begin = 0;  // the tile's first column, of the run's
  int64_t column_end = 0;    // may lie beyond the run's last one
};
// The tile that holds `column` of a run.
constexpr TilePlace TileAt(const TileRun& run, int64_t column) {
  if (column < run.columns_first) return {run.frame, run.offset, 0, run.columns_first};
  const int64_t index = (column - run.columns_first) / run.columns_each;
  const int64_t begin = run.columns_first + index * run.columns_each;
  return {run.frame + 1 + index, 0, begin, begin + run.columns_each};
}

}  // namespace openlora
