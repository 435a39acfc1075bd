#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memory/adapter_residency.h"
#include "memory/frame_pool.h"
#include "model/model_config.h"

namespace openlora::sim {

// What one generation of an adapter holds: everything follows from `digest`.
struct TileContent {
  uint64_t digest = 0;
  std::vector<AdapterSite> sites;  // ascending
  std::vector<uint64_t> deltas;    // by site number, what SimOps must find; 0: doesn't act there
};

// 1 to 6 sites of ranks up to `rank_max`, a rank for each.
TileContent MakeContent(uint64_t digest, int32_t rank_max, const std::vector<SiteShape>& shapes);
// As registered under `name`, which stands for its path: generations of one name share it.
AdapterManifest ManifestOf(const TileContent& content, const std::string& name);
// Writes one half of its tiles, the first (0) or the second (1), into frames that are laid out so.
void FillFrames(const TileContent& content, const TileLayout& layout, const std::vector<uint32_t>& frames,
                const FramePool& pool, const std::vector<SiteShape>& shapes, size_t half);

}  // namespace openlora::sim
