#pragma once

// Where an adapter's values stand in the paged pool: for every kernel that reads them.

#include "device/device.cuh"
#include "kernels/lora.h"

namespace openlora::lora {

// The tile of a run that holds `column`.
struct Tile {
  const uint8_t* groups;  // of its first column on
  int32_t begin;          // that column
  int32_t end;
};
__device__ __forceinline__ Tile TileOf(const Params& params, const Slot& slot, uint32_t run_index, int column) {
  const Run run = slot.runs[run_index];
  Tile tile;
  int64_t frame = run.frame;
  tile.begin = 0;
  tile.end = run.columns_first;
  if (column >= run.columns_first) {
    const int index = (column - run.columns_first) / run.columns_each;
    frame += 1 + index;
    tile.begin = run.columns_first + index * run.columns_each;
    tile.end = tile.begin + run.columns_each;
  }
  tile.groups = params.pool + static_cast<int64_t>(slot.frames[frame]) * params.frame_bytes;
  if (column < run.columns_first) tile.groups += run.offset;
  return tile;
}
// A column of a rank of the tile's `ranks`; its group goes on behind it.
__device__ __forceinline__ const uint8_t* AddressIn(const Tile& tile, int ranks, int rank, int column) {
  const int inside = column - tile.begin;
  return tile.groups + (static_cast<int64_t>(inside / kGroup * ranks + rank) * kGroup + inside % kGroup) * 2;
}
// Bits of element (rank, column) of a site's A or B, [site_rank, columns], whose first run is `first`.
__device__ __forceinline__ uint16_t ElementOf(const Params& params, const Slot& slot, uint32_t first, int site_rank,
                                              int rank, int column) {
  const int ranks = dev::Min(kRunRanks, site_rank - rank / kRunRanks * kRunRanks);
  const Tile tile = TileOf(params, slot, first + static_cast<uint32_t>(rank / kRunRanks), column);
  return *reinterpret_cast<const uint16_t*>(AddressIn(tile, ranks, rank % kRunRanks, column));
}

}  // namespace openlora::lora
