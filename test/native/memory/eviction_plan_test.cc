#include "memory/eviction_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/prng.h"
#include "memory/kv_cache.h"
#include "ops/cpu/cpu_device.h"
#include "test_size.h"

namespace openlora {
namespace {

constexpr int32_t kLayers = 2;
constexpr int64_t kFrames = 400;

// A random state: sequences that hold chains, chains that nobody holds, adapters with pins and without.
class EvictionPlanTest : public testing::Test {
 protected:
  void Build(uint64_t seed) {
    const auto draw = [&](uint64_t below) { return Philox(seed, draws_++) % below; };
    ASSERT_TRUE(pool_.Open(&device_, 64, 0, kFrames, false).ok());
    index_ = std::make_unique<PrefixIndex>(&pool_, &order_, kLayers, 1, 1.0);
    kv_ = std::make_unique<KvCache>(&pool_, kLayers, 1, index_.get());
    for (int i = 0; i < 24; ++i) {
      std::vector<int32_t> tokens;
      for (uint64_t n = draw(7); n > 0; --n) tokens.push_back(static_cast<int32_t>(draw(2)));
      KvTable table;
      kv_->Attach(&table, kv_->Find(table, "", tokens), true, 0);
      ASSERT_TRUE(kv_->Extend(&table, static_cast<int64_t>(tokens.size())));
      kv_->Publish(&table, "", tokens, 0);
      if (draw(2) == 0) {
        kv_->Release(&table, 0);
      } else {
        tables_.push_back(table);
      }
    }
    for (int i = 0; i < 8; ++i) {
      Adapter& adapter = adapters_.emplace_back();
      adapter.eviction.adapter = &adapter;
      adapter.layout.frames = 1 + static_cast<int64_t>(draw(5));
      ASSERT_TRUE(pool_.Take(adapter.layout.frames, FrameUse::kAdapter, &adapter.frames));
      adapter.state = AdapterState::kResident;
      order_.Enter(&adapter.eviction, false);
      for (uint64_t uses = draw(4); uses > 0; --uses) order_.Use(&adapter.eviction);
      adapter.pins = static_cast<int32_t>(draw(3));
      if (adapter.pins == 0) order_.Add(&adapter.eviction);
    }
    for (KvTable& table : tables_) Collect(table.shared.tail);
    for (size_t i = 2; i < 4; ++i) {
      for (const Evictable* leaf : order_.lists()[i]) Collect(leaf->block);
    }
  }
  void Collect(PrefixBlock* tail) {
    for (; tail != nullptr && !tail->is_root(); tail = tail->parent) blocks_.insert(tail);
  }

  uint64_t draws_ = 0;
  CpuDevice device_;
  FramePool pool_;
  EvictionOrder order_{&pool_};
  std::unique_ptr<PrefixIndex> index_;
  std::unique_ptr<KvCache> kv_;
  std::vector<KvTable> tables_;
  std::deque<Adapter> adapters_;
  std::unordered_set<PrefixBlock*> blocks_;
};

class EvictionPlanSeedTest : public EvictionPlanTest, public testing::WithParamInterface<uint64_t> {};

// All that nobody wants goes and nothing else: children before parents, and as many frames as were promised.
TEST_P(EvictionPlanSeedTest, EvictsAllThatMayGoAndNothingElse) {
  const uint64_t seed = GetParam();
  Build(seed);
  const auto draw = [&](uint64_t below) { return Philox(seed, draws_++) % below; };
  EvictionPlan plan(&order_, pool_.frames(FrameUse::kPrefix), kLayers);
  std::unordered_map<const PrefixBlock*, int32_t> held, kept;
  for (PrefixBlock* block : blocks_) held[block] = block->references;
  std::unordered_map<const Adapter*, int32_t> pins;
  for (const Adapter& adapter : adapters_) pins[&adapter] = adapter.pins;
  std::unordered_set<const Adapter*> wanted;
  std::vector<Adapter*> evicted;
  std::vector<PrefixBlock*> dropped;
  std::vector<KvTable> left = tables_;
  std::vector<PrefixBlock*> hits;
  std::unordered_set<const PrefixBlock*> gone;
  const auto chain = [](PrefixBlock* tail, auto* counts, int32_t by) {
    for (; tail != nullptr && !tail->is_root(); tail = tail->parent) (*counts)[tail] += by;
  };
  const std::vector<PrefixBlock*> all(blocks_.begin(), blocks_.end());
  for (int act = 0; act < 30; ++act) {
    switch (draw(5)) {
      case 0:
        if (left.empty()) break;
        plan.LetGo(left.back().shared.tail);
        chain(left.back().shared.tail, &held, -1);
        left.pop_back();
        break;
      case 1: {
        PrefixBlock* tail = all.empty() ? nullptr : all[draw(all.size())];
        if (plan.IsDropped(tail)) break;
        plan.Keep(tail);
        chain(tail, &kept, 1);
        hits.push_back(tail);
        break;
      }
      case 2:
        if (hits.empty()) break;
        plan.Unkeep(hits.back());
        chain(hits.back(), &kept, -1);
        hits.pop_back();
        break;
      case 3: {
        Adapter* adapter = &adapters_[draw(adapters_.size())];
        if (pins[adapter] > 0 && draw(2) == 0) {
          plan.Unpin(adapter);
          --pins[adapter];
        } else if (!plan.IsEvicted(adapter)) {
          plan.Keep(adapter);
          wanted.insert(adapter);
        }
        break;
      }
      default:
        if (plan.frames_reachable() > 0) plan.EvictOne(&evicted, &dropped);
    }
  }
  int64_t may_go = 0;
  for (const Adapter& adapter : adapters_) {
    if (pins[&adapter] == 0 && !wanted.contains(&adapter) && !plan.IsEvicted(&adapter)) may_go += adapter.layout.frames;
  }
  for (const PrefixBlock* block : all) {
    if (held[block] == 0 && kept[block] == 0 && !plan.IsDropped(block)) may_go += kLayers;
  }
  ASSERT_EQ(plan.frames_reachable(), may_go);
  while (plan.frames_reachable() > 0) may_go -= plan.EvictOne(&evicted, &dropped);
  EXPECT_EQ(may_go, 0);
  for (const PrefixBlock* block : dropped) {
    EXPECT_TRUE(held[block] == 0 && kept[block] == 0);
    for (const auto& [tokens, child] : block->children) EXPECT_TRUE(gone.contains(child.get())) << "a parent first";
    EXPECT_TRUE(gone.insert(block).second) << "twice";
  }
  for (const Adapter* adapter : evicted) EXPECT_TRUE(pins[adapter] == 0 && !wanted.contains(adapter));
  EXPECT_EQ(std::unordered_set<const Adapter*>(evicted.begin(), evicted.end()).size(), evicted.size());
  // Booked, the index agrees.
  while (tables_.size() > left.size()) {
    kv_->Release(&tables_.back(), 0);
    tables_.pop_back();
  }
  for (PrefixBlock* block : dropped) index_->Drop(block, 0);
  std::unordered_map<const PrefixBlock*, int32_t> references;
  std::vector<uint32_t> frames;
  for (const KvTable& table : tables_) chain(table.shared.tail, &references, 1);
  EXPECT_TRUE(index_->IsConsistent(references, &frames));
  for (KvTable& table : tables_) kv_->Release(&table, 0);
}

TEST_P(EvictionPlanSeedTest, TheLeastWorthGoesFirst) {
  Build(GetParam());
  EvictionPlan plan(&order_, pool_.frames(FrameUse::kPrefix), kLayers);
  std::vector<Adapter*> evicted;
  std::vector<PrefixBlock*> dropped;
  std::vector<const Evictable*> line;
  std::unordered_set<const PrefixBlock*> gone;
  while (plan.frames_reachable() > 0) {
    const size_t adapters = evicted.size();
    plan.EvictOne(&evicted, &dropped);
    line.push_back(evicted.size() > adapters ? &evicted.back()->eviction : &dropped.back()->eviction);
    // Of those that could have gone instead, now that their children have, none is worth less.
    for (const Adapter& adapter : adapters_) {
      if (adapter.pins > 0 || plan.IsEvicted(&adapter)) continue;
      EXPECT_FALSE(order_.GoesBefore(adapter.eviction, *line.back()));
    }
    for (const PrefixBlock* block : blocks_) {
      const auto is_gone = [&](const auto& child) { return gone.contains(child.second.get()); };
      const bool is_leaf = std::all_of(block->children.begin(), block->children.end(), is_gone);
      if (block->references > 0 || plan.IsDropped(block) || !is_leaf) continue;
      EXPECT_FALSE(order_.GoesBefore(block->eviction, *line.back()));
    }
    if (line.back()->block != nullptr) gone.insert(line.back()->block);
  }
  for (KvTable& table : tables_) kv_->Release(&table, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, EvictionPlanSeedTest, testing::Range(uint64_t{0}, uint64_t{BySize(60u, 200u, 3000u)}));

}  // namespace
}  // namespace openlora
