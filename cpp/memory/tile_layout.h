#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "memory/adapter_manifest.h"
#include "memory/manifest_record.h"
#include "memory/source_reader.h"
#include "ops/ops.h"

namespace openlora {

// What every adapter of an engine is laid out for.
struct TileFormat {
  const Ops* ops = nullptr;
  DType dtype = DType::kF32;
  int64_t frame_bytes = 0;
};

// Where an adapter's runs stand within its frames, which are its own: end to end, those of eight ranks first and then
// those of what remains of the sites' ranks. So a frame's groups are of one size, and only what is left of a frame by
// whole groups is lost: of eight ranks nothing, of int8 16 bytes in 4 KiB.
struct TileLayout {
  std::vector<SitePages> sites;  // by site number
  std::vector<TileRun> runs;     // by site, A before B, by eight
  int64_t frames = 0;
  int64_t bytes = 0;  // of the runs, in whole groups
};

TileLayout PlanTiles(const AdapterManifest& manifest, const std::vector<SiteShape>& shapes, const TileFormat& format);

// Of each site, the last part that holds something of it where every `frames_each` frames are one part; -1: the adapter
// doesn't act there.
std::vector<int32_t> PartsOfSites(const TileLayout& layout, const std::vector<SiteShape>& shapes, int64_t frames_each);

// Takes a packed tile to its place. What no tile takes of a frame is never given.
using TileSink = std::function<Status(const TilePlace& place, const uint8_t* tile, size_t bytes)>;

// Reads the adapter's files, in the order of their bytes, and gives its tiles to `sink`. Any thread. The tiles may be
// used when it has succeeded, not before: ERR_ADAPTER_CHANGED if what was read isn't what was checked, ERR_ABORTED when
// told to give up.
Status FillTiles(const AdapterSource& source, const TileLayout& layout, const TileFormat& format, const TileSink& sink,
                 const Pace& pace);

}  // namespace openlora
