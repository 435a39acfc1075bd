#include "engine/step_pace.h"

#include <gtest/gtest.h>

#include "native/engine/core_driver.h"
#include "native/engine/tiny_model.h"

namespace openlora {
namespace {

// Steps of a machine that takes `ms` for each row, all of them full; the rows of the last one.
int32_t RowsAfter(StepPace pace, int steps, double ms) {
  for (int i = 0; i < steps; ++i) pace.Took(pace.rows(), pace.rows() * ms);
  return pace.rows();
}

TEST(StepPaceTest, RowsBecomeThoseThatTakeTheTarget) {
  EXPECT_EQ(RowsAfter({256, 250}, 20, 2.5), 100);
  EXPECT_EQ(RowsAfter({256, 250}, 20, 6.25), 40);
  EXPECT_EQ(RowsAfter({256, 250}, 20, 0.5), 256);
  EXPECT_EQ(RowsAfter({256, 250}, 20, 100), 16);
}

TEST(StepPaceTest, WithoutATargetThereAreAlwaysAllRows) {
  EXPECT_EQ(RowsAfter({256, 0}, 20, 1000), 256);
  EXPECT_EQ(RowsAfter({8, 250}, 20, 1000), 8);
}

TEST(StepPaceTest, OneSlowStepHalvesThemAndFullOnesBringThemBack) {
  StepPace pace(256, 250);
  for (int i = 0; i < 20; ++i) pace.Took(pace.rows(), pace.rows());
  ASSERT_EQ(pace.rows(), 250);
  pace.Took(250, 10'000);
  EXPECT_EQ(pace.rows(), 125);
  EXPECT_EQ(RowsAfter(pace, 4, 1), 250);
}

TEST(StepPaceTest, StepsOfFewRowsSayNothing) {
  StepPace pace(256, 250);
  pace.Took(3, 400);  // the bytes of the base take that, whatever the rows
  pace.Took(3, 1);
  EXPECT_EQ(pace.rows(), 64);
}

// Rows of each step of requests whose prompts have 100 tokens.
std::vector<uint64_t> RowsOfSteps(int requests, double max_step_ms) {
  const TestFolder folder("step_pace");
  EngineOptions options = TinyOptions(folder);
  options.max_batch_tokens = 256;
  options.max_step_ms = max_step_ms;
  CoreDriver driver(options);
  for (int64_t id = 1; id <= requests; ++id)
    driver.core().Submit(MakeRequest(id, std::vector<int32_t>(100, static_cast<int32_t>(id)), 1));
  std::vector<uint64_t> rows;
  uint64_t before = 0;
  while (driver.core().requests() > 0 && rows.size() < 100) {
    driver.core().Step();
    driver.Read();
    const uint64_t now = driver.core().Stats().rows;
    rows.push_back(now - before);
    before = now;
  }
  return rows;
}

// A target that no step meets.
constexpr double kNever = 1e-9;

TEST(StepPaceTest, SlowStepsOfSeveralRequestsGetFewerRows) {
  const std::vector<uint64_t> rows = RowsOfSteps(2, kNever);
  ASSERT_GE(rows.size(), 4u);
  EXPECT_EQ(rows[0], 64u);
  EXPECT_EQ(rows[1], 32u);
  EXPECT_EQ(rows[2], 16u);
}

TEST(StepPaceTest, ALoneRequestGetsAllRows) { EXPECT_EQ(RowsOfSteps(1, kNever)[0], 100u); }

TEST(StepPaceTest, NoTargetGivesAllRowsToSeveral) { EXPECT_EQ(RowsOfSteps(2, 0)[0], 200u); }

}  // namespace
}  // namespace openlora
