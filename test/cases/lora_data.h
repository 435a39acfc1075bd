#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "base/check.h"
#include "cases/adapter_mix.h"
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

// Resident adapters as one Ops wants them: tiles at shuffled places of a pool, slots in shuffled order, NaN between.
class LoraPool {
 public:
  LoraPool(const Ops& ops, const std::vector<SiteShape>& sites, const AdapterValues& values, DType dtype,
           int32_t tile_columns, uint64_t seed)
      : dtype_(dtype), tile_columns_(tile_columns) {
    Random random(seed);
    const int32_t adapters = static_cast<int32_t>(values.size());
    slot_of_adapter_.resize(2 * adapters + 1);  // more slots than adapters: the others are empty
    std::iota(slot_of_adapter_.begin(), slot_of_adapter_.end(), 0);
    random.Shuffle(slot_of_adapter_);
    slots_.resize(slot_of_adapter_.size());
    sites_.assign(slots_.size(), std::vector<SitePages>(sites.size()));
    tiles_.resize(slots_.size());

    for (int32_t adapter = 0; adapter < adapters; ++adapter)
      for (size_t site = 0; site < sites.size(); ++site)
        ListTiles(ops, adapter, static_cast<int32_t>(site), sites[site], values[adapter][site]);
    Place(random);
    for (const Tile& tile : list_) Pack(ops, tile);
    for (size_t slot = 0; slot < slots_.size(); ++slot) slots_[slot] = {sites_[slot].data(), tiles_[slot].data()};
    pages_ = {pool_.data(), slots_.data(), dtype, tile_columns};
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
    std::vector<bool> is_tile(pool_.size());
    for (const Tile& tile : list_)
      for (int64_t i = 0; i < tile.bytes; ++i) is_tile[AddressOf(tile) + i] = true;
    for (size_t i = 0; i < pool_.size(); ++i)
      if (!is_tile[i] && pool_.data()[i] != kPoison) return false;
    return pool_.IsIntact();
  }

 private:
  struct Tile {
    int32_t slot;
    uint32_t index;  // into tiles_[slot]
    bool is_a;
    const float* values;
    int64_t stride;
    int32_t ranks, columns;
    int64_t bytes;
  };

  void ListTiles(const Ops& ops, int32_t adapter, int32_t site, SiteShape shape, const SiteValues& values) {
    if (values.rank == 0) return;
    const int32_t slot = slot_of_adapter_[adapter];
    SitePages& pages = sites_[slot][site];
    pages.rank = values.rank;
    pages.scale = values.scale;
    for (const bool is_a : {true, false}) {
      (is_a ? pages.a : pages.b) = static_cast<uint32_t>(tiles_[slot].size());
      const int64_t columns = is_a ? shape.in : shape.out;
      for (int32_t rank = 0; rank < values.rank; rank += kTileRanks)
        for (int64_t column = 0; column < columns; column += tile_columns_) {
          const int32_t ranks = std::min(kTileRanks, values.rank - rank);
          const int32_t width = static_cast<int32_t>(std::min<int64_t>(tile_columns_, columns - column));
          const float* from = is_a ? &values.a[rank * columns + column] : &values.b[column * values.rank + rank];
          const int64_t bytes = ops.TileBytes(dtype_, ranks, width);
          OPENLORA_CHECK(bytes > 0 && bytes % kTileUnitBytes == 0);
          list_.push_back({slot, static_cast<uint32_t>(tiles_[slot].size()), is_a, from, is_a ? columns : values.rank,
                           ranks, width, bytes});
          tiles_[slot].push_back(0);
          bytes_[{adapter, site}] += bytes;
        }
    }
  }

  // In a random order, a random gap of 0–3 units before each.
  void Place(Random& random) {
    std::vector<size_t> order(list_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    random.Shuffle(order);
    uint32_t unit = 0;
    for (const size_t i : order) {
      unit += random.Below(4);
      tiles_[list_[i].slot][list_[i].index] = unit;
      unit += static_cast<uint32_t>(list_[i].bytes / kTileUnitBytes);
    }
    pool_ = GuardedBytes((unit + 1) * static_cast<size_t>(kTileUnitBytes));
  }

  void Pack(const Ops& ops, const Tile& tile) {
    void* to = pool_.data() + AddressOf(tile);
    if (tile.is_a) {
      ops.PackTileA(tile.values, tile.stride, tile.ranks, tile.columns, dtype_, to);
    } else {
      ops.PackTileB(tile.values, tile.stride, tile.ranks, tile.columns, dtype_, to);
    }
  }

  size_t AddressOf(const Tile& tile) const { return tiles_[tile.slot][tile.index] * size_t{kTileUnitBytes}; }

  DType dtype_;
  int32_t tile_columns_;
  std::vector<int32_t> slot_of_adapter_;
  std::vector<SlotPages> slots_;
  std::vector<std::vector<SitePages>> sites_;  // [slot][site]
  std::vector<std::vector<uint32_t>> tiles_;   // [slot][tile]
  std::vector<Tile> list_;
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
