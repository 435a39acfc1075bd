#pragma once

#include "device/kernel.h"

// y[t,:] += w · scale · (x[t,:]·Aᵀ)·Bᵀ for every entry (row t, adapter, weight w) of a batch and up to three products
// that share x. Shrink is x·Aᵀ, into h; expand multiplies by scale and w, in f32, and by B. Ranks 1 to 256, exact.
//
// In bf16, or in f16 (x, A, B, and h before it is multiplied by B), as the kernels' names say. A tile, of A and of B
// alike, is [columns / 32][ranks][32], padded with zeros to whole groups of 32; `columns`
// are of `in` for A, of `out` for B. Tiles are found through the pages: ops/batch_view.h has the same structs for the
// host.

namespace openlora::lora {

inline constexpr int kGroup = 32;      // columns
inline constexpr int kRunRanks = 8;    // of a run
inline constexpr int kTileRanks = 16;  // M of a shrink, K of an expand: two runs
inline constexpr int kRows = 8;        // N: entries of a segment taken at once
inline constexpr int kQuarter = 512;   // columns whose sum is one term of a shrink; a warp's
inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * 32;
inline constexpr int kBlocksOfSm = 5;            // at once, by their shared memory: of 227 KiB on 9.0
inline constexpr int kPart = kQuarter * kWarps;  // columns of a work item of a shrink
inline constexpr int kChunkOuts = 256;           // outputs of a work item of an expand
inline constexpr int kRankMax = 256;
inline constexpr int kProductsMax = 3;
inline constexpr int kSegmentsMax = 256;  // of a launch

struct Site {
  int32_t rank;  // 0: the adapter doesn't act here
  uint32_t a;    // its first run of A in Slot::runs, one for each eight ranks
  uint32_t b;
  float scale;
};
struct Run {
  uint32_t frame;  // of its first tile, an index into Slot::frames
  uint32_t offset;
  int32_t columns_first;
  int32_t columns_each;
};
struct Slot {
  const Site* sites;
  const Run* runs;
  const uint32_t* frames;
};

struct Product {
  int32_t site;
  int32_t out;
  int64_t y_stride;  // floats
  float* y;          // [T, out]
};

struct Params {
  const uint16_t* x;  // [T, in] in 16 bits, rows aligned to 16 bytes
  int64_t x_stride;   // elements
  int32_t in;
  int32_t product_count;
  Product products[kProductsMax];
  const uint8_t* pool;
  int64_t frame_bytes;
  const Slot* slots;
  // Entries in segments of one adapter each; counts stand in device memory, so that a captured launch serves any batch.
  const int32_t* segment_count;
  const int32_t* segment_start;  // [S + 1]
  const int32_t* segment_slot;   // [S]
  const int32_t* entry_row;      // [E]
  const float* entry_weight;     // [E]
  int32_t entries_max;           // what h has room for
  float* h;                      // [products][entries_max][CeilDiv(in, kPart)][kRankMax]
};

inline constexpr int kShrinkSharedBytes = 40'064;
inline constexpr int kExpandSharedBytes = 39'040;

}  // namespace openlora::lora

DEV_KERNEL(lora, ShrinkBF16, Params)
DEV_KERNEL(lora, ShrinkF16, Params)
DEV_KERNEL(lora, ExpandBF16, Params)
DEV_KERNEL(lora, ExpandF16, Params)
