// Who goes when memory is short: traces, against LRU and against one that knows the future.

#include <gtest/gtest.h>

#include <cmath>
#include <unordered_set>
#include <vector>

#include "base/prng.h"
#include "memory/eviction_cache.h"
#include "test_size.h"

namespace openlora {
namespace {

constexpr int64_t kAdapterFrames = 4;
constexpr int64_t kRoom = 100;  // adapters that fit
const double kBlockCost =
    std::log2(400.0);  // of computing anew, beside a byte of an adapter: a base of 0.5 B parameters

class Draws {
 public:
  explicit Draws(uint64_t seed) : seed_(seed) {}
  size_t Below(size_t count) { return Philox(seed_, at_++) % count; }
  double Uniform() { return PhiloxUniform(seed_, at_++); }

 private:
  uint64_t seed_;
  uint64_t at_ = 0;
};

// Popularity 1/(place + 1).
std::vector<size_t> ZipfTrace(size_t objects, size_t count, uint64_t seed) {
  std::vector<double> sums;
  for (size_t i = 0; i < objects; ++i) sums.push_back((i > 0 ? sums[i - 1] : 0) + 1.0 / static_cast<double>(i + 1));
  std::vector<size_t> trace;
  Draws draws(seed);
  for (size_t i = 0; i < count; ++i) {
    const double at = draws.Uniform() * sums.back();
    trace.push_back(static_cast<size_t>(std::lower_bound(sums.begin(), sums.end(), at) - sums.begin()));
  }
  return trace;
}

std::vector<int32_t> Prompt(uint64_t seed, int32_t blocks) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < blocks * EvictionCache::kBlock; ++i)
    tokens.push_back(static_cast<int32_t>(Philox(seed, static_cast<uint64_t>(i)) % 50'000));
  return tokens;
}

TEST(EvictionTest, KeepsMoreOfAZipfThanLruAndMostOfWhatIsPossible) {
  const std::vector<size_t> trace = ZipfTrace(2000, 30'000, 1);
  EvictionCache cache(kRoom * kAdapterFrames, 2000, 0);
  LruCache lru(kRoom * kAdapterFrames);
  int64_t hits = 0, lru_hits = 0;
  for (const size_t id : trace) {
    hits += cache.UseAdapter(id, kAdapterFrames) ? 1 : 0;
    lru_hits += lru.Use(id, kAdapterFrames) ? 1 : 0;
  }
  const auto all = static_cast<double>(trace.size());
  const auto best = static_cast<double>(BeladyHits(trace, kRoom));
  RecordProperty("hits", static_cast<int>(hits));
  EXPECT_GT(static_cast<double>(hits), static_cast<double>(lru_hits) + 0.05 * all);
  EXPECT_GT(static_cast<double>(hits), 0.8 * best);
}

TEST(EvictionTest, FollowsWhenOthersBecomePopular) {
  EvictionCache cache(kRoom * kAdapterFrames, 8000, 0);
  LruCache lru(kRoom * kAdapterFrames);
  int64_t hits = 0, lru_hits = 0;
  for (size_t phase = 0; phase < 4; ++phase) {
    for (const size_t id : ZipfTrace(2000, 8000, phase)) {
      hits += cache.UseAdapter(phase * 2000 + id, kAdapterFrames) ? 1 : 0;
      lru_hits += lru.Use(phase * 2000 + id, kAdapterFrames) ? 1 : 0;
    }
  }
  EXPECT_GT(hits, lru_hits);
}

// Four of five requests walk through all adapters, one of five is for a hot one.
TEST(EvictionTest, AUniformSweepOverTenThousandAdaptersLeavesTheHotOnes) {
  constexpr size_t kHot = 50, kAll = 10'000;
  EvictionCache cache(kRoom * kAdapterFrames, kHot + kAll, 0);
  LruCache lru(kRoom * kAdapterFrames);
  Draws draws(3);
  int64_t hits = 0, lru_hits = 0, asked = 0;
  for (size_t i = 0; i < 2 * kAll; ++i) {
    const bool is_hot = i % 5 == 0;
    const size_t id = is_hot ? draws.Below(kHot) : kHot + i % kAll;
    const bool is_hit = cache.UseAdapter(id, kAdapterFrames), is_lru_hit = lru.Use(id, kAdapterFrames);
    if (!is_hot) continue;
    ++asked;
    hits += is_hit ? 1 : 0;
    lru_hits += is_lru_hit ? 1 : 0;
  }
  EXPECT_GT(hits * 10, asked * 9);
  EXPECT_LT(lru_hits * 2, asked);
}

// Ten prompts that come once for each that names a hot adapter and begins like others.
TEST(EvictionTest, AFloodOfPromptsThatComeOnceLeavesHotAdaptersAndHotPrefixes) {
  constexpr size_t kHot = 20;
  constexpr int32_t kStem = 6, kOnce = 8;  // blocks
  constexpr int64_t kFrames = 400;
  EvictionCache cache(kFrames, kHot, kBlockCost);
  LruCache lru(kFrames);
  Draws draws(4);
  int64_t adapter_hits = 0, stem_hits = 0, lru_adapter_hits = 0, lru_stem_hits = 0, asked = 0;
  for (uint64_t i = 0; i < 20'000; ++i) {
    if (i % 11 != 0) {
      cache.UsePrompt(Prompt(1'000'000 + i, kOnce));
      lru.Use(1'000'000 + i, kOnce);
      continue;
    }
    const size_t id = draws.Below(kHot);
    std::vector<int32_t> prompt = Prompt(id, kStem);
    const std::vector<int32_t> rest = Prompt(2'000'000 + i, 1);
    prompt.insert(prompt.end(), rest.begin(), rest.end());
    const bool has_adapter = cache.UseAdapter(id, kAdapterFrames);
    const bool has_stem = cache.UsePrompt(prompt) == kStem * EvictionCache::kBlock;
    const bool has_lru_adapter = lru.Use(id, kAdapterFrames), has_lru_stem = lru.Use(1000 + id, kStem);
    if (i < 5000) continue;  // until what comes once is known to
    ++asked;
    adapter_hits += has_adapter ? 1 : 0;
    stem_hits += has_stem ? 1 : 0;
    lru_adapter_hits += has_lru_adapter ? 1 : 0;
    lru_stem_hits += has_lru_stem ? 1 : 0;
  }
  EXPECT_GT(adapter_hits * 10, asked * 9);
  EXPECT_GT(stem_hits * 10, asked * 9);
  EXPECT_LT(lru_adapter_hits * 2, asked);
  EXPECT_LT(lru_stem_hits * 2, asked);
}

// Each chat comes back five times with more behind what it had, then never: recency is what tells, and counting how
// often it came would keep the dead. LRU is at its best here; what is new has less credit with us, which costs a tenth.
TEST(EvictionTest, ChatsFindTheirBeginningsAlmostAsOftenAsWithLru) {
  constexpr size_t kActive = 60;
  constexpr int32_t kTurn = 2, kTurns = 6;
  constexpr int64_t kFrames = 500;
  EvictionCache cache(kFrames, 0, kBlockCost);
  LruCache lru(kFrames);
  Draws draws(5);
  struct Chat {
    uint64_t id;
    int32_t turns;
  };
  std::vector<Chat> chats;
  uint64_t ids = 0;
  for (size_t i = 0; i < kActive; ++i) chats.push_back({++ids, 0});
  int64_t found = 0, lru_found = 0;
  for (int round = 0; round < 8000; ++round) {
    Chat& chat = chats[draws.Below(kActive)];
    if (chat.turns == kTurns) chat = {++ids, 0};
    ++chat.turns;
    found += cache.UsePrompt(Prompt(chat.id, chat.turns * kTurn)) / EvictionCache::kBlock;
    lru_found += lru.Use(chat.id, int64_t{chat.turns} * kTurn) ? int64_t{chat.turns - 1} * kTurn : 0;
  }
  EXPECT_GT(static_cast<double>(found), 0.85 * static_cast<double>(lru_found));
}

// What costs more to get again stays longer, a byte for a byte; what is small for what it costs, too.
TEST(EvictionTest, CostsAreWeighedByTheByte) {
  EXPECT_GT(AdapterCost(64 << 10), AdapterCost(1 << 20));
  EXPECT_NEAR(AdapterCost(int64_t{1} << 40), 0, 1e-3);
  // Qwen2.5-0.5B in bf16: 16 tokens of 24 layers hold 192 KiB and take 16 × 2 × 358 M operations, 29 ms at 400 GFLOP/s.
  const double qwen = BlockCost(16, 2 * 358e6, 24 * 8192);
  EXPECT_NEAR(std::exp2(qwen), 16 * 2 * 358e6 / 200 / (24 * 8192), 1);
  EXPECT_GT(qwen, AdapterCost(1 << 20));
}

}  // namespace
}  // namespace openlora
