#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace openlora {

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

// A LoRA tile address counts units of this many bytes from the start of the pool.
inline constexpr int64_t kTileUnitBytes = 256;
inline constexpr int kTileRanks = 8;
// Columns whose partial sums are one term of a shrink. Of int8 (ops/int8_adapter.h) so many that eight ranks of them
// take 4080 bytes with their scales: they fill a frame, which is a power of two, as 512 columns of the others do.
constexpr int32_t ShrinkChunk(DType dtype) { return dtype == DType::kI8 ? 480 : 512; }

// How one adapter acts on one site.
struct SitePages {
  int32_t rank = 0;  // 0: the adapter doesn't act here
  uint32_t a = 0;    // index of its first A tile in SlotPages::tiles
  uint32_t b = 0;    // index of its first B tile
  float scale = 1;   // ΔW = scale · B·A; applied in f32 between them: B as it was saved loses no bit in 16
};

// One resident adapter. A tiles of a site: for each eight of ranks, for each tile_columns of `in`.
// B tiles: for each eight of ranks, for each tile_columns of `out`.
struct SlotPages {
  const SitePages* sites = nullptr;  // [sites of the base]
  const uint32_t* tiles = nullptr;   // unit addresses
};

struct AdapterPages {
  const uint8_t* pool = nullptr;
  const SlotPages* slots = nullptr;
  DType dtype = DType::kF32;
  int32_t tile_columns = 512;  // a multiple of 32 that divides ShrinkChunk(dtype)
};

}  // namespace openlora
