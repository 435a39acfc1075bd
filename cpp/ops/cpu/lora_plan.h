#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "ops/batch_view.h"
#include "ops/cpu/kernels.h"
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
  const TileRun* a = nullptr;  // [eights]
  const TileRun* b = nullptr;
  const uint32_t* frames = nullptr;  // of the adapter
  // Work of the shrink: a unit is (eight of ranks, chunk of columns, piece of the entries), pieces fastest.
  int64_t units = 0;
  int64_t unit_cost = 0;
  int64_t cost_before = 0;         // of the units of all jobs before
  int64_t partial_begin = 0;       // floats: [eights][chunks][entries][8]
  int64_t coefficients_begin = 0;  // floats: [entries][eights * 8]

  int64_t eights() const { return (rank + kTileRanks - 1) / kTileRanks; }
  int64_t rank_stride() const { return eights() * kTileRanks; }
  int32_t ranks_of(int64_t eight) const {
    return static_cast<int32_t>(std::min<int64_t>(kTileRanks, rank - eight * kTileRanks));
  }
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

// The parts of tiles that one member reads, in the order in which it does: kernels prefetch what comes after a part.
class TileOrder {
 public:
  void Clear() { parts_.clear(); }
  // The columns of the unit's chunk.
  void AddUnit(const LoraJob& job, const LoraUnit& unit, int64_t in, const AdapterPages& pages);
  // [eights] of the columns of the panels
  void AddExpand(const LoraJob& job, Piece panels, int64_t out, const AdapterPages& pages);
  // Parts may be cut, so that what lies ahead of each stands together.
  const TileSpan* Finish();

 private:
  struct Part {
    const uint8_t* data;
    int64_t columns;
    int64_t bytes;
    int64_t group_bytes;  // of kTileGroup columns
  };
  void Add(const LoraJob& job, const TileRun& run, int32_t ranks, Piece columns, const AdapterPages& pages);

  std::vector<Part> parts_;
  std::vector<TileSpan> spans_;
};

// Behind the first `columns` columns.
inline const TileSpan* SkipColumns(const TileSpan* spans, int64_t columns) {
  for (; columns > 0; ++spans) columns -= spans->columns;
  return spans;
}

// Bytes of all tiles of a [rank, columns] matrix of a site.
int64_t SiteTileBytes(const AdapterPages& pages, int32_t rank, int64_t columns);

}  // namespace openlora
