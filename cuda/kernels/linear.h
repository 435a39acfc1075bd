#pragma once

#include "device/kernel.h"

// y[t,:] = (accumulates ? y[t,:] : 0) + bias + x[t,:]·Wᵀ for up to three products that share x. Stream is for few rows
// (bound by the bytes of W, each of which is read once for up to 32 rows), Gemm for many.
//
// Both give an output the same bits, whatever T, the grid, the other rows, and Params::tiles_each. Its chain:
//   columns are taken in chunks of 512; a chunk's sum is a chain of mma.m16n8k16 from zero, weights as M, over its
//   groups of 32 columns in ascending order, each group in two steps of 16: columns c with c % 8 < 4, then the others
//   (a lane holds eight adjacent columns, of W and x alike, so none is moved);
//   a group that begins at or beyond `in` is left out, columns beyond it in the last group are zeros;
//   y = ((0 + chunk 0) + chunk 1) + …, then + bias, then y before + that, where there is a bias or y accumulates.
//
// W is packed by ops/weight_packing.h as [out / 16][in / 32][16][32], zeros in what is not whole.

namespace openlora::linear {

inline constexpr int kGroup = 32;        // columns
inline constexpr int kTileOuts = 16;     // M
inline constexpr int kTileRows = 8;      // N
inline constexpr int kChunkGroups = 16;  // 512 columns: one term of a sum
inline constexpr int kProductsMax = 3;

inline constexpr int kStreamWarps = 4;  // each has the chunks of its index modulo 4
inline constexpr int kStreamThreads = kStreamWarps * 32;
inline constexpr int kStreamTilesMax = 4;                        // of outputs, taken at once
inline constexpr int kStreamRowTiles = 4;                        // taken at once; as many as warps
inline constexpr int kStreamRows = kStreamRowTiles * kTileRows;  // more rows read W again, from L2
inline constexpr int kStreamBlocksOfSm = 2;                      // of 227 KiB on 9.0

inline constexpr int kGemmTiles = 8;      // 128 outputs of a block
inline constexpr int kGemmRowTiles = 16;  // 128 rows of a block
inline constexpr int kGemmRows = kGemmRowTiles * kTileRows;
inline constexpr int kGemmThreads = 256;
inline constexpr int kGemmBlocksOfSm = 1;

struct Product {
  const uint16_t* weight;  // packed
  const float* bias;       // [out] or null
  float* y;                // [T, out]
  int64_t y_stride;        // floats
  int32_t out;
  int32_t accumulates;  // 0: y is written only
};

struct Params {
  const uint16_t* x;    // [T, in] bf16 or f16, rows aligned to 16 bytes
  int64_t x_stride;     // elements, a multiple of 8
  const int32_t* rows;  // T; in device memory, so that a captured launch serves any batch
  int32_t rows_max;     // T is at most this
  int32_t in;
  int32_t product_count;
  int32_t tiles_each;  // of Stream: 1 to kStreamTilesMax tiles of 16 outputs share one read of x
  Product products[kProductsMax];
};

inline constexpr int kStreamSharedBytes = 90'112;
inline constexpr int kGemmSharedBytes = 98'304;

}  // namespace openlora::linear

DEV_KERNEL(linear, StreamBF16, Params)
DEV_KERNEL(linear, StreamF16, Params)
DEV_KERNEL(linear, GemmBF16, Params)
DEV_KERNEL(linear, GemmF16, Params)
