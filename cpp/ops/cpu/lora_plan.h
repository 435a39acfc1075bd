#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "ops/batch_view.h"
#include "ops/ops.h"

namespace openlora {

// What the adapters of a batch have to do at the sites of one Project: a job for each (segment, product) where the
// segment's adapter acts, segments in order.
struct LoraJob {
  int32_t product = 0;
  int32_t entry_begin = 0;
  int32_t entries = 0;
  int32_t rank = 0;
  float scale = 1;
  const uint32_t* a = nullptr;  // its tiles
  const uint32_t* b = nullptr;
  // Work of the shrink: a unit is (eight of ranks, chunk of columns, piece of the entries), pieces fastest.
  int64_t units = 0;
  int64_t unit_cost = 0;
  int64_t cost_before = 0;         // of the units of all jobs before
  int64_t partial_begin = 0;       // floats: [eights][chunks][entries][8]
  int64_t coefficients_begin = 0;  // floats: [entries][eights * 8]

  int64_t eights() const { return (rank + kTileRanks - 1) / kTileRanks; }
  int64_t rank_stride() const { return eights() * kTileRanks; }
};

struct LoraUnit {
  int64_t eight = 0;
  int64_t chunk = 0;
  int64_t piece = 0;
};

inline constexpr int32_t kUnitEntries = 64;  // entries of a unit, at most

struct LoraPlan {
  std::vector<LoraJob> jobs;
  int64_t chunks = 0;  // of `in`
  int64_t cost = 0;
  int64_t partial_floats = 0;
  int64_t coefficient_floats = 0;

  // `sites` of the products; in, and out of each product. Counts into `counters`.
  void Build(const EntriesView* entries, const AdapterPages* pages, const int32_t* sites, int32_t products, int64_t in,
             OpCounters* counters);
};

// The tiles that one member reads, in the order in which it does, so that kernels can prefetch what comes after a tile.
class TileOrder {
 public:
  void Clear() { tiles_.clear(); }
  void AddUnit(const LoraJob& job, const LoraUnit& unit, int64_t in, const AdapterPages& pages);
  // [eights][tiles that hold the panels]
  void AddExpand(const LoraJob& job, Piece panels, int64_t out, const AdapterPages& pages);
  // kTilesAhead more entries can be read.
  const uint32_t* Finish();
  static int64_t TilesOf(Piece panels, const AdapterPages& pages);  // in a row of tiles

 private:
  std::vector<uint32_t> tiles_;  // unit addresses
};

// Bytes of all tiles of a [rank, columns] matrix of a site.
int64_t SiteTileBytes(const Ops& ops, const AdapterPages& pages, int32_t rank, int64_t columns);

}  // namespace openlora
