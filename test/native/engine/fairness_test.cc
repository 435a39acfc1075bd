// Service of tenants and adapters by the engine's own scheduler, on a tiny model.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/core_driver.h"
#include "engine/tiny_model.h"
#include "native/test_size.h"

namespace openlora {
namespace {

// Tokens of a request, and what they cost as the scheduler counts: the last one of an answer is never computed.
struct Size {
  int32_t prompt = 24;
  int32_t answer = 20;
  double cost() const { return prompt + 2.0 * (answer - 1); }
};
constexpr Size kSize;
const double kCost = kSize.cost();

class FairnessTest : public testing::Test {
 protected:
  void Open(const EngineOptions& options) {
    driver_ = std::make_unique<CoreDriver>(options);
    ASSERT_TRUE(driver_->opened().ok()) << driver_->opened().message();
  }
  void Submit(const std::string& tenant, std::vector<AdapterUse> adapters = {}, int32_t priority = 0,
              Size size = kSize) {
    std::vector<int32_t> prompt(static_cast<size_t>(size.prompt), static_cast<int32_t>(next_ % 97));
    prompt[0] = static_cast<int32_t>(next_ / 97 % 97);  // nobody else's, so that all of it is computed
    Request request = MakeRequest(next_, std::move(prompt), size.answer, std::move(adapters));
    request.tenant = tenant;
    request.priority = priority;
    driver_->core().Submit(request);
    sizes_[next_] = size;
    requests_[tenant].push_back(next_++);
  }
  // A large one.
  AdapterManifest AdapterOf(int64_t handle) const {
    return TinyAdapter(folder_, "a" + std::to_string(handle), 64, 0, static_cast<uint64_t>(handle));
  }
  void Step() {
    ASSERT_LT(++steps_, 20'000) << "a request never ends";
    driver_->core().Step();
    driver_->Read();
    while (driver_->has_loader_work()) driver_->DoLoaderWork();
  }
  // What came out of it, in the scheduler's units; a prompt counts when its first token is there.
  virtual double ServiceOf(const std::string& tenant) {
    double service = 0;
    for (const int64_t request : requests_[tenant]) {
      const size_t tokens = driver_->answer(request).tokens.size();
      if (tokens > 0) service += Size{sizes_[request].prompt, static_cast<int32_t>(tokens)}.cost();
    }
    return service;
  }
  int64_t Waiting(const std::string& tenant) {
    return std::count_if(requests_[tenant].begin(), requests_[tenant].end(),
                         [&](int64_t request) { return driver_->answer(request).tokens.empty(); });
  }
  bool AllEnded() { return driver_->core().requests() == 0; }
  void ExpectAllWhole() {
    for (const auto& [tenant, requests] : requests_) {
      for (const int64_t request : requests) {
        EXPECT_EQ(driver_->answer(request).end, "length") << request << " of " << tenant;
        EXPECT_EQ(driver_->answer(request).tokens.size(), static_cast<size_t>(sizes_[request].answer));
      }
    }
  }
  // Steps until nothing is left; by how much the service of each was ahead of the other's at the most, while both have
  // requests without a token.
  struct Leads {
    double a = 0;
    double b = 0;
  };
  Leads LargestLeads(const std::string& a, const std::string& b) {
    Leads leads;
    while (!AllEnded()) {
      const bool have_work = Waiting(a) > 1 && Waiting(b) > 1;
      Step();
      if (testing::Test::HasFatalFailure()) return leads;
      if (!have_work) continue;
      const double lead = ServiceOf(a) - ServiceOf(b);
      leads = {std::max(leads.a, lead), std::max(leads.b, -lead)};
    }
    return leads;
  }
  double LargestGap(const std::string& a, const std::string& b) {
    const Leads leads = LargestLeads(a, b);
    return std::max(leads.a, leads.b);
  }

  TestFolder folder_{"fairness"};
  std::unique_ptr<CoreDriver> driver_;
  std::map<std::string, std::vector<int64_t>> requests_;
  std::map<int64_t, Size> sizes_;
  int64_t next_ = 1;
  int steps_ = 0;
};

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

// Steps that the requests of a quiet tenant, one at a time, wait for their first token, the fewest first; of these the
// 99th percentile.
class QuietTenantTest : public FairnessTest {
 protected:
  const int kRequests = IsSmall() ? 10 : 40;

  // With `adapters` each request of the flood names another of them in turn, those of the quiet tenant the last, which
  // come `pause` steps after one another.
  std::vector<int> WaitsOfQuiet(bool has_flood, const EngineOptions& options, int64_t adapters, int pause) {
    Open(options);
    requests_.clear();
    for (int64_t handle = 1; handle <= adapters; ++handle) driver_->Register(handle, AdapterOf(handle));
    const auto step = [&] {
      while (has_flood && Waiting("flood") < 30) Submit("flood", Use(adapters > 0 ? 1 + next_ % (adapters - 1) : 0));
      Step();
    };
    std::vector<int> waits;
    for (int i = 0; i < kRequests; ++i) {
      for (int idle = 0; idle < pause; ++idle) step();
      Submit("quiet", Use(adapters));
      const int64_t id = requests_["quiet"].back();
      int wait = 0;
      while (driver_->answer(id).end.empty()) {
        if (driver_->answer(id).tokens.empty()) ++wait;
        step();
        if (testing::Test::HasFatalFailure()) return {1'000'000};
      }
      waits.push_back(wait);
    }
    while (!AllEnded()) Step();
    ExpectAllWhole();
    std::sort(waits.begin(), waits.end());
    return waits;
  }
  int WaitOfQuiet(bool has_flood, const EngineOptions& options, int64_t adapters = 0, int pause = 0) {
    const std::vector<int> waits = WaitsOfQuiet(has_flood, options, adapters, pause);
    return waits[waits.size() * 99 / 100];
  }
  static std::vector<AdapterUse> Use(int64_t handle) {
    return handle == 0 ? std::vector<AdapterUse>() : std::vector<AdapterUse>{{handle, 1.0f}};
  }
};

TEST_F(QuietTenantTest, WaitsNotMuchLongerBesideAFloodWhereRowsAreShort) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 2 * kSize.prompt;  // the half is for prompts
  const int alone = WaitOfQuiet(false, options);
  EXPECT_LE(WaitOfQuiet(true, options), 2 * alone) << "alone " << alone;
}

TEST_F(QuietTenantTest, HasItsPromptInOneStepWhereItFitsIntoOneBesideAnswers) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = kSize.prompt + 3;  // more than the half is for its prompt; an eighth is for answers
  EXPECT_EQ(WaitOfQuiet(false, options), 1);
  const std::vector<int> waits = WaitsOfQuiet(true, options, 0, 0);
  EXPECT_EQ(waits[waits.size() * 3 / 4], 1);  // some turns are of whoever has waited longest
}

// Rows of the steps in which prompts of quiet tenants, that come together, had their first tokens; every third step or
// so, beside a flood that fills all others.
class ShortStepTest : public QuietTenantTest {
 protected:
  static constexpr uint64_t kRows = 64;

  std::vector<uint64_t> RowsOfFirstTokens(const std::vector<std::string>& quiet) {
    EngineOptions options = TinyOptions(folder_);
    options.max_batch_tokens = kRows;
    options.max_step_ms = 1e9;  // no step takes that
    Open(options);
    uint64_t rows_before = 0;
    const auto step = [&] {
      while (Waiting("flood") < 30) Submit("flood");
      Step();
      const uint64_t rows = driver_->core().Stats().rows;
      return rows - std::exchange(rows_before, rows);
    };
    for (int i = 0; i < 10; ++i) step();
    std::vector<uint64_t> rows;
    for (int i = 0; i < 20; ++i) {
      for (int pause = 0; pause < 2; ++pause) EXPECT_EQ(step(), kRows);
      std::vector<int64_t> ids;
      for (const std::string& tenant : quiet) {
        Submit(tenant, {}, 0, {kSize.prompt, 1});
        ids.push_back(requests_[tenant].back());
      }
      const auto all_there = [&] {
        return std::all_of(ids.begin(), ids.end(), [&](int64_t id) { return !driver_->answer(id).tokens.empty(); });
      };
      uint64_t of_step = 0;
      while (!all_there() && !HasFatalFailure()) of_step = step(), ++steps_of_quiet_;
      rows.push_back(of_step);
    }
    std::sort(rows.begin(), rows.end());
    return rows;
  }
  int steps_of_quiet_ = 0;
};

TEST_F(ShortStepTest, OfATargetsRowsThoseWithAQuietPromptHaveHalf) {
  const std::vector<uint64_t> rows = RowsOfFirstTokens({"quiet"});
  EXPECT_EQ(rows.back(), kRows / 2);        // more than the prompt, and an eighth for answers
  EXPECT_LE(steps_of_quiet_, 20 + 20 / 4);  // some turns are of whoever has waited longest
}

TEST_F(ShortStepTest, OrWhatSeveralQuietPromptsNeed) {
  const std::vector<uint64_t> rows = RowsOfFirstTokens({"quiet", "silent"});
  EXPECT_EQ(rows[rows.size() / 2], 2u * kSize.prompt + 2 * kSize.prompt / 7);
  EXPECT_LE(steps_of_quiet_, 20 + 2 * 20 / 4);  // likewise, of two
}

// Four ordinary tenants ask for rather more than half of the rows there are, at random. A prompt takes most of a step.
TEST_F(QuietTenantTest, WaitsForTwoPromptsOfOthersAtMostBesideAFlood) {
  constexpr Size kOf{32, 12};
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 48;
  Open(options);
  uint64_t draws = 0;
  const auto step = [&] {
    while (Waiting("flood") < 36) Submit("flood", {}, 0, kOf);
    for (int tenant = 0; tenant < 4; ++tenant)
      if (PhiloxUniform(9, draws++) < 0.145) Submit("ordinary " + std::to_string(tenant), {}, 0, kOf);
    Step();
  };
  std::vector<int> waits;
  for (int i = 0; i < BySize(60, 400, 400) && !HasFatalFailure(); ++i) {
    for (int idle = 0; idle < 2; ++idle) step();
    Submit("quiet", {}, 0, kOf);
    const int64_t id = requests_["quiet"].back();
    int wait = 0;
    while (driver_->answer(id).end.empty() && !HasFatalFailure()) {
      if (driver_->answer(id).tokens.empty()) ++wait;
      step();
    }
    waits.push_back(wait);
  }
  std::sort(waits.begin(), waits.end());
  EXPECT_LE(waits[waits.size() * 9 / 10], 2);
  EXPECT_LE(waits[waits.size() * 99 / 100], 3);
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

TEST_F(QuietTenantTest, WaitsNotMuchLongerBesideAFloodWhereMemoryIsShort) {
  EngineOptions options = TinyOptions(folder_);
  options.pool_bytes = 16 * 2 * (4 << 10);
  options.max_context = 64;
  const int alone = WaitOfQuiet(false, options);
  EXPECT_LE(WaitOfQuiet(true, options), 2 * alone) << "alone " << alone;
}

// Adapters of requests that run are taken from nobody: it waits for an answer of the flood to end, and for another
// where a turn is of whoever has waited longest.
TEST_F(QuietTenantTest, WaitsForTwoAnswersAtMostOfAFloodThatHasEvictedItsAdapter) {
  constexpr int64_t kAdapters = 21;
  EngineOptions options = TinyOptions(folder_);
  {
    CoreDriver probe(options);
    probe.Register(1, AdapterOf(1));
    options.pool_bytes = 3 * probe.core().pool().BytesOf(probe.core().residency().Find(1)->frames_needed) + (64 << 10);
    options.max_context = 64;
  }
  const int alone = WaitOfQuiet(false, options, kAdapters);
  EXPECT_EQ(alone, 2);  // the load, and the step
  EXPECT_LE(WaitOfQuiet(true, options, kAdapters, 3 * kSize.answer), 2 * kSize.answer + alone);
  // It was evicted almost each time.
  const auto was_there = [&](int64_t request) {
    return driver_->answer(request).usage.adapters[0].tier == Tier::kResident;
  };
  EXPECT_LE(std::count_if(requests_["quiet"].begin(), requests_["quiet"].end(), was_there), kRequests / 10);
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
  options.pool_bytes = 1 << 20;
  Open(options);
  // All that have rows may have waited longer for one, each time: as many as there are frames for a block of two
  // layers.
  const auto others = static_cast<int>(driver_->core().pool().frames_total() / 2);
  Submit("tenant", {}, -1);
  const int64_t low = next_ - 1;
  while (driver_->answer(low).tokens.empty()) Step();
  const int begun = steps_, steps_max = kSize.answer * (others + FairQueue::kStepsPassed);
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
