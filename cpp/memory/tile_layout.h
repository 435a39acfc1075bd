#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "memory/adapter_manifest.h"
#include "memory/frame_pool.h"
#include "ops/ops.h"

namespace openlora {

// What every adapter of an engine is laid out for.
struct TileFormat {
  const Ops* ops = nullptr;
  DType dtype = DType::kF32;
  int32_t tile_columns = 512;  // FrameTileColumns(…)
  int64_t frame_bytes = 0;
};

// The most columns that a tile may have of which kTileRanks ranks fit into a frame.
int32_t FrameTileColumns(const Ops& ops, DType dtype, int64_t frame_bytes);

// Where an adapter's tiles stand within its frames, which are its own: no tile crosses a frame's end.
struct TileLayout {
  struct Place {
    uint32_t frame = 0;  // index into the adapter's frames
    uint32_t unit = 0;   // within the frame, in kTileUnitBytes
  };
  std::vector<SitePages> sites;  // by site number
  std::vector<Place> places;     // by tile, in the order that SlotPages documents
  int64_t frames = 0;
  int64_t bytes = 0;  // of the tiles, rounded up to units
};

TileLayout PlanTiles(const AdapterManifest& manifest, const std::vector<SiteShape>& shapes, const TileFormat& format);

// Reads the adapter's files and writes its tiles into `frames`. Any thread: the frames are reserved and nobody reads
// them yet. ERR_ADAPTER_CHANGED if a file is no longer what was checked.
Status FillTiles(const AdapterManifest& manifest, const AdapterIdentity& identity, const TileLayout& layout,
                 const std::vector<uint32_t>& frames, const TileFormat& format, const FramePool& pool, Device* device,
                 const std::atomic<bool>& is_cancelled);

}  // namespace openlora
