#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cases/lora_data.h"
#include "cuda/sim_buffer.h"
#include "kernels/lora.h"
#include "memory/tile_layout.h"
#include "ops/tile_packing.h"

namespace openlora {

// Adapters in device memory as the kernels want them, in bf16 or f16: frames in a random order, every second of them
// nobody's, slots in a random order. Kernels may touch no frame that holds no adapter, no page table beyond its end.
class SimLoraPool {
 public:
  SimLoraPool(TestMachine& machine, const std::vector<SiteShape>& sites, const cases::AdapterValues& values,
              DType dtype, int32_t tile_columns, uint64_t seed)
      : dtype_(dtype),
        frame_bytes_(std::max<int64_t>(TileBytes(DType::kBF16, kTileRanks, tile_columns), kFrameBytesMin)) {
    cases::Random random(seed);
    for (const auto& of_adapter : values) Plan(sites, of_adapter);
    size_t frames = 1;
    for (const TileLayout& layout : layouts_) frames += 2 * static_cast<size_t>(layout.frames);
    pool_ = std::make_unique<SimBuffer<uint8_t>>(machine, "pool", frames * static_cast<size_t>(frame_bytes_));
    std::vector<uint32_t> places(frames);
    std::iota(places.begin(), places.end(), 0u);
    random.Shuffle(places);
    for (size_t i = 0; i < layouts_.size(); ++i) slot_of_.push_back(static_cast<int32_t>(i));
    random.Shuffle(slot_of_);
    std::vector<lora::Slot> slots(layouts_.size());
    auto next = places.begin();
    for (size_t adapter = 0; adapter < layouts_.size(); ++adapter) {
      const TileLayout& layout = layouts_[adapter];
      const std::vector<uint32_t> own(next, next + layout.frames);
      next += layout.frames;
      Fill(layout, own, sites, values[adapter]);
      slots[static_cast<size_t>(slot_of_[adapter])] = TablesOf(machine, layout, own);
    }
    machine.SetReadOnly(pool_->data(), true);
    for (; next != places.end(); ++next)
      machine.SetForbidden(pool_->data() + *next * frame_bytes_, static_cast<size_t>(frame_bytes_), true);
    slots_ = std::make_unique<SimBuffer<lora::Slot>>(machine, "slots", slots);
  }

  const uint8_t* pool() const { return pool_->data(); }
  const lora::Slot* slots() const { return slots_->data(); }
  int64_t frame_bytes() const { return frame_bytes_; }
  int32_t SlotOf(int32_t adapter) const { return slot_of_[static_cast<size_t>(adapter)]; }

 private:
  static constexpr int64_t kFrameBytesMin = 4096;
  static_assert(sizeof(lora::Site) == sizeof(SitePages) && sizeof(lora::Run) == sizeof(TileRun));

  void Plan(const std::vector<SiteShape>& sites, const std::vector<cases::SiteValues>& values) {
    AdapterManifest manifest;
    for (size_t site = 0; site < sites.size(); ++site)
      if (values[site].rank > 0)
        manifest.sites.push_back({static_cast<int32_t>(site), values[site].rank, values[site].scale, {}, {}});
    layouts_.push_back(PlanTiles(manifest, sites, {nullptr, dtype_, frame_bytes_}));
  }

  void Fill(const TileLayout& layout, const std::vector<uint32_t>& frames, const std::vector<SiteShape>& sites,
            const std::vector<cases::SiteValues>& values) {
    for (size_t site = 0; site < sites.size(); ++site)
      for (int32_t rank = 0; rank < values[site].rank; rank += kTileRanks)
        for (const bool is_a : {true, false}) {
          const auto& v = values[site];
          const uint32_t first = is_a ? layout.sites[site].a : layout.sites[site].b;
          const int32_t ranks = std::min(kTileRanks, v.rank - rank);
          const int64_t columns = is_a ? sites[site].in : sites[site].out;
          FillRun(layout.runs[first + static_cast<uint32_t>(rank / kTileRanks)], frames, columns, ranks,
                  is_a ? &v.a[static_cast<size_t>(rank * columns)] : &v.b[static_cast<size_t>(rank)],
                  is_a ? columns : 1, is_a ? 1 : v.rank);
        }
  }

  void FillRun(const TileRun& run, const std::vector<uint32_t>& frames, int64_t columns, int32_t ranks,
               const float* values, int64_t rank_step, int64_t column_step) {
    for (int64_t begin = 0, end = 0; begin < columns; begin = end) {
      const TilePlace place = TileAt(run, begin);
      end = std::min(columns, place.column_end);
      uint8_t* const tile = pool_->data() + frames[static_cast<size_t>(place.frame)] * frame_bytes_ + place.offset;
      PackCudaTile(values + begin * column_step, rank_step, column_step, ranks, static_cast<int32_t>(end - begin),
                   dtype_, reinterpret_cast<uint16_t*>(tile));
    }
  }

  lora::Slot TablesOf(TestMachine& machine, const TileLayout& layout, const std::vector<uint32_t>& frames) {
    std::vector<lora::Site> sites(layout.sites.size());
    std::vector<lora::Run> runs(layout.runs.size());
    if (!sites.empty()) std::memcpy(sites.data(), layout.sites.data(), sites.size() * sizeof(lora::Site));
    if (!runs.empty()) std::memcpy(runs.data(), layout.runs.data(), runs.size() * sizeof(lora::Run));
    tables_.push_back({std::make_unique<SimBuffer<lora::Site>>(machine, "sites", sites),
                       std::make_unique<SimBuffer<lora::Run>>(machine, "runs", runs),
                       std::make_unique<SimBuffer<uint32_t>>(machine, "frames", frames)});
    const Tables& t = tables_.back();
    return {t.sites->data(), t.runs->data(), t.frames->data()};
  }

  struct Tables {
    std::unique_ptr<SimBuffer<lora::Site>> sites;
    std::unique_ptr<SimBuffer<lora::Run>> runs;
    std::unique_ptr<SimBuffer<uint32_t>> frames;
  };
  DType dtype_;
  int64_t frame_bytes_;
  std::vector<TileLayout> layouts_;  // by adapter
  std::vector<int32_t> slot_of_;     // likewise
  std::vector<Tables> tables_;
  std::unique_ptr<SimBuffer<uint8_t>> pool_;
  std::unique_ptr<SimBuffer<lora::Slot>> slots_;
};

// The entries of some rows in device memory, in segments of one slot each, as the engine's batch has them.
class SimEntries {
 public:
  SimEntries(TestMachine& machine, const SimLoraPool& pool, const cases::Assignment& assignment,
             const std::vector<int32_t>& rows) {
    struct Entry {
      int32_t row;
      cases::RowAdapter use;
    };
    std::map<int32_t, std::vector<Entry>> segments;
    for (size_t i = 0; i < rows.size(); ++i)
      for (const cases::RowAdapter& use : assignment[static_cast<size_t>(rows[i])])
        segments[pool.SlotOf(use.adapter)].push_back({static_cast<int32_t>(i), use});
    std::vector<int32_t> starts = {0}, slots;
    std::vector<float> weights;
    for (const auto& [slot, entries] : segments) {
      slots.push_back(slot);
      for (const Entry& entry : entries) {
        rows_.push_back(entry.row);
        adapters_.push_back(entry.use.adapter);
        weights.push_back(entry.use.weight);
      }
      starts.push_back(static_cast<int32_t>(rows_.size()));
    }
    count_ = std::make_unique<SimBuffer<int32_t>>(machine, "segment count",
                                                  std::vector<int32_t>{static_cast<int32_t>(slots.size())});
    start_ = std::make_unique<SimBuffer<int32_t>>(machine, "segment starts", starts);
    slot_ = std::make_unique<SimBuffer<int32_t>>(machine, "segment slots", slots);
    row_ = std::make_unique<SimBuffer<int32_t>>(machine, "entry rows", rows_);
    weight_ = std::make_unique<SimBuffer<float>>(machine, "entry weights", weights);
  }

  // By entry: its row, counted within `rows`, and its adapter.
  const std::vector<int32_t>& rows() const { return rows_; }
  const std::vector<int32_t>& adapters() const { return adapters_; }

  // Where a launch finds them, and their adapters.
  void SetIn(const SimLoraPool& pool, lora::Params* params) const {
    params->pool = pool.pool();
    params->frame_bytes = pool.frame_bytes();
    params->slots = pool.slots();
    params->segment_count = count_->data();
    params->segment_start = start_->data();
    params->segment_slot = slot_->data();
    params->entry_row = row_->data();
    params->entry_weight = weight_->data();
    params->entries_max = static_cast<int32_t>(rows_.size());
  }

 private:
  std::vector<int32_t> rows_, adapters_;
  std::unique_ptr<SimBuffer<int32_t>> count_, start_, slot_, row_;
  std::unique_ptr<SimBuffer<float>> weight_;
};

}  // namespace openlora
