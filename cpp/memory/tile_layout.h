#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "memory/adapter_manifest.h"
#include "memory/manifest_record.h"
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

// Takes a packed tile to its place. Tiles come in the order of TileLayout::places.
using TileSink = std::function<Status(TileLayout::Place place, const uint8_t* tile, size_t bytes)>;
// Asked before so many bytes are moved; may wait until others can bear it. False: give up.
using Pace = std::function<bool(int64_t bytes)>;

// Reads the adapter's files and gives its tiles to `sink`; `pace` is asked for each matrix. Any thread.
// ERR_ADAPTER_CHANGED if a file is no longer what was checked, ERR_ABORTED when told to give up.
Status FillTiles(const AdapterSource& source, const TileLayout& layout, const TileFormat& format, const TileSink& sink,
                 const Pace& pace);

}  // namespace openlora
