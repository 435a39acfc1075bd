// What a tenant that asks for little waits beside one that asks for much.

#include "engine/fairness_fixture.h"

namespace openlora {
namespace {

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

}  // namespace
}  // namespace openlora
