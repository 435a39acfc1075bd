#include "memory/frame_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/prng.h"
#include "ops/cpu/cpu_device.h"

namespace openlora {
namespace {

constexpr int64_t kFrameBytes = 4096;
constexpr int64_t kBesideBytes = 72;

class FramePoolTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(pool_.Open(&device_, kFrameBytes, kBesideBytes, 8, true).ok()); }
  bool IsFilled(uint32_t frame, uint8_t value) const {
    const auto is_value = [value](uint8_t byte) { return byte == value; };
    return std::all_of(pool_.Frame(frame), pool_.Frame(frame) + kFrameBytes, is_value) &&
           std::all_of(pool_.Beside(frame), pool_.Beside(frame) + kBesideBytes, is_value);
  }

  CpuDevice device_;
  FramePool pool_;
};

TEST_F(FramePoolTest, TakesAllOrNothing) {
  std::vector<uint32_t> frames;
  EXPECT_FALSE(pool_.Take(9, FrameUse::kKv, &frames));
  EXPECT_TRUE(frames.empty());
  EXPECT_TRUE(pool_.Take(8, FrameUse::kKv, &frames));
  std::sort(frames.begin(), frames.end());
  EXPECT_EQ(std::unique(frames.begin(), frames.end()) - frames.begin(), 8);
  EXPECT_FALSE(pool_.Take(1, FrameUse::kAdapter, &frames));
  EXPECT_TRUE(pool_.IsConsistent());
}

TEST_F(FramePoolTest, AFrameIsFreeOnlyAfterTheLastStepThatCouldReadIt) {
  std::vector<uint32_t> frames, again;
  ASSERT_TRUE(pool_.Take(8, FrameUse::kAdapter, &frames));
  pool_.Retire(frames, FrameUse::kAdapter, 5);
  pool_.Reclaim(4);
  EXPECT_EQ(pool_.frames(FrameUse::kRetiring), 8);
  EXPECT_FALSE(pool_.Take(1, FrameUse::kKv, &again));
  pool_.Reclaim(5);
  EXPECT_TRUE(pool_.Take(8, FrameUse::kKv, &again));
}

TEST_F(FramePoolTest, FreedFramesArePoisonedAndKvFramesComeZeroed) {
  std::vector<uint32_t> frames;
  ASSERT_TRUE(pool_.Take(1, FrameUse::kKv, &frames));
  const uint32_t frame = frames[0];
  EXPECT_TRUE(IsFilled(frame, 0));
  pool_.Retire(frames, FrameUse::kKv, 1);
  pool_.Reclaim(1);
  EXPECT_TRUE(IsFilled(frame, 0xff));
  frames.clear();
  ASSERT_TRUE(pool_.Take(1, FrameUse::kKv, &frames));
  EXPECT_EQ(frames[0], frame);
  EXPECT_TRUE(IsFilled(frame, 0));
}

TEST_F(FramePoolTest, KvFramesComeAsTheyAreWhereOpsNeedNoZeros) {
  pool_.LeaveKv();
  std::vector<uint32_t> frames;
  ASSERT_TRUE(pool_.Take(1, FrameUse::kKv, &frames));
  pool_.Retire(frames, FrameUse::kKv, 1);
  pool_.Reclaim(1);
  const uint32_t freed = frames[0];
  frames.clear();
  ASSERT_TRUE(pool_.Take(1, FrameUse::kKv, &frames));
  EXPECT_EQ(frames[0], freed);
  EXPECT_TRUE(IsFilled(freed, 0xff));
}

TEST_F(FramePoolTest, WhatStandsBesideAFrameIsItsOwnAndIsCounted) {
  EXPECT_EQ(pool_.BytesOf(3), 3 * (kFrameBytes + kBesideBytes));
  std::vector<uint32_t> frames;
  ASSERT_TRUE(pool_.Take(8, FrameUse::kKv, &frames));
  for (const uint32_t frame : frames) std::fill_n(pool_.Beside(frame), kBesideBytes, static_cast<uint8_t>(frame + 1));
  for (const uint32_t frame : frames) {
    EXPECT_EQ(pool_.Beside(frame)[0], frame + 1);
    EXPECT_EQ(pool_.Beside(frame)[kBesideBytes - 1], frame + 1);
    EXPECT_EQ(pool_.Frame(frame)[0], 0);
  }
  FramePool plain;
  ASSERT_TRUE(plain.Open(&device_, kFrameBytes, 0, 8, true).ok());
  EXPECT_EQ(plain.beside(), nullptr);
  EXPECT_EQ(plain.BytesOf(3), 3 * kFrameBytes);
}

TEST_F(FramePoolTest, CountsAddUpOverARandomLife) {
  struct Holding {
    std::vector<uint32_t> frames;
    FrameUse use;
  };
  std::vector<Holding> holdings;
  for (uint64_t step = 1; step < 3000; ++step) {
    const uint64_t draw = Philox(11, step);
    Holding holding{{}, draw % 2 == 0 ? FrameUse::kKv : FrameUse::kAdapter};
    if (draw % 3 != 0 && pool_.Take(static_cast<int64_t>(draw / 8 % 4), holding.use, &holding.frames))
      holdings.push_back(holding);
    if (draw % 3 == 0 && !holdings.empty()) {
      pool_.Retire(holdings.back().frames, holdings.back().use, step);
      holdings.pop_back();
    }
    pool_.Reclaim(step - draw / 64 % 2);
    ASSERT_TRUE(pool_.IsConsistent()) << "step " << step;
  }
}

}  // namespace
}  // namespace openlora
