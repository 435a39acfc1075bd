// KV that sequences share: what is found, who finds it, and that it changes no bit.

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "base/prng.h"
#include "engine/core_driver.h"
#include "engine/tiny_model.h"
#include "test_size.h"

namespace openlora {
namespace {

constexpr int32_t kBlock = 16;  // tokens; TinyConfig has two layers, so a block is two frames

std::vector<int32_t> Tokens(uint64_t seed, int32_t count) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(Philox(seed, static_cast<uint64_t>(i)) % 101));
  return tokens;
}

std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PrefixCacheTest : public testing::Test {
 protected:
  EngineOptions Options() const { return TinyOptions(folder_); }
  void Open(EngineOptions options) {
    driver_ = std::make_unique<CoreDriver>(std::move(options));
    ASSERT_TRUE(driver_->opened().ok()) << driver_->opened().message();
  }
  EngineCore& core() { return driver_->core(); }
  Request Ask(std::vector<int32_t> prompt, int32_t max_tokens = 3) {
    return MakeRequest(++last_id_, std::move(prompt), max_tokens);
  }
  const Answer& Run(const Request& request) {
    core().Submit(request);
    driver_->Run();
    const Status sound = core().CheckInvariants();
    EXPECT_TRUE(sound.ok()) << sound.message();
    return driver_->answer(request.id);
  }
  int32_t CachedInput(const Request& request) {
    const Answer& answer = Run(request);
    EXPECT_EQ(answer.end, "length");
    return answer.usage.cached_input;
  }

  TestFolder folder_{"prefix"};
  std::unique_ptr<CoreDriver> driver_;
  int64_t last_id_ = 0;
};

TEST_F(PrefixCacheTest, FindsTheFullBlocksBeforeTheLastToken) {
  Open(Options());
  for (const int32_t length : {1, 15, 16, 17, 31, 32, 33, 64, 70}) {
    const std::vector<int32_t> prompt = Tokens(static_cast<uint64_t>(length), length);
    EXPECT_EQ(CachedInput(Ask(prompt)), 0) << length;
    EXPECT_EQ(CachedInput(Ask(prompt)), (length - 1) / kBlock * kBlock) << length;
  }
  const std::vector<int32_t> long_prompt = Tokens(70, 70);
  EXPECT_EQ(CachedInput(Ask({long_prompt.begin(), long_prompt.begin() + 40})), 32);
  std::vector<int32_t> other = long_prompt;
  other[20] ^= 1;  // of the second block
  EXPECT_EQ(CachedInput(Ask(other)), 16);
  other = Tokens(70, 70);
  other[0] ^= 1;
  EXPECT_EQ(CachedInput(Ask(other)), 0);
}

TEST_F(PrefixCacheTest, FindsWhatAnAnswerAddedToItsPrompt) {
  Open(Options());
  const std::vector<int32_t> first = Tokens(1, 40);
  const Answer answer = Run(Ask(first, 30));
  // Of 70 tokens the last one was drawn and never computed.
  const std::vector<int32_t> second = Joined(Joined(first, answer.tokens), Tokens(2, 30));
  EXPECT_EQ(CachedInput(Ask(second)), 64);
}

TEST_F(PrefixCacheTest, AFoundPrefixChangesNoBitWhateverKVIsHeldIn) {
  for (const DType kv : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8}) {
    SCOPED_TRACE(NameOf(kv));
    EngineOptions options = Options();
    options.kv_dtype = kv;
    options.pool_bytes = 2 << 20;
    options.max_batch_tokens = 40;
    options.has_prefix_cache = false;
    CoreDriver plain(options);
    options.has_prefix_cache = true;
    Open(std::move(options));
    const AdapterManifest a = TinyAdapter(folder_, "a", 8, 0, 5), b = TinyAdapter(folder_, "b", 3, 1, 6);
    for (CoreDriver* driver : {&plain, driver_.get()}) {
      driver->Register(1, a);
      driver->Register(2, b);
    }
    const std::vector<std::vector<AdapterUse>> mixes = {{}, {{1, 1.0f}}, {{2, 0.5f}, {1, 1.0f}}};
    int32_t cached = 0;
    for (uint64_t round = 0; round < BySize(24u, 60u, 300u); ++round) {
      const uint64_t draw = Philox(9, round);
      const auto stem = static_cast<int32_t>(draw % 60), rest = 1 + static_cast<int32_t>(draw / 64 % 40);
      Request request = Ask(Joined(Tokens(1 + draw / 4096 % 2, stem), Tokens(100 + round, rest)), 20);
      request.adapters = mixes[draw / 8192 % mixes.size()];
      request.temperature = round % 2 == 0 ? 1.0f : 0.0f;
      request.seed = round;
      if (round % 5 == 0) request.prompt_logprobs = 0;
      plain.core().Submit(request);
      plain.Run();
      const Answer& alone = plain.answer(request.id);
      const Answer& shared = Run(request);
      EXPECT_EQ(alone.end, "length");
      EXPECT_EQ(shared.tokens, alone.tokens) << "round " << round;
      EXPECT_EQ(shared.logprobs, alone.logprobs) << "round " << round;  // ==: bit for bit
      EXPECT_EQ(shared.prompt_logprobs, alone.prompt_logprobs) << "round " << round;
      EXPECT_EQ(alone.usage.cached_input, 0);
      cached += shared.usage.cached_input;
    }
    EXPECT_GT(cached, 100);
  }
}

TEST_F(PrefixCacheTest, OnlyWhoMayShareFindsIt) {
  Open(Options());
  const auto tagged = [&](const char* tenant, const char* salt) {
    Request request = Ask(Tokens(5, 50));
    request.tenant = tenant;
    request.cache_salt = salt;
    return request;
  };
  EXPECT_EQ(CachedInput(tagged("", "")), 0);
  EXPECT_EQ(CachedInput(tagged("", "")), 48);
  EXPECT_EQ(CachedInput(tagged("a", "")), 0);
  EXPECT_EQ(CachedInput(tagged("a", "")), 48);
  EXPECT_EQ(CachedInput(tagged("b", "")), 0);
  EXPECT_EQ(CachedInput(tagged("", "a")), 0) << "a salt is no tenant";
  EXPECT_EQ(CachedInput(tagged("a", "s")), 0) << "a salt is given: its tenant's own are others";
  EXPECT_EQ(CachedInput(tagged("b", "s")), 48) << "who gives the same salt shares";
  EXPECT_EQ(CachedInput(tagged("a", "")), 48);
}

TEST_F(PrefixCacheTest, AdaptersCountByContentWeightAndOrder) {
  Open(Options());
  driver_->Register(1, TinyAdapter(folder_, "a", 4, 0, 5));
  driver_->Register(2, TinyAdapter(folder_, "b", 4, 0, 6));
  const auto with = [&](std::vector<AdapterUse> adapters) {
    Request request = Ask(Tokens(5, 50));
    request.adapters = std::move(adapters);
    return request;
  };
  EXPECT_EQ(CachedInput(with({})), 0);
  EXPECT_EQ(CachedInput(with({{1, 1.0f}})), 0);
  EXPECT_EQ(CachedInput(with({{1, 1.0f}})), 48);
  EXPECT_EQ(CachedInput(with({{2, 1.0f}})), 0);
  EXPECT_EQ(CachedInput(with({{1, 0.5f}})), 0);
  EXPECT_EQ(CachedInput(with({{1, 1.0f}, {2, 1.0f}})), 0);
  EXPECT_EQ(CachedInput(with({{2, 1.0f}, {1, 1.0f}})), 0);
  EXPECT_EQ(CachedInput(with({{2, 1.0f}, {1, 1.0f}})), 48);
  EXPECT_EQ(CachedInput(with({})), 48);
}

// A name is TypeScript's affair; a registration is a handle here, its content the generation.
TEST_F(PrefixCacheTest, AReloadUnderTheSameNameFindsWhatIsOfItsOwnContentAlone) {
  Open(Options());
  const auto with = [&](int64_t handle) {
    Request request = Ask(Tokens(5, 50));
    request.adapters = {{handle, 1.0f}};
    return request;
  };
  driver_->Register(1, TinyAdapter(folder_, "first", 4, 0, 5));
  const Answer first = Run(with(1));
  core().Unregister(1);
  AdapterManifest changed = TinyAdapter(folder_, "second", 4, 0, 6);
  changed.canonical_config = "first";
  driver_->Register(2, changed);
  const Answer second = Run(with(2));
  EXPECT_EQ(second.usage.cached_input, 0);
  EXPECT_NE(second.logprobs, first.logprobs);
  core().Unregister(2);
  driver_->Register(3, TinyAdapter(folder_, "first", 4, 0, 5));
  const Answer third = Run(with(3));
  EXPECT_EQ(third.usage.cached_input, 48);
  EXPECT_EQ(third.tokens, first.tokens);
  EXPECT_EQ(third.logprobs, first.logprobs);
}

TEST_F(PrefixCacheTest, PromptLogprobsAreComputedAndCanBeFoundByOthers) {
  Open(Options());
  Request scoring = Ask(Tokens(5, 50));
  scoring.prompt_logprobs = 0;
  const Answer first = Run(scoring);
  EXPECT_EQ(CachedInput(Ask(Tokens(5, 50))), 48);
  scoring.id = ++last_id_;
  const uint64_t rows = core().Stats().rows;
  const Answer second = Run(scoring);
  EXPECT_EQ(core().Stats().rows - rows, 52u);
  EXPECT_EQ(second.usage.cached_input, 0);
  EXPECT_EQ(second.prompt_logprobs.size(), 49u);
  EXPECT_EQ(second.prompt_logprobs, first.prompt_logprobs);
}

TEST_F(PrefixCacheTest, BothTablesOfLongRopeHaveTheirOwnPrefixes) {
  EngineOptions options = Options();
  options.model.rope_switch = 40;
  options.model.ropes[0].long_inv_freq = {0.9f, 0.2f, 0.04f, 0.008f, 0.001f, 0.0001f};
  options.has_prefix_cache = false;
  CoreDriver plain(options);
  options.has_prefix_cache = true;
  Open(std::move(options));
  const auto same = [&](const Request& request) {
    plain.core().Submit(request);
    plain.Run();
    const Answer& shared = Run(request);
    EXPECT_EQ(shared.logprobs, plain.answer(request.id).logprobs);
    return shared.usage.cached_input;
  };
  EXPECT_EQ(same(Ask(Tokens(1, 33), 4)), 0);
  EXPECT_EQ(same(Ask(Tokens(1, 50), 4)), 0);
  EXPECT_EQ(same(Ask(Tokens(1, 50), 4)), 48);
  EXPECT_EQ(same(Ask(Tokens(1, 33), 4)), 32);
  // Crosses while it answers, and finds the long one's blocks again.
  const uint64_t rows = core().Stats().rows;
  std::vector<int32_t> crossing = Tokens(1, 39);
  EXPECT_EQ(same(Ask(crossing, 6)), 32);
  EXPECT_LT(core().Stats().rows - rows, 7 + 5 + 41u - 32u + 1);
}

TEST_F(PrefixCacheTest, OneOfTwoEqualPromptsComputesForBoth) {
  EngineOptions options = Options();
  options.max_batch_tokens = 32;
  Open(std::move(options));
  const Request first = Ask(Tokens(1, 110), 4), second = Ask(Tokens(1, 110), 4);
  core().Submit(first);
  core().Submit(second);
  driver_->Run();
  EXPECT_EQ(driver_->answer(first.id).logprobs, driver_->answer(second.id).logprobs);
  EXPECT_EQ(driver_->answer(first.id).usage.cached_input, 0);
  EXPECT_GE(driver_->answer(second.id).usage.cached_input, 80);
  EXPECT_EQ(core().Stats().bytes_prefix, 7 * 2 * 4096) << "each block is kept once";
}

TEST_F(PrefixCacheTest, APreemptedRequestFindsItsOwnPrefixAgain) {
  EngineOptions options = Options();
  options.max_context = 96;
  options.pool_bytes = 14 * 4096;  // 7 blocks
  Open(std::move(options));
  const Request waiting = Ask(Tokens(1, 60), 30), other = Ask(Tokens(2, 40), 20);
  core().Submit(waiting);
  core().Step();
  core().SetPaused(waiting.id, true);
  core().Submit(other);
  while (!driver_->has_ended(other.id) && core().Step()) driver_->Read();
  EXPECT_EQ(core().Stats().preemptions, 1u);
  const uint64_t rows = core().Stats().rows;
  core().SetPaused(waiting.id, false);
  driver_->Run();
  EXPECT_EQ(driver_->answer(waiting.id).tokens.size(), 30u);
  EXPECT_LT(core().Stats().rows - rows, 60u + 29u) << "the whole prompt was computed again";
  EXPECT_EQ(driver_->answer(waiting.id).usage.cached_input, 0) << "its own is no saving";
}

TEST_F(PrefixCacheTest, CountsWhatIsHeldOnceAndWhatNobodyHoldsAsPrefix) {
  Open(Options());
  Run(Ask(Tokens(1, 48), 1));
  EngineStats stats = core().Stats();
  EXPECT_EQ(stats.bytes_kv, 0);
  EXPECT_EQ(stats.bytes_prefix, 3 * 2 * 4096);
  EXPECT_EQ(stats.bytes_pool_free + stats.bytes_prefix, stats.bytes_pool);
  EXPECT_EQ(stats.prefix_tokens_looked_up, 48u);
  EXPECT_EQ(stats.prefix_tokens_found, 0u);
  for (int i = 0; i < 3; ++i) core().Submit(Ask(Tokens(1, 48), 9));
  core().Step();
  stats = core().Stats();
  EXPECT_EQ(stats.bytes_kv, 3 * 2 * 4096) << "two that were found, and one that each computed and was found equal";
  driver_->Run();
  stats = core().Stats();
  EXPECT_EQ(stats.prefix_tokens_looked_up, 4u * 48u);
  EXPECT_EQ(stats.prefix_tokens_found, 3u * 32u);
}

TEST_F(PrefixCacheTest, PrefixesGiveWayWhenMemoryIsShort) {
  EngineOptions options = Options();
  options.max_context = 128;
  options.pool_bytes = 16 * 4096;  // 8 blocks
  Open(std::move(options));
  for (uint64_t seed = 1; seed < 20; ++seed) EXPECT_EQ(CachedInput(Ask(Tokens(seed, 100), 8)), 0);
  EXPECT_GT(core().Stats().bytes_prefix, 0);
  // An adapter that takes more than is free, too.
  driver_->Register(1, TinyAdapter(folder_, "a", 8, 0, 5));
  Request request = Ask(Tokens(30, 20));
  request.adapters = {{1, 1.0f}};
  EXPECT_EQ(CachedInput(request), 0);
}

TEST_F(PrefixCacheTest, SharesNothingWhenItIsOff) {
  EngineOptions options = Options();
  options.has_prefix_cache = false;
  Open(std::move(options));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(CachedInput(Ask(Tokens(1, 50))), 0);
  EXPECT_EQ(core().Stats().bytes_prefix, 0);
  EXPECT_EQ(core().Stats().prefix_tokens_looked_up, 0u);
  EXPECT_EQ(core().pool().frames_free(), core().pool().frames_total());
}

TEST_F(PrefixCacheTest, CancelsAtAnyMomentLeaveNothingHeld) {
  EngineOptions options = Options();
  options.max_batch_tokens = 24;
  options.max_context = 128;
  options.pool_bytes = 40 * 4096;
  Open(std::move(options));
  driver_->Register(1, TinyAdapter(folder_, "a", 4, 0, 5));
  uint64_t draws = 0;
  const auto draw = [&](uint64_t below) { return Philox(77, draws++) % below; };
  for (uint64_t step = 0; step < BySize(400u, 1500u, 20'000u); ++step) {
    if (draw(3) == 0 && core().requests() < 8) {
      Request request =
          Ask(Joined(Tokens(draw(3), static_cast<int32_t>(draw(60))), Tokens(step, 1 + static_cast<int32_t>(draw(20)))),
              1 + static_cast<int32_t>(draw(40)));
      if (draw(3) == 0) request.adapters = {{1, 1.0f}};
      if (draw(6) == 0) request.prompt_logprobs = 0;
      core().Submit(request);
    }
    if (draw(5) == 0) core().Cancel(1 + static_cast<int64_t>(draw(static_cast<uint64_t>(last_id_) + 1)));
    if (draw(9) == 0) core().SetPaused(last_id_ - static_cast<int64_t>(draw(6)), draw(2) == 0);
    core().Step();
    if (driver_->has_loader_work() && draw(2) == 0) driver_->DoLoaderWork();
    driver_->Read();
    const Status sound = core().CheckInvariants();
    ASSERT_TRUE(sound.ok()) << "step " << step << ": " << sound.message();
  }
  for (int64_t id = 1; id <= last_id_; ++id) core().Cancel(id);
  EXPECT_EQ(core().pool().frames(FrameUse::kKv), 0);
  EXPECT_TRUE(core().CheckInvariants().ok());
}

}  // namespace
}  // namespace openlora
