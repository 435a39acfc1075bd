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

// Reads the adapter's files and writes its tiles into `frames`. Any thread: the frames are reserved and nobody reads
// them yet. ERR_ADAPTER_CHANGED if a file is no longer what was checked.
Status FillTiles(const AdapterManifest& manifest, const AdapterIdentity& identity, const TileLayout& layout,
                 const std::vector<uint32_t>& frames, const TileFormat& format, const FramePool& pool, Device* device,
                 const std::atomic<bool>& is_cancelled);

}  // namespace openlora
