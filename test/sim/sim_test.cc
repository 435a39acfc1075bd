#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/plant.h"
#include "sim/simulator.h"
#include "test_size.h"

namespace openlora::sim {
namespace {

// The seeds that the tests of planted bugs use; without a plant they pass, as all do.
constexpr uint64_t kPlantSeeds = 60;
constexpr int64_t kPlantSteps = 1000;

struct Planted {
  Plant plant;
  const char* name;
  std::set<std::string> checks;   // that may find it first
  std::set<std::string> effects;  // the same where the engine isn't asked for its invariants
};

const Planted kPlanted[] = {
    {Plant::kFreedEarly, "freed early", {"memory"}, {"memory"}},
    {Plant::kMissedPin, "missed pin", {"invariants"}, {"engine's check", "watchdog", "wake-up"}},
    {Plant::kPrefixByName, "prefix by name", {"answer"}, {"answer"}},
    {Plant::kBookedTwice,
     "booked twice",
     {"invariants", "counters", "engine's check"},
     {"engine's check", "counters", "drained"}},
    {Plant::kLostWakeUp, "lost wake-up", {"wake-up"}, {"wake-up"}},
    {Plant::kLostLoad, "lost load", {"loads"}, {"loads"}},
    {Plant::kReservationDeadlock, "reservation deadlock", {"unjust failure"}, {"unjust failure"}},
};

TEST(Simulator, BreaksNothingOverManySeeds) {
  const int64_t steps_wanted = BySize<int64_t>(8'000, 50'000, 400'000);
  int64_t steps = 0;
  RunCounts sum;
  for (uint64_t seed = 1; steps < steps_wanted; ++seed) {
    const RunResult result = Simulate({seed, 1000});
    ASSERT_TRUE(result.ok()) << result.report;
    steps += result.steps;
    sum.requests += result.counts.requests;
    sum.tokens += result.counts.tokens;
    sum.cached += result.counts.cached;
    sum.evictions += result.counts.evictions;
    sum.preemptions += result.counts.preemptions;
    sum.failed += result.counts.failed;
    sum.cancelled += result.counts.cancelled;
  }
  // It all happened.
  EXPECT_GT(sum.requests, steps / 20);
  EXPECT_GT(sum.tokens, steps / 4);
  for (const int64_t count : {sum.cached, sum.evictions, sum.preemptions, sum.failed, sum.cancelled})
    EXPECT_GT(count, steps / BySize(2000, 500, 500));
}

// The seeds that showed what the simulator found in the engine, as it was then: what a seed means changes with the
// engine and with the load. Each of these bugs showed in one of about a hundred seeds, so the many seeds above keep
// them too.
TEST(Simulator, KeepsWhatItFoundMended) {
  constexpr struct {
    uint64_t seed;
    const char* what;
  } kFound[] = {
      {25, "after a plan of loads alone the engine slept though others could run"},
      {53, "a running request got none of the frames that a reservation had kept and then failed"},
      {83, "a reservation was taken back from a request that had rows in the same plan"},
      {176, "likewise"},
  };
  for (const auto& found : kFound) {
    const RunResult result = Simulate({found.seed, 500});
    EXPECT_TRUE(result.ok()) << found.what << ": " << result.report;
  }
}

TEST(Simulator, ReplaysARunToItsLastEvent) {
  std::set<uint64_t> traces;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const RunResult first = Simulate({seed, 300}), again = Simulate({seed, 300});
    EXPECT_EQ(first.trace, again.trace) << "seed " << seed;
    EXPECT_EQ(first.steps, again.steps);
    EXPECT_EQ(first.ms, again.ms);
    traces.insert(first.trace);
  }
  EXPECT_EQ(traces.size(), 10u) << "seeds don't matter";
}

TEST(Simulator, ReplaysAFailureToItsStep) {
  for (uint64_t seed = 1; seed <= kPlantSeeds; ++seed) {
    const RunResult first = Simulate({seed, kPlantSteps, Plant::kMissedPin});
    if (first.ok()) continue;
    const RunResult again = Simulate({seed, kPlantSteps, Plant::kMissedPin});
    EXPECT_EQ(first.report, again.report);
    EXPECT_NE(first.report.find("--seed " + std::to_string(seed)), std::string::npos) << first.report;
    EXPECT_NE(first.report.find("step " + std::to_string(first.steps)), std::string::npos) << first.report;
    return;
  }
  FAIL() << "no seed failed";
}

// The first of the seeds that finds it must do so by a check that is made for it.
void ExpectFound(const Planted& planted, bool asks_engine, const std::set<std::string>& checks) {
  for (uint64_t seed = 1; seed <= kPlantSeeds; ++seed) {
    RunOptions options{seed, kPlantSteps, planted.plant};
    options.asks_engine = asks_engine;
    const RunResult result = Simulate(options);
    if (result.ok()) continue;
    EXPECT_TRUE(checks.contains(result.check)) << planted.name << ", " << result.report;
    return;
  }
  ADD_FAILURE() << planted.name << " is found by none of " << kPlantSeeds << " seeds";
}

TEST(Simulator, FindsEveryPlantedBug) {
  for (const Planted& planted : kPlanted) ExpectFound(planted, true, planted.checks);
}

// EngineCore::CheckInvariants is one check among several: what breaks an invariant also has an effect, and that is
// found too.
TEST(Simulator, FindsEveryPlantedBugByItsEffectToo) {
  for (const Planted& planted : kPlanted) ExpectFound(planted, false, planted.effects);
}

TEST(Simulator, PassesTheSameSeedsWithoutAPlant) {
  for (uint64_t seed = 1; seed <= kPlantSeeds; ++seed) {
    const RunResult result = Simulate({seed, kPlantSteps});
    ASSERT_TRUE(result.ok()) << result.report;
  }
}

}  // namespace
}  // namespace openlora::sim
