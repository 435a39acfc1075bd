#include "sim/adapter_content.h"

#include <algorithm>
#include <cstring>

#include "sim/digest.h"
#include "sim/random.h"

namespace openlora::sim {
namespace {

uint64_t DeltaOf(uint64_t content, const AdapterSite& site, SiteShape shape) {
  uint64_t delta = DeltaSeed(site.rank, site.scale);
  const int64_t columns[] = {shape.in, shape.out};
  for (int matrix = 0; matrix < 2; ++matrix) {
    ForEachTileUnit(site.rank, columns[matrix], matrix, [&](uint32_t run, int32_t, int64_t column) {
      delta = Mix(delta, TileUnit(content, site.site, matrix, run, column));
    });
  }
  return delta;
}

}  // namespace

TileContent MakeContent(uint64_t digest, int32_t rank_max, const std::vector<SiteShape>& shapes) {
  TileContent content;
  content.digest = digest;
  content.deltas.resize(shapes.size());
  Random random(digest, 0);
  const double share = random.Uniform() * 0.4;
  for (size_t site = 0; site < shapes.size() && content.sites.size() < 6; ++site) {
    const bool is_needed = content.sites.empty() && site + 1 == shapes.size();
    if (shapes[site].in == 0 || !(random.Chance(share) || is_needed)) continue;
    const auto number = static_cast<int32_t>(site);
    content.sites.push_back({number, random.Range(1, rank_max), static_cast<float>(random.Range(1, 8)), {}, {}});
    content.deltas[site] = DeltaOf(digest, content.sites.back(), shapes[site]);
  }
  return content;
}

AdapterManifest ManifestOf(const TileContent& content, const std::string& name) {
  AdapterManifest manifest;
  manifest.files = {name};
  manifest.canonical_config = "{}";
  manifest.sites = content.sites;
  return manifest;
}

void FillFrames(const TileContent& content, const TileLayout& layout, const std::vector<uint32_t>& frames,
                const FramePool& pool, const std::vector<SiteShape>& shapes, size_t half) {
  const size_t runs = layout.runs.size(), begin = runs * half / 2, end = runs * (half + 1) / 2;
  for (const AdapterSite& site : content.sites) {
    const SitePages& pages = layout.sites[static_cast<size_t>(site.site)];
    const SiteShape& shape = shapes[static_cast<size_t>(site.site)];
    const std::pair<uint32_t, int64_t> matrices[] = {{pages.a, shape.in}, {pages.b, shape.out}};
    for (int matrix = 0; matrix < 2; ++matrix) {
      const auto [first, columns] = matrices[matrix];
      const auto fill = [&, first = first](uint32_t run, int32_t ranks, int64_t column) {
        if (first + run < begin || first + run >= end) return;
        const TilePlace place = TileAt(layout.runs[first + run], column);
        uint8_t* const frame = pool.Frame(frames[static_cast<size_t>(place.frame)]);
        const uint64_t value = TileUnit(content.digest, site.site, matrix, run, column);
        std::memcpy(frame + TileUnitOffset(place, ranks, matrix, column), &value, sizeof(value));
      };
      ForEachTileUnit(site.rank, columns, matrix, fill);
    }
  }
}

}  // namespace openlora::sim
