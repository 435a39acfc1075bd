#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <memory>
#include <queue>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "memory/eviction_plan.h"
#include "memory/kv_cache.h"
#include "ops/cpu/cpu_device.h"

namespace openlora {

// A pool in which adapters and prefixes push each other out, one request at a time.
class EvictionCache {
 public:
  static constexpr int32_t kBlock = 4;  // tokens; a block is one frame

  EvictionCache(int64_t frames, size_t adapters, double block_cost) {
    OPENLORA_CHECK(pool_.Open(&device_, 64, 0, frames, false).ok());
    index_ = std::make_unique<PrefixIndex>(&pool_, &order_, 1, kBlock, block_cost);
    kv_ = std::make_unique<KvCache>(&pool_, 1, kBlock, index_.get());
    adapters_.resize(adapters);
    for (Adapter& adapter : adapters_) {
      adapter.eviction.adapter = &adapter;
      adapter.state = AdapterState::kRegistered;
    }
  }

  // Whether it was there.
  bool UseAdapter(size_t id, int64_t frames) {
    Adapter& adapter = adapters_[id];
    const bool is_there = adapter.state == AdapterState::kResident;
    if (!is_there) {
      MakeRoom(frames, {});
      OPENLORA_CHECK(pool_.Take(frames, FrameUse::kAdapter, &adapter.frames));
      order_.Enter(&adapter.eviction, order_.WentLately(adapter.eviction));
      adapter.layout.frames = frames;
      adapter.state = AdapterState::kResident;
    }
    order_.Use(&adapter.eviction);
    if (!adapter.eviction.is_listed) order_.Add(&adapter.eviction);
    return is_there;
  }

  // Tokens of it that were there.
  int32_t UsePrompt(std::span<const int32_t> tokens) {
    KvTable table;
    const PrefixHit hit = kv_->Find(table, "", tokens);
    MakeRoom(kv_->FramesFor(static_cast<int64_t>(tokens.size())) - kv_->FramesOf(hit), hit);
    kv_->Attach(&table, hit, true, 0);
    OPENLORA_CHECK(kv_->Extend(&table, static_cast<int64_t>(tokens.size())));
    kv_->Publish(&table, "", tokens, 0);
    kv_->Release(&table, 0);
    pool_.Reclaim(0);
    return hit.blocks * kBlock;
  }

 private:
  void MakeRoom(int64_t frames, const PrefixHit& kept) {
    EvictionPlan plan(&order_, pool_.frames(FrameUse::kPrefix), 1);
    plan.Keep(kept.tail);
    std::vector<Adapter*> adapters;
    std::vector<PrefixBlock*> blocks;
    for (int64_t free = pool_.frames_free(); free < frames;) free += plan.EvictOne(&adapters, &blocks);
    for (Adapter* adapter : adapters) {
      pool_.Retire(adapter->frames, FrameUse::kAdapter, 0);
      adapter->frames.clear();
      adapter->state = AdapterState::kRegistered;
      order_.Leave(&adapter->eviction);
    }
    for (PrefixBlock* block : blocks) index_->Drop(block, 0);
    pool_.Reclaim(0);
  }

  CpuDevice device_;
  FramePool pool_;
  EvictionOrder order_{&pool_};
  std::unique_ptr<PrefixIndex> index_;
  std::unique_ptr<KvCache> kv_;
  std::deque<Adapter> adapters_;
};

// The longest unused goes first, whatever it costs.
class LruCache {
 public:
  explicit LruCache(int64_t frames) : free_(frames) {}
  bool Use(uint64_t id, int64_t frames) {
    const auto found = places_.find(id);
    const bool is_there = found != places_.end();
    if (is_there) {
      free_ += found->second->second;
      line_.erase(found->second);
    }
    while (free_ < frames) {
      free_ += line_.back().second;
      places_.erase(line_.back().first);
      line_.pop_back();
    }
    free_ -= frames;
    line_.push_front({id, frames});
    places_[id] = line_.begin();
    return is_there;
  }

 private:
  int64_t free_;
  std::list<std::pair<uint64_t, int64_t>> line_;
  std::unordered_map<uint64_t, decltype(line_)::iterator> places_;
};

// Hits of whoever knows the future: what is used last of all goes first (Belady 1966). For objects of one size, of
// which `capacity` fit.
inline int64_t BeladyHits(const std::vector<size_t>& trace, size_t capacity) {
  constexpr size_t kNever = std::numeric_limits<size_t>::max();
  std::vector<size_t> next(trace.size());
  std::unordered_map<size_t, size_t> last;
  for (size_t i = trace.size(); i-- > 0;) {
    const auto found = last.find(trace[i]);
    next[i] = found == last.end() ? kNever : found->second;
    last[trace[i]] = i;
  }
  std::unordered_map<size_t, size_t> there;  // object, its next use
  std::priority_queue<std::pair<size_t, size_t>> latest;
  int64_t hits = 0;
  for (size_t i = 0; i < trace.size(); ++i) {
    const auto found = there.find(trace[i]);
    if (found != there.end()) {
      ++hits;
    } else if (there.size() == capacity) {
      while (there.count(latest.top().second) == 0 || there[latest.top().second] != latest.top().first) latest.pop();
      there.erase(latest.top().second);
      latest.pop();
    }
    there[trace[i]] = next[i];
    latest.push({next[i], trace[i]});
  }
  return hits;
}

}  // namespace openlora
