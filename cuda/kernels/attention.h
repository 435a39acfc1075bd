#pragma once

#include "device/kernel.h"

// Paged attention. Append puts K and V of a step's rows into the cache; Decode walks splits of the positions and leaves
// a partial result of each, which Merge adds up; Prefill walks all splits of its rows by itself and adds them up in the
// same order. A split is kSplit positions at absolute places, walked in steps of kStep: a row's bits are the same
// by either way, whatever rows share its tile.
//
// A frame is K [kv_heads][tokens][head_dim], then V likewise, 16 bits each (bf16, or f16 in the kernels named so).
// head_dim is a multiple of 8 up to 256; a kernel for `dims` columns takes every head_dim up to that.
//
// q is multiplied by scale and log2(e) in f32 and rounded to 16 bits; the softmax's weights, powers of two, are rounded
// before they are multiplied by V and before they are summed. V has no NaN and no infinity in the cache: of a (token,
// KV head) whose V has one Append makes V zero and K NaN, which is NaN for whoever sees the token and nothing for the
// others.

namespace openlora::attention {

inline constexpr int kSplit = 256;    // positions of a partial result
inline constexpr int kTileRows = 16;  // M of mma.m16n8k16: a warp's pairs of (row, head)
inline constexpr int kStages = 2;
inline constexpr int kHeadDimMax = 256;
inline constexpr int kDims[] = {64, 96, 128, 256};  // of kernels; the least that holds head_dim gives the result
inline constexpr int kThreads = 128;                // of a block of Append and Merge

// Positions between two updates of a row's maximum.
template <int dims>
inline constexpr int kStep = dims <= 128 ? 32 : 16;
// Warps of a block, each with a tile of its own, that share loads of K and V.
template <int dims>
inline constexpr int kPrefillWarps = dims <= 128 ? 4 : 2;
inline constexpr int kDecodeWarps = 1;

// Whether q, which doesn't fit into registers, stands in shared memory.
template <int dims>
inline constexpr bool kHasSharedQuery = dims > 128;
// Of K and V a ring of steps, the frames of a split, q; in Prefill the sums over the splits before as well.
template <int dims, int warps>
inline constexpr int kRingBytes = kStages * 2 * kStep<dims> * (dims + 8) * 2 + kSplit * 4 +
                                  (kHasSharedQuery<dims> ? warps * kTileRows * dims * 2 : 0);
template <int dims>
inline constexpr int kDecodeSharedBytes = kRingBytes<dims, kDecodeWarps>;
template <int dims>
inline constexpr int kPrefillSharedBytes =
    kRingBytes<dims, kPrefillWarps<dims>> + kPrefillWarps<dims> * kTileRows * dims * 4;

// One layer of the cache. The frame of (sequence s, block b) is table[table_begin[s] + b * layers + layer], as in
// ops/kv_view.h.
struct Cache {
  uint8_t* pool;
  int64_t frame_bytes;  // a multiple of 16
  const uint32_t* table;
  const int64_t* table_begin;
  int32_t frame_tokens_log2;
  int32_t layers;
  int32_t layer;
  int32_t kv_heads;
  int32_t head_dim;
};

struct AppendParams {
  const float* k;  // [T, kv_heads * head_dim], rows aligned to 16 bytes
  const float* v;
  int64_t k_stride;  // elements
  int64_t v_stride;
  const int32_t* row_count;
  const int32_t* row_pos;       // [T]
  const int32_t* row_sequence;  // [T]
  Cache cache;
};

inline constexpr int kAllSplits = -1;

// A tile for every KV head: pairs of (row, head of the group), the pair of row `row + i / group` and head i % group for
// i in [pair, pair + pairs). Rows of one sequence, up to 16 pairs for each warp of a block.
struct Item {
  int32_t row;
  int32_t pair;
  int32_t pairs;
  int32_t split;  // whose partial result is stored; nothing where no row of the tile sees it. Prefill: or kAllSplits
};

struct Params {
  const float* q;    // [T, heads * head_dim], rows aligned to 8 bytes
  uint16_t* out;     // the same shape, rows aligned to 4 bytes
  int64_t q_stride;  // elements
  int64_t out_stride;
  const int32_t* row_pos;       // [T], ascending within a sequence
  const int32_t* row_sequence;  // [T]
  Cache cache;
  int32_t heads;
  float scale;
  int32_t window;  // positions seen, the row's own included; 0: all
  float soft_cap;  // 0: none
  // Of Decode and Prefill, each has its own; made once for all layers. Counts stand in device memory, so that a
  // captured launch serves any batch.
  const int32_t* item_count;
  const Item* items;
  // Partial results: of (row r, split s that it sees) at the place row_place[r] + s.
  const int32_t* row_place;    // [T]; may be negative
  const int32_t* merge_count;  // rows that Merge takes
  const int32_t* merge_row;    // [merge_count]
  float* partial_sums;         // [places][heads][2]: the largest score, in powers of two, and the sum of the weights
  float* partial_out;          // [places][heads][head_dim], weighted sums of V; aligned to 8 bytes
};

}  // namespace openlora::attention

DEV_KERNEL(attention, AppendBF16, AppendParams)
DEV_KERNEL(attention, AppendF16, AppendParams)
DEV_KERNEL(attention, MergeBF16, Params)
DEV_KERNEL(attention, MergeF16, Params)
DEV_KERNEL(attention, DecodeBF16x64, Params)
DEV_KERNEL(attention, DecodeBF16x96, Params)
DEV_KERNEL(attention, DecodeBF16x128, Params)
DEV_KERNEL(attention, DecodeBF16x256, Params)
DEV_KERNEL(attention, DecodeF16x64, Params)
DEV_KERNEL(attention, DecodeF16x96, Params)
DEV_KERNEL(attention, DecodeF16x128, Params)
DEV_KERNEL(attention, DecodeF16x256, Params)
DEV_KERNEL(attention, PrefillBF16x64, Params)
DEV_KERNEL(attention, PrefillBF16x96, Params)
DEV_KERNEL(attention, PrefillBF16x128, Params)
DEV_KERNEL(attention, PrefillBF16x256, Params)
DEV_KERNEL(attention, PrefillF16x64, Params)
DEV_KERNEL(attention, PrefillF16x96, Params)
DEV_KERNEL(attention, PrefillF16x128, Params)
DEV_KERNEL(attention, PrefillF16x256, Params)
