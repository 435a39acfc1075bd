#include "ops/cpu/lora_plan.h"

#include <algorithm>

#include "ops/cpu/layout.h"

namespace openlora {

void LoraPlan::Build(const EntriesView* entries, const AdapterPages* pages, const int32_t* sites, int32_t products,
                     int64_t in, OpCounters* counters) {
  jobs.clear();
  cost = partial_floats = coefficient_floats = 0;
  chunks = 0;
  if (entries == nullptr || pages == nullptr) return;
  chunks = DivideUp(in, ShrinkChunk(pages->dtype));
  for (int32_t segment = 0; segment < entries->segments; ++segment) {
    const int32_t begin = entries->segment_start[segment], end = entries->segment_start[segment + 1];
    if (begin == end) continue;
    const SlotPages& slot = pages->slots[entries->segment_slot[segment]];
    for (int32_t product = 0; product < products; ++product) {
      if (sites[product] < 0) continue;
      const SitePages& site = slot.sites[sites[product]];
      ++counters->page_table_reads;
      if (site.rank == 0) continue;
      ++counters->lora_ops;
      LoraJob job;
      job.product = product;
      job.entry_begin = begin;
      job.entries = end - begin;
      job.rank = site.rank;
      job.scale = site.scale;
      job.a = slot.tiles + site.a;
      job.b = slot.tiles + site.b;
      const int64_t pieces = DivideUp(job.entries, kUnitEntries);
      job.units = job.eights() * chunks * pieces;
      job.unit_cost = 4 + std::min(job.entries, kUnitEntries);  // reading a tile costs about as much as four rows
      job.cost_before = cost;
      job.partial_begin = partial_floats;
      job.coefficients_begin = coefficient_floats;
      cost += job.units * job.unit_cost;
      partial_floats += job.eights() * chunks * job.entries * kTileRanks;
      coefficient_floats += job.entries * job.rank_stride();
      jobs.push_back(job);
    }
  }
}

int64_t SiteTileBytes(const Ops& ops, const AdapterPages& pages, int32_t rank, int64_t columns) {
  const auto row_of_tiles = [&](int32_t ranks) {
    const int64_t whole = columns / pages.tile_columns;
    const int32_t rest = static_cast<int32_t>(columns % pages.tile_columns);
    return whole * ops.TileBytes(pages.dtype, ranks, pages.tile_columns) +
           (rest != 0 ? ops.TileBytes(pages.dtype, ranks, rest) : 0);
  };
  return rank / kTileRanks * row_of_tiles(kTileRanks) + (rank % kTileRanks != 0 ? row_of_tiles(rank % kTileRanks) : 0);
}

}  // namespace openlora
