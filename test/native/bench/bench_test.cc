#include "bench/bench.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "ops/cpu/cpu_ops.h"

namespace openlora::bench {
namespace {

std::vector<BenchEvent> EventsOf(const BenchOptions& options, Status* status,
                                 std::atomic<bool>* is_cancelled = nullptr) {
  std::atomic<bool> never{false};
  std::vector<BenchEvent> events;
  *status = RunBench(options, is_cancelled == nullptr ? never : *is_cancelled,
                     [&](BenchEvent event) { events.push_back(std::move(event)); });
  return events;
}

TEST(Bench, LimitsAreReadingAndEveryInstructionOfTheMachine) {
  Status status;
  const auto events = EventsOf({.kind = "limits", .threads = 2, .simd = "auto", .rounds = 2}, &status);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(events.size(), 2 + InstructionPeaks().size());
  const auto& begun = std::get<BegunEvent>(events[0]);
  EXPECT_EQ(begun.threads, 2);
  EXPECT_EQ(begun.simd, NameOf(AvailableSimdLevels().back()));
  EXPECT_STREQ(std::get<LimitResult>(events[1]).name, "read");
  EXPECT_STREQ(std::get<LimitResult>(events[2]).name, "f32 fma");
  for (size_t i = 1; i < events.size(); ++i) {
    const auto& result = std::get<LimitResult>(events[i]);
    EXPECT_GT(result.low, 0) << result.name;
    EXPECT_LE(result.low, result.median) << result.name;
    EXPECT_LE(result.median, result.high) << result.name;
  }
}

TEST(Bench, PeaksComputeWhatTheyCount) {
  // x = 0.999 x + 0.001 has the fixed point 1: chains that start at 0 … 15 end there. ±1 in pairs adds 0.
  for (const InstructionPeak& peak : InstructionPeaks()) {
    const std::string name = peak.name;
    if (name == "f32 fma") {
      const uint64_t sum = peak.run(200'000);
      EXPECT_GE(sum, 10u);
      EXPECT_LE(sum, 16u);
    }
    if (name == "bf16 dot") {
      EXPECT_EQ(peak.run(0), peak.run(1000));
    }
    if (name == "int8 dot") {
      // Bytes 1 3 2 1 (from the lowest) times -1 1 -1 1 make 1 a round and chain, 16 bits 1 2 times 3 -1 as well; 16 or
      // 12 chains.
      const uint64_t sum = peak.run(1000) - peak.run(0);
      EXPECT_TRUE(sum == 16'000 || sum == 12'000) << sum;
    }
  }
}

TEST(Bench, OpsAgreeWithTheReference) {
  Status status;
  const auto events =
      EventsOf({.kind = "ops", .threads = 1, .simd = "auto", .is_quick = true, .filter = "qkv"}, &status);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_GE(events.size(), 2u);
  for (size_t i = 1; i < events.size(); ++i) {
    const auto& result = std::get<OpResult>(events[i]);
    EXPECT_TRUE(result.is_right()) << result.what << ": " << result.error;
    EXPECT_GT(result.error_max, 0);
    EXPECT_GT(result.us_p10, 0);
    EXPECT_GT(result.bytes, 0);
    EXPECT_TRUE(std::isfinite(result.OfLimit()));
  }
}

TEST(Bench, ACancelledBenchEndsWithoutAResult) {
  Status status;
  std::atomic<bool> is_cancelled{true};
  const auto events = EventsOf({.kind = "ops", .threads = 1, .simd = "auto"}, &status, &is_cancelled);
  EXPECT_STREQ(status.code(), kErrAborted);
  EXPECT_EQ(events.size(), 1u);
}

TEST(Bench, ALevelThatTheMachineLacksIsRefused) {
  Status status;
  const auto events = EventsOf({.kind = "ops", .threads = 1, .simd = "nonsense"}, &status);
  EXPECT_STREQ(status.code(), kErrSimdLevel);
  EXPECT_TRUE(events.empty());
}

}  // namespace
}  // namespace openlora::bench
