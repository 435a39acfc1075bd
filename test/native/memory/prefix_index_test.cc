#include "memory/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/prng.h"
#include "memory/kv_cache.h"
#include "ops/cpu/cpu_device.h"
#include "test_size.h"

namespace openlora {
namespace {

constexpr int32_t kPrefixLayers = 2;
constexpr int32_t kPrefixBlock = 2;  // tokens

class PrefixIndexTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(pool_.Open(&device_, 64, 0, kFrames, false).ok()); }

  // A sequence that computes all of `tokens`, as far as it finds no blocks of them.
  KvTable Compute(const std::string& realm, const std::vector<int32_t>& tokens) {
    KvTable table;
    kv_.Attach(&table, kv_.Find(table, realm, tokens), true, step_);
    EXPECT_TRUE(kv_.Extend(&table, static_cast<int64_t>(tokens.size())));
    kv_.Publish(&table, realm, tokens, ++step_);
    pool_.Reclaim(step_);
    return table;
  }
  // Every frame has one owner and every block is counted for those that hold it.
  bool IsConsistent(const std::vector<const KvTable*>& tables) const {
    std::unordered_map<const PrefixBlock*, int32_t> references;
    std::vector<uint32_t> frames;
    for (const KvTable* table : tables) {
      for (const PrefixBlock* b = table->shared.tail; b != nullptr && !b->is_root(); b = b->parent) ++references[b];
      frames.insert(frames.end(), table->frames.begin() + kv_.FramesOf(table->shared), table->frames.end());
    }
    if (!index_.IsConsistent(references, &frames) || !pool_.IsConsistent()) return false;
    std::sort(frames.begin(), frames.end());
    return std::adjacent_find(frames.begin(), frames.end()) == frames.end() &&
           static_cast<int64_t>(frames.size()) + pool_.frames_free() + pool_.frames(FrameUse::kRetiring) == kFrames;
  }
  int32_t Found(const std::string& realm, const std::vector<int32_t>& tokens) const {
    return kv_.Find({}, realm, tokens).blocks;
  }

  static constexpr int64_t kFrames = 240;
  CpuDevice device_;
  FramePool pool_;
  EvictionOrder order_{&pool_};
  PrefixIndex index_{&pool_, &order_, kPrefixLayers, kPrefixBlock, 0};
  KvCache kv_{&pool_, kPrefixLayers, kPrefixBlock, &index_};
  uint64_t step_ = 0;
};

TEST_F(PrefixIndexTest, FindsWhatIsEqualInRealmAndEveryTokenFromTheFirstOn) {
  KvTable table = Compute("a", {1, 2, 3, 4, 5});
  EXPECT_EQ(table.shared.blocks, 2);
  EXPECT_EQ(Found("a", {1, 2, 3, 4, 5, 6}), 2);
  EXPECT_EQ(Found("a", {1, 2, 3, 5}), 1);
  EXPECT_EQ(Found("a", {1, 2, 3}), 1);
  EXPECT_EQ(Found("a", {1}), 0);
  EXPECT_EQ(Found("a", {3, 4}), 0) << "a block has its place in the chain";
  EXPECT_EQ(Found("b", {1, 2}), 0);
  EXPECT_EQ(Found("", {1, 2}), 0);
  kv_.Release(&table, step_);
  EXPECT_EQ(Found("a", {1, 2, 3, 4}), 2);
}

TEST_F(PrefixIndexTest, FramesAreTheSequencesWhileAnyHoldsThemAndTheIndexsAfterwards) {
  KvTable one = Compute("a", {1, 2, 3, 4}), two = Compute("a", {1, 2, 5, 6});
  EXPECT_EQ(pool_.frames(FrameUse::kKv), 3 * kPrefixLayers);
  EXPECT_TRUE(std::equal(one.frames.begin(), one.frames.begin() + kPrefixLayers, two.frames.begin()));
  EXPECT_TRUE(IsConsistent({&one, &two}));
  kv_.Release(&one, step_);
  EXPECT_EQ(pool_.frames(FrameUse::kKv), 2 * kPrefixLayers);
  EXPECT_EQ(pool_.frames(FrameUse::kPrefix), kPrefixLayers);
  kv_.Release(&two, step_);
  EXPECT_EQ(pool_.frames(FrameUse::kPrefix), 3 * kPrefixLayers);
  EXPECT_TRUE(IsConsistent({}));
}

TEST_F(PrefixIndexTest, ABlockComputedTwiceIsKeptOnce) {
  KvTable one, two;
  const std::vector<int32_t> tokens = {1, 2, 3};
  ASSERT_TRUE(kv_.Extend(&one, 3) && kv_.Extend(&two, 3));
  const std::vector<uint32_t> frames = one.frames;
  kv_.Publish(&one, "a", tokens, 1);
  kv_.Publish(&two, "a", tokens, 1);
  EXPECT_EQ(one.frames, frames);
  EXPECT_TRUE(std::equal(frames.begin(), frames.begin() + kPrefixLayers, two.frames.begin()));
  EXPECT_NE(one.frames[kPrefixLayers], two.frames[kPrefixLayers]) << "the block that isn't full is each one's own";
  EXPECT_EQ(pool_.frames(FrameUse::kRetiring), kPrefixLayers);
  EXPECT_EQ(pool_.frames(FrameUse::kKv), 3 * kPrefixLayers);
  EXPECT_TRUE(IsConsistent({&one, &two}));
  kv_.Release(&one, 1);
  kv_.Release(&two, 1);
}

TEST_F(PrefixIndexTest, AHitTakesThePlaceOfWhatTheTableHasOfItsOwn) {
  KvTable slow;
  ASSERT_TRUE(kv_.Extend(&slow, 1));
  KvTable fast = Compute("a", {1, 2, 3, 4, 5, 6});
  kv_.Attach(&slow, kv_.Find(slow, "a", std::vector<int32_t>{1, 2, 3, 4}), true, step_);
  EXPECT_EQ(slow.shared.blocks, 2);
  EXPECT_EQ(slow.frames.size(), 2u * kPrefixLayers);
  EXPECT_TRUE(IsConsistent({&slow, &fast}));
  kv_.Attach(&slow, kv_.Find(slow, "a", std::vector<int32_t>{1, 2, 3, 4, 5, 6}), true, step_);
  EXPECT_EQ(slow.frames, fast.frames);
  EXPECT_TRUE(IsConsistent({&slow, &fast}));
  kv_.Release(&slow, step_);
  kv_.Release(&fast, step_);
}

TEST_F(PrefixIndexTest, ADroppedBlocksFramesAreFreeAfterTheStepAndItsParentIsNext) {
  KvTable table = Compute("a", {1, 2, 3, 4});
  PrefixBlock* child = table.shared.tail;
  PrefixBlock* parent = child->parent;
  kv_.Release(&table, step_);
  EXPECT_FALSE(parent->eviction.is_listed);
  index_.Drop(child, 9);
  EXPECT_TRUE(parent->eviction.is_listed);
  EXPECT_EQ(Found("a", {1, 2, 3, 4}), 1);
  pool_.Reclaim(8);
  EXPECT_EQ(pool_.frames(FrameUse::kRetiring), kPrefixLayers);
  pool_.Reclaim(9);
  index_.Drop(parent, 9);
  EXPECT_EQ(index_.blocks(), 0);
  EXPECT_EQ(Found("a", {1, 2}), 0);
  EXPECT_TRUE(IsConsistent({}));
}

// Against a plain set of beginnings.
TEST_F(PrefixIndexTest, FindsWhatASetOfBeginningsHasOverARandomLife) {
  using Key = std::pair<std::string, std::vector<int32_t>>;
  std::set<Key> model;
  std::vector<KvTable> tables;
  for (uint64_t round = 0; round < BySize(3000u, 10'000u, 200'000u); ++round) {
    uint64_t draws = 0;
    const auto draw = [&](uint64_t below) { return Philox(round, draws++) % below; };
    const std::string realm(1, static_cast<char>('a' + draw(2)));
    std::vector<int32_t> tokens;
    for (uint64_t i = draw(9); i > 0; --i) tokens.push_back(static_cast<int32_t>(draw(3)));
    int32_t expected = 0;
    for (size_t end = kPrefixBlock;
         end <= tokens.size() && model.contains({realm, {tokens.begin(), tokens.begin() + end}}); end += kPrefixBlock)
      ++expected;
    ASSERT_EQ(Found(realm, tokens), expected) << "round " << round;
    if (draw(3) > 0 && tables.size() < 20 && pool_.frames_free() >= 5 * kPrefixLayers) {
      tables.push_back(Compute(realm, tokens));
      for (size_t end = kPrefixBlock; end <= tokens.size(); end += kPrefixBlock)
        model.insert({realm, {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(end)}});
    } else if (!tables.empty()) {
      std::swap(tables[draw(tables.size())], tables.back());
      kv_.Release(&tables.back(), step_);
      tables.pop_back();
    }
    for (uint64_t drops = draw(3); drops > 0; --drops) {
      const EvictionOrder::List& list = order_.lists()[2 + draw(2)];
      if (list.empty()) continue;
      PrefixBlock* block = (*list.begin())->block;
      std::vector<int32_t> gone;
      const PrefixBlock* at = block;
      for (; !at->is_root(); at = at->parent) gone.insert(gone.begin(), at->tokens->begin(), at->tokens->end());
      ASSERT_EQ(model.erase({*at->realm, gone}), 1u);
      index_.Drop(block, step_);
    }
    pool_.Reclaim(step_);
    std::vector<const KvTable*> held;
    for (const KvTable& table : tables) held.push_back(&table);
    ASSERT_TRUE(IsConsistent(held)) << "round " << round;
    ASSERT_EQ(index_.blocks(), static_cast<int64_t>(model.size()));
  }
  for (KvTable& table : tables) kv_.Release(&table, step_);
  EXPECT_EQ(pool_.frames(FrameUse::kKv), 0);
}

TEST(PrefixIndexSizeTest, AChainOfManyBlocksGoesWithoutRecursion) {
  constexpr int32_t kLong = 100'000;
  CpuDevice device;
  FramePool pool;
  ASSERT_TRUE(pool.Open(&device, 64, 0, kLong, false).ok());
  EvictionOrder order(&pool);
  PrefixIndex index(&pool, &order, 1, 1, 0);
  KvCache kv(&pool, 1, 1, &index);
  KvTable table;
  ASSERT_TRUE(kv.Extend(&table, kLong));
  kv.Publish(&table, "a", std::vector<int32_t>(kLong, 7), 1);
  kv.Release(&table, 1);
  EXPECT_EQ(index.blocks(), kLong);
}

}  // namespace
}  // namespace openlora
