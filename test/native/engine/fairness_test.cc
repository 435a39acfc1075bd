// Service of tenants and adapters by the engine's own scheduler, on a tiny model.

#include "engine/fairness_fixture.h"

namespace openlora {
namespace {

TEST_F(FairnessTest, TenantsWithWorkWaitingGetTheSameServiceWhereRowsAreShort) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  for (int i = 0; i < 60; ++i) Submit("flood");
  for (int i = 0; i < 12; ++i) Submit("other");
  EXPECT_LE(LargestGap("flood", "other"), 2 * kCost);
  ExpectAllWhole();
}

TEST_F(FairnessTest, TenantsWithWorkWaitingGetTheSameServiceWhereMemoryIsShort) {
  EngineOptions options = TinyOptions(folder_);
  options.pool_bytes = 16 * 2 * (4 << 10);  // 16 blocks of 16 tokens: five requests
  options.max_context = 64;
  Open(options);
  for (int i = 0; i < 60; ++i) Submit("flood");
  for (int i = 0; i < 4; ++i) Step();
  const double head_start = ServiceOf("flood");
  EXPECT_GT(head_start, 0);
  for (int i = 0; i < 20; ++i) Submit("other");
  // What one had before the other came may be made up for, and no more than that.
  const Leads leads = LargestLeads("flood", "other");
  EXPECT_LE(leads.a, head_start + 2 * kCost);
  EXPECT_LE(leads.b, 2 * kCost);
  ExpectAllWhole();
}

TEST_F(FairnessTest, TokensCountAndNotRequestsAndThoseOfAnswersTwice) {
  using Sizes = std::vector<Size>;
  constexpr Size kLarge{60, 40}, kOfPrompt{60, 2}, kOfAnswer{4, 40}, kSmall{4, 2};
  const double largest = kLarge.cost();
  const std::pair<Sizes, Sizes> cases[] = {{{kLarge}, {kSmall}},
                                           {{kLarge, kOfPrompt, kLarge}, {kSmall, kOfAnswer, kSmall}},
                                           {{kLarge, kOfPrompt, kOfPrompt}, {kLarge, kOfAnswer, kOfAnswer}}};
  for (const auto& [sizes_of_a, sizes_of_b] : cases) {
    EngineOptions options = TinyOptions(folder_);
    options.max_batch_tokens = 8;
    Open(options);
    requests_.clear();
    // By turns, so that neither has waited longer.
    double of_a = 0, of_b = 0;
    for (size_t a = 0, b = 0; of_a + of_b < 40 * largest;) {
      const bool is_a = of_a <= of_b;
      const Size size = is_a ? sizes_of_a[a++ % sizes_of_a.size()] : sizes_of_b[b++ % sizes_of_b.size()];
      Submit(is_a ? "a" : "b", {}, 0, size);
      (is_a ? of_a : of_b) += size.cost();
    }
    EXPECT_LE(LargestGap("a", "b"), 2 * largest) << "case " << &sizes_of_a - &cases[0].first;
    ExpectAllWhole();
  }
}

// Bytes of adapters, which one tenant alone has, count with its tokens.
class AdapterBytesTest : public FairnessTest {
 protected:
  static constexpr int kAdapters = 40;

  // A pool for some of them, so that each request loads its own.
  void OpenWithAdapters(EngineOptions options) {
    {
      CoreDriver probe(options);
      probe.Register(1, AdapterOf(1));
      bytes_ = probe.core().residency().Find(1)->bytes;
      options.pool_bytes = 3 * bytes_ + (256 << 10);
    }
    Open(options);
    for (int64_t handle = 1; handle <= kAdapters; ++handle) driver_->Register(handle, AdapterOf(handle));
  }
  // As often as the base could have been read, for a token of an answer each time.
  double CostOf(double bytes) { return 2 * bytes / static_cast<double>(driver_->core().Stats().bytes_base); }
  double ServiceOf(const std::string& tenant) override {
    const double service = FairnessTest::ServiceOf(tenant);
    if (tenant != "adapters") return service;
    const EngineStats stats = driver_->core().Stats();
    return service + CostOf(static_cast<double>(stats.lora_bytes_read)) +
           CostOf(static_cast<double>(stats.adapter_loads) * static_cast<double>(bytes_));
  }
  // Of a request that loads its adapter and reads it in `steps` steps.
  void ExpectAShare(Size size, int steps) {
    EngineOptions options = TinyOptions(folder_);
    options.max_batch_tokens = 8;
    OpenWithAdapters(options);
    requests_.clear();
    const double cost = size.cost() + (1 + steps) * CostOf(static_cast<double>(bytes_));
    for (int64_t handle = 1; handle <= kAdapters; ++handle) Submit("adapters", {{handle, 1.0f}}, 0, size);
    for (double left = kAdapters * cost; left > 0; left -= size.cost()) Submit("base", {}, 0, size);
    EXPECT_LE(LargestGap("adapters", "base"), 2 * cost);
    ExpectAllWhole();
    EXPECT_GE(driver_->core().Stats().adapter_loads, static_cast<uint64_t>(kAdapters));  // none was there before
  }

  int64_t bytes_ = 0;
};

TEST_F(AdapterBytesTest, BytesThatStepsReadCountAsService) { ExpectAShare({4, 20}, 20); }

TEST_F(AdapterBytesTest, BytesThatAreLoadedCountAsService) { ExpectAShare({2, 1}, 1); }

// The turn of whoever has waited longest is each time one of those that came first.
TEST_F(FairnessTest, LargeRequestsThatCameFirstGetNoMoreThanSmallOnes) {
  constexpr Size kLarge{96, 10}, kSmall{2, 2};
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  for (int i = 0; i < 20; ++i) Submit("large", {}, 0, kLarge);
  for (double left = 20 * kLarge.cost(); left > 0; left -= kSmall.cost()) Submit("small", {}, 0, kSmall);
  EXPECT_LE(LargestGap("large", "small"), 2 * kLarge.cost());
  ExpectAllWhole();
}

TEST_F(FairnessTest, AFloodThatCameFirstGetsNoMoreThanEachOfManyOthers) {
  constexpr Size kShort{4, 4};
  constexpr int kOthers = 15, kEach = 30;
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  for (int i = 0; i < 10 * kEach; ++i) Submit("flood", {}, 0, kShort);
  for (int i = 0; i < kOthers * kEach; ++i) Submit("other " + std::to_string(i % kOthers), {}, 0, kShort);
  double gap = 0;
  while (Waiting("other 0") > 1) {
    Step();
    ASSERT_FALSE(testing::Test::HasFatalFailure());
    gap = std::max(gap, ServiceOf("flood") - ServiceOf("other 0"));
  }
  EXPECT_LE(gap, 2 * kShort.cost());
  while (!AllEnded()) Step();
  ExpectAllWhole();
}

// Every step a tenant comes that has had nothing yet, with a prompt that takes as many rows as there are.
TEST_F(FairnessTest, APromptThatHasBegunIsNotPassedByNewcomers) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 16;
  Open(options);
  Submit("long", {}, 0, {48, 2});
  const int64_t id = requests_["long"].back();
  int wait = 0;
  for (; driver_->answer(id).tokens.empty() && wait < 40; ++wait) {
    Step();
    Submit("new " + std::to_string(wait), {}, 0, {16, 2});
  }
  EXPECT_LE(wait, 4);  // an eighth of the rows is for answers
  while (!AllEnded()) Step();
  ExpectAllWhole();
}

TEST_F(FairnessTest, APriorityCountsAmongTheRequestsOfItsOwnTenantAlone) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  for (int i = 0; i < 30; ++i) Submit("loud", {}, 1000);
  for (int i = 0; i < 10; ++i) Submit("meek", {}, -1000);
  EXPECT_LE(LargestGap("loud", "meek"), 2 * kCost);
  ExpectAllWhole();
}

TEST_F(FairnessTest, ALowPriorityIsAdmittedUnderAFloodOfAHighOneWithoutEnd) {
  constexpr int kBefore = 10, kTurns = 8;
  constexpr Size kShort{4, 20};  // a prompt of a step's
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  for (int i = 0; i < kBefore; ++i) Submit("tenant", {}, 9, kShort);
  const int64_t meek = next_;
  Submit("tenant", {}, -9, kShort);
  int64_t admissions = 0;
  while (driver_->answer(meek).tokens.empty()) {
    while (driver_->core().Stats().requests_queued < kBefore + 1) Submit("tenant", {}, 9, kShort);
    admissions = next_ - 1 - driver_->core().Stats().requests_queued;
    Step();
    ASSERT_FALSE(testing::Test::HasFatalFailure());
  }
  // When those that came before it have gone, each eighth turn is its own.
  EXPECT_LE(admissions, kBefore + 2 * kTurns);
  EXPECT_GT(admissions, kBefore);
}

TEST_F(FairnessTest, AnAnswerGoesOnUnderAFloodOfAHigherPriority) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  Submit("tenant", {}, -1);
  const int64_t low = next_ - 1;
  while (driver_->answer(low).tokens.empty()) Step();
  const int begun = steps_, steps_max = kSize.answer * (FairQueue::kStepsPassed + 2);
  while (driver_->answer(low).end.empty() && !HasFatalFailure()) {
    while (Waiting("tenant") < 20) Submit("tenant", {}, 1, {2, 60});  // more answers than rows
    Step();
    ASSERT_LE(steps_ - begun, steps_max) << driver_->answer(low).tokens.size() << " tokens";
  }
}

TEST_F(FairnessTest, AnUnpopularAdapterIsServedBesideAPopularOne) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  driver_->Register(1, TinyAdapter(folder_, "popular", 8, 0, 5));
  driver_->Register(2, TinyAdapter(folder_, "unpopular", 8, 0, 6));
  for (int i = 0; i < 60; ++i) Submit("", {{1, 1.0f}});
  Submit("", {{2, 1.0f}});
  const int64_t unpopular = requests_[""].back();
  while (driver_->answer(unpopular).end.empty()) Step();
  int64_t before = 0;
  for (const int64_t request : requests_[""]) before += driver_->answer(request).end.empty() ? 0 : 1;
  EXPECT_LT(before, 20);
  while (!AllEnded()) Step();
  ExpectAllWhole();
}

TEST_F(FairnessTest, AStepReadsNoMoreOfAdaptersThanItMayAndAllAreServed) {
  EngineOptions options = TinyOptions(folder_);
  {
    CoreDriver probe(options);
    probe.Register(1, TinyAdapter(folder_, "a1", 16, 0, 1));
    options.batch_lora_bytes = 3 * probe.core().residency().Find(1)->bytes;
  }
  Open(options);
  for (int64_t handle = 1; handle <= 10; ++handle)
    driver_->Register(handle, TinyAdapter(folder_, "a" + std::to_string(handle), 16, 0, static_cast<uint64_t>(handle)));
  for (int64_t handle = 1; handle <= 10; ++handle) Submit("", {{handle, 1.0f}});
  uint64_t read = 0, largest = 0;
  while (!AllEnded()) {
    Step();
    const uint64_t now = driver_->core().Stats().lora_bytes_read;
    largest = std::max(largest, now - std::exchange(read, now));
  }
  EXPECT_GT(largest, static_cast<uint64_t>(options.batch_lora_bytes) / 2);
  EXPECT_LE(largest, static_cast<uint64_t>(options.batch_lora_bytes));
  ExpectAllWhole();
}

TEST_F(FairnessTest, AnAdapterBeyondTheBudgetIsReadAlone) {
  EngineOptions options = TinyOptions(folder_);
  options.batch_lora_bytes = 1;
  Open(options);
  driver_->Register(1, TinyAdapter(folder_, "a", 16, 0, 1));
  driver_->Register(2, TinyAdapter(folder_, "b", 16, 0, 2));
  for (int i = 0; i < 6; ++i) Submit("", {{1 + i % 2, 1.0f}});
  for (int i = 0; i < 6; ++i) Submit("");
  while (!AllEnded()) Step();
  ExpectAllWhole();
}

TEST_F(FairnessTest, ATenantsQueueIsBoundedAndNobodyElses) {
  EngineOptions options = TinyOptions(folder_);
  options.max_queued = 10;
  options.max_queued_per_tenant = 4;
  Open(options);
  for (int i = 0; i < 6; ++i) Submit("a");
  for (int i = 0; i < 2; ++i) Submit("b");
  for (int i = 0; i < 5; ++i) Submit("");
  while (!AllEnded()) Step();
  const auto refused = [&](const std::string& tenant) {
    return std::count_if(requests_[tenant].begin(), requests_[tenant].end(),
                         [&](int64_t request) { return driver_->answer(request).end == kErrOverloaded; });
  };
  EXPECT_EQ(refused("a"), 2);
  EXPECT_EQ(refused("b"), 0);
  EXPECT_EQ(refused(""), 1);
}

}  // namespace
}  // namespace openlora
