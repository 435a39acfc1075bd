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
      job.a = slot.runs + site.a;
      job.b = slot.runs + site.b;
      job.frames = slot.frames;
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

void TileOrder::Add(const LoraJob& job, const TileRun& run, int32_t ranks, Piece columns, const AdapterPages& pages) {
  const int64_t group_bytes = TileBytes(pages.dtype, ranks, kTileGroup);
  while (columns.begin < columns.end) {
    const TilePlace tile = TileAt(run, columns.begin);
    const int64_t count = std::min(tile.column_end, columns.end) - columns.begin;
    const uint8_t* const frame = pages.pool + job.frames[tile.frame] * pages.frame_bytes;
    const int64_t before = TileBytes(pages.dtype, ranks, columns.begin - tile.column_begin);
    parts_.push_back({frame + tile.offset + before, count, TileBytes(pages.dtype, ranks, count), group_bytes});
    columns.begin += count;
  }
}

void TileOrder::AddUnit(const LoraJob& job, const LoraUnit& unit, int64_t in, const AdapterPages& pages) {
  const int64_t chunk = ShrinkChunk(pages.dtype), begin = unit.chunk * chunk;
  Add(job, job.a[unit.eight], job.ranks_of(unit.eight), {begin, std::min(begin + chunk, in)}, pages);
}

void TileOrder::AddExpand(const LoraJob& job, Piece panels, int64_t out, const AdapterPages& pages) {
  const Piece columns = {panels.begin * kPanel, std::min(panels.end * kPanel, out)};
  for (int64_t eight = 0; eight < job.eights(); ++eight) Add(job, job.b[eight], job.ranks_of(eight), columns, pages);
}

const TileSpan* TileOrder::Finish() {
  constexpr int64_t kBytesAhead = 8192;  // less hides too little of the latency; no more was gained by 16 KB
  spans_.clear();
  size_t far = 0;  // the part that holds what is read kBytesAhead later
  int64_t at = 0, far_begin = 0;
  for (Part part : parts_) {
    while (part.columns > 0) {
      while (far < parts_.size() && far_begin + parts_[far].bytes <= at + kBytesAhead) far_begin += parts_[far++].bytes;
      if (far == parts_.size()) {  // nothing comes so far behind: what is read anyway
        spans_.push_back({part.data, part.data, part.columns});
        at += part.bytes;
        break;
      }
      const int64_t offset = at + kBytesAhead - far_begin;
      int64_t together = parts_[far].bytes - offset;
      for (size_t i = far; together < part.bytes && i + 1 < parts_.size(); ++i) {
        if (parts_[i].data + parts_[i].bytes != parts_[i + 1].data) break;
        together += parts_[i + 1].bytes;
      }
      const int64_t groups = std::max<int64_t>(1, together / part.group_bytes);
      const int64_t columns = together < part.bytes ? std::min(groups * kTileGroup, part.columns) : part.columns;
      spans_.push_back({part.data, parts_[far].data + offset, columns});
      const int64_t bytes = columns < part.columns ? groups * part.group_bytes : part.bytes;
      part = {part.data + bytes, part.columns - columns, part.bytes - bytes, part.group_bytes};
      at += bytes;
    }
  }
  return spans_.data();
}

int64_t SiteTileBytes(const AdapterPages& pages, int32_t rank, int64_t columns) {
  return rank / kTileRanks * TileBytes(pages.dtype, kTileRanks, columns) +
         TileBytes(pages.dtype, rank % kTileRanks, columns);
}

}  // namespace openlora
