#include "ops/reference/reference_lora.h"

#include <algorithm>

namespace openlora::reference {

int64_t TileBytes(DType dtype, int32_t ranks, int32_t columns) {
  const int64_t bytes = int64_t{ranks} * columns * static_cast<int64_t>(SizeOf(dtype));
  return (bytes + kTileUnitBytes - 1) / kTileUnitBytes * kTileUnitBytes;
}

std::vector<double> GatherTiles(const AdapterPages& pages, const SlotPages& slot, uint32_t first, int32_t rank,
                                int64_t columns, uint64_t* bytes_read) {
  std::vector<double> matrix(rank * columns);
  uint32_t index = first;
  for (int32_t rank_begin = 0; rank_begin < rank; rank_begin += kTileRanks) {
    const int32_t tile_ranks = std::min(kTileRanks, rank - rank_begin);
    for (int64_t begin = 0; begin < columns; begin += pages.tile_columns, ++index) {
      const int32_t tile_columns = static_cast<int32_t>(std::min<int64_t>(pages.tile_columns, columns - begin));
      const uint8_t* tile = pages.pool + int64_t{slot.tiles[index]} * kTileUnitBytes;
      *bytes_read += TileBytes(pages.dtype, tile_ranks, tile_columns);
      for (int32_t r = 0; r < tile_ranks; ++r)
        for (int32_t c = 0; c < tile_columns; ++c)
          matrix[(rank_begin + r) * columns + begin + c] =
              LoadAsFloat(tile, pages.dtype, int64_t{r} * tile_columns + c);
    }
  }
  return matrix;
}

}  // namespace openlora::reference
