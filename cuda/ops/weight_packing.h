#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/linear.h"
#include "tensor/dtype.h"

// What the host prepares for kernels/linear.h.

namespace openlora {

inline int64_t CudaWeightElements(int64_t out, int64_t in) {
  const int64_t tiles = (out + linear::kTileOuts - 1) / linear::kTileOuts;
  return tiles * linear::kTileOuts * ((in + linear::kGroup - 1) / linear::kGroup * linear::kGroup);
}

// Writes rows [0, rows) of `values` [rows, in] as outputs [out_begin, out_begin + rows) of a weight at `packed`:
// [out / 16][in / 32][16][32] bf16 or f16. `out_begin` is a multiple of 16; the columns that the last group lacks, and
// the outputs that the last tile of this call lacks, become zeros.
inline void PackCudaWeight(const float* values, int64_t rows, int64_t in, int64_t out_begin, DType dtype,
                           uint16_t* packed) {
  const int64_t groups = (in + linear::kGroup - 1) / linear::kGroup;
  const int64_t tile_elements = groups * linear::kTileOuts * linear::kGroup;
  for (int64_t first = 0; first < rows; first += linear::kTileOuts) {
    uint16_t* const tile = packed + (out_begin + first) / linear::kTileOuts * tile_elements;
    std::memset(tile, 0, static_cast<size_t>(tile_elements) * sizeof(uint16_t));
    for (int64_t o = 0; o < std::min<int64_t>(linear::kTileOuts, rows - first); ++o)
      for (int64_t c = 0; c < in; ++c) {
        const float value = values[(first + o) * in + c];
        tile[(c / linear::kGroup * linear::kTileOuts + o) * linear::kGroup + c % linear::kGroup] =
            dtype == DType::kF16 ? FloatToF16(value) : FloatToBF16(value);
      }
  }
}

// Params::tiles_each with which the fewest bytes, of weights and of x, reach the busiest of the multiprocessors.
// `rows` may be an estimate: results don't depend on it.
inline int32_t StreamTilesEach(const linear::Params& params, int32_t rows, int32_t multiprocessors) {
  const int64_t row_tiles = (rows + linear::kTileRows - 1) / linear::kTileRows;
  const int64_t row_blocks = (rows + linear::kStreamRows - 1) / linear::kStreamRows;
  int64_t least = INT64_MAX;
  int32_t best = 1;
  for (int32_t tiles = 1; tiles <= linear::kStreamTilesMax; ++tiles) {
    const int32_t outs = tiles * linear::kTileOuts;
    int64_t items = 0;
    for (int32_t p = 0; p < params.product_count; ++p) items += (params.products[p].out + outs - 1) / outs * row_blocks;
    const int64_t turns = (items + multiprocessors - 1) / multiprocessors;
    const int64_t pieces = turns * (2 * tiles + std::min<int64_t>(row_tiles, linear::kStreamRowTiles));
    if (pieces >= least) continue;
    least = pieces;
    best = tiles;
  }
  return best;
}

}  // namespace openlora
