#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "base/check.h"
#include "cases/adapter_mix.h"
#include "memory/tile_layout.h"
#include "ops/int8_adapter.h"
#include "ops/ops.h"

namespace openlora::cases {

// One adapter on one site, values as stored.
struct SiteValues {
  int32_t rank = 0;      // 0: doesn't act
  std::vector<float> a;  // [rank, in]
  std::vector<float> b;  // [out, rank]
  float scale = 1;
};

// values[adapter][site]
using AdapterValues = std::vector<std::vector<SiteValues>>;

// Makes values of [rank, columns] such that int8 holds them exactly: in each 32 columns of a rank codes, one of them
// ±127, times a bf16 scale; or zeros alone. Element (r, c) goes to values[r * rank_step + c * column_step].
inline void RoundToInt8(Random& random, std::vector<float>& values, int32_t rank, int64_t columns, int64_t rank_step,
                        int64_t column_step) {
  for (int32_t r = 0; r < rank; ++r)
    for (int64_t begin = 0; begin < columns; begin += kInt8AdapterGroup) {
      const int64_t end = std::min<int64_t>(columns, begin + kInt8AdapterGroup);
      const auto at = [&](int64_t c) -> float& { return values[r * rank_step + c * column_step]; };
      float largest = 0;
      for (int64_t c = begin; c < end; ++c) largest = std::max(largest, std::abs(at(c)));
      const bool is_zero = random.Below(8) == 0;
      const float scale = is_zero ? 0 : BF16ToFloat(FloatToBF16(largest / 127));
      for (int64_t c = begin; c < end; ++c) {
        const float code =
            std::abs(at(c)) == largest ? std::copysign(127.0f, at(c)) : std::trunc(at(c) / largest * 126);
        at(c) = code * scale;
      }
    }
}

inline SiteValues RandomSite(Random& random, SiteShape shape, int32_t rank, DType dtype) {
  if (dtype == DType::kI8) {
    SiteValues site = RandomSite(random, shape, rank, DType::kF32);
    RoundToInt8(random, site.a, rank, shape.in, shape.in, 1);
    RoundToInt8(random, site.b, rank, shape.out, 1, rank);
    return site;
  }
  return {rank, RandomValues(random, rank * shape.in, dtype), RandomValues(random, rank * shape.out, dtype, 0.25f),
          RandomValues(random, 1, DType::kF32, 2)[0]};
}

// Resident adapters as one Ops wants them: frames of `tile_columns` columns of eight ranks at shuffled places of a
// pool, slots in shuffled order, NaN between.
class LoraPool {
 public:
  LoraPool(const Ops& ops, const std::vector<SiteShape>& sites, const AdapterValues& values, DType dtype,
           int32_t tile_columns, uint64_t seed)
      : dtype_(dtype), frame_bytes_(TileBytes(dtype, kTileRanks, tile_columns)) {
    Random random(seed);
    const int32_t adapters = static_cast<int32_t>(values.size());
    slot_of_adapter_.resize(2 * adapters + 1);  // more slots than adapters: the others are empty
    std::iota(slot_of_adapter_.begin(), slot_of_adapter_.end(), 0);
    random.Shuffle(slot_of_adapter_);
    slots_.resize(slot_of_adapter_.size());
    sites_.assign(slots_.size(), std::vector<SitePages>(sites.size()));
    layouts_.resize(slots_.size());
    frames_.resize(slots_.size());

    for (int32_t adapter = 0; adapter < adapters; ++adapter) Plan(ops, adapter, sites, values[adapter]);
    PlaceFrames(random);
    for (int32_t adapter = 0; adapter < adapters; ++adapter)
      for (size_t site = 0; site < sites.size(); ++site)
        Pack(ops, adapter, static_cast<int32_t>(site), sites[site], values[adapter][site]);
    pages_ = {pool_.data(), slots_.data(), dtype, frame_bytes_};
  }
  LoraPool(const LoraPool&) = delete;  // pages_ points into it
  LoraPool& operator=(const LoraPool&) = delete;

  const AdapterPages& pages() const { return pages_; }
  int32_t SlotOf(int32_t adapter) const { return slot_of_adapter_[adapter]; }
  // Bytes of the tiles of one adapter on one site.
  int64_t BytesOf(int32_t adapter, int32_t site) const {
    const auto found = bytes_.find({adapter, site});
    return found == bytes_.end() ? 0 : found->second;
  }

  // Nothing was written beside the tiles.
  bool IsIntact() const {
    for (size_t i = 0; i < pool_.size(); ++i)
      if (!is_tile_[i] && pool_.data()[i] != kPoison) return false;
    return pool_.IsIntact();
  }

 private:
  void Plan(const Ops& ops, int32_t adapter, const std::vector<SiteShape>& sites,
            const std::vector<SiteValues>& values) {
    AdapterManifest manifest;
    for (size_t site = 0; site < sites.size(); ++site)
      if (values[site].rank > 0)
        manifest.sites.push_back({static_cast<int32_t>(site), values[site].rank, values[site].scale, {}, {}});
    layouts_[SlotOf(adapter)] = PlanTiles(manifest, sites, {&ops, dtype_, frame_bytes_});
  }

  // In a random order; every eighth frame is nobody's.
  void PlaceFrames(Random& random) {
    size_t count = 1;
    for (const TileLayout& layout : layouts_) count += static_cast<size_t>(layout.frames);
    count += count / 8;
    std::vector<uint32_t> places(count);
    std::iota(places.begin(), places.end(), 0u);
    random.Shuffle(places);
    auto next = places.begin();
    for (size_t slot = 0; slot < slots_.size(); ++slot) {
      frames_[slot].assign(next, next + layouts_[slot].frames);
      next += layouts_[slot].frames;
      const bool is_empty = layouts_[slot].sites.empty();
      slots_[slot] = {is_empty ? sites_[slot].data() : layouts_[slot].sites.data(), layouts_[slot].runs.data(),
                      frames_[slot].data()};
    }
    pool_ = GuardedBytes(count * static_cast<size_t>(frame_bytes_));
    is_tile_.resize(pool_.size());
  }

  void Pack(const Ops& ops, int32_t adapter, int32_t site, SiteShape shape, const SiteValues& values) {
    const TileLayout& layout = layouts_[SlotOf(adapter)];
    for (int32_t rank = 0; rank < values.rank; rank += kTileRanks)
      for (const bool is_a : {true, false}) {
        const uint32_t first = is_a ? layout.sites[site].a : layout.sites[site].b;
        const TileRun& run = layout.runs[first + rank / kTileRanks];
        const int32_t ranks = std::min(kTileRanks, values.rank - rank);
        const int64_t columns = is_a ? shape.in : shape.out;
        for (int64_t begin = 0, end = 0; begin < columns; begin = end) {
          const TilePlace place = TileAt(run, begin);
          end = std::min(columns, place.column_end);
          const auto width = static_cast<int32_t>(end - begin);
          const size_t at = frames_[SlotOf(adapter)][place.frame] * frame_bytes_ + place.offset;
          if (is_a) {
            ops.PackTileA(&values.a[rank * columns + begin], columns, ranks, width, dtype_, pool_.data() + at);
          } else {
            ops.PackTileB(&values.b[begin * values.rank + rank], values.rank, ranks, width, dtype_, pool_.data() + at);
          }
          const int64_t bytes = TileBytes(dtype_, ranks, width);
          std::fill_n(is_tile_.begin() + static_cast<int64_t>(at), bytes, true);
          bytes_[{adapter, site}] += bytes;
        }
      }
  }

  DType dtype_;
  int64_t frame_bytes_;
  std::vector<int32_t> slot_of_adapter_;
  std::vector<SlotPages> slots_;
  std::vector<std::vector<SitePages>> sites_;  // [slot][site], of slots without an adapter
  std::vector<TileLayout> layouts_;            // by slot
  std::vector<std::vector<uint32_t>> frames_;  // [slot]
  std::vector<bool> is_tile_;
  std::map<std::pair<int32_t, int32_t>, int64_t> bytes_;
  GuardedBytes pool_;
  AdapterPages pages_;
};

// The entries of rows [row_begin, row_end), grouped by (place in the list of the row, slot).
class EntryList {
 public:
  EntryList(const Assignment& assignment, int32_t row_begin, int32_t row_end, const LoraPool& pool) {
    std::map<std::pair<size_t, int32_t>, std::vector<std::pair<int32_t, float>>> groups;
    for (int32_t row = row_begin; row < row_end; ++row)
      for (size_t place = 0; place < assignment[row].size(); ++place) {
        const RowAdapter& entry = assignment[row][place];
        groups[{place, pool.SlotOf(entry.adapter)}].push_back({row - row_begin, entry.weight});
      }
    for (const auto& [key, rows] : groups) {
      segment_slot_.push_back(key.second);
      for (const auto& [row, weight] : rows) {
        row_.push_back(row);
        weight_.push_back(weight);
      }
      segment_start_.push_back(static_cast<int32_t>(row_.size()));
    }
    view_ = {static_cast<int32_t>(row_.size()),          row_.data(),           weight_.data(),
             static_cast<int32_t>(segment_slot_.size()), segment_start_.data(), segment_slot_.data()};
  }
  EntryList(const EntryList&) = delete;
  EntryList& operator=(const EntryList&) = delete;

  const EntriesView& view() const { return view_; }

 private:
  std::vector<int32_t> row_, segment_start_ = {0}, segment_slot_;
  std::vector<float> weight_;
  EntriesView view_;
};

}  // namespace openlora::cases
