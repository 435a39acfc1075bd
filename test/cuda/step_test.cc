// What the host lays out for a step: waves of entries, who attends which rows.

#include <gtest/gtest.h>

#include <vector>

#include "kernels/lora.h"
#include "ops/attention_plan.h"
#include "ops/lora_waves.h"

namespace openlora {
namespace {

struct Entries {
  std::vector<int32_t> rows, starts{0}, slots;

  void Add(int32_t slot, const std::vector<int32_t>& of_segment) {
    rows.insert(rows.end(), of_segment.begin(), of_segment.end());
    starts.push_back(static_cast<int32_t>(rows.size()));
    slots.push_back(slot);
  }
  std::vector<LoraWave> Waves(int32_t row_count) const {
    return WavesOf({static_cast<int32_t>(rows.size()), rows.data(), nullptr, static_cast<int32_t>(slots.size()),
                    starts.data(), slots.data()},
                   row_count);
  }
};

TEST(CudaStepTest, ARowIsInAWaveOnce) {
  Entries entries;
  entries.Add(4, {0, 1});
  entries.Add(7, {2, 5});
  entries.Add(7, {1});  // the second adapter of row 1
  entries.Add(9, {2, 3});
  entries.Add(4, {3});
  const std::vector<LoraWave> waves = entries.Waves(6);
  ASSERT_EQ(waves.size(), 3u);
  EXPECT_EQ(waves[0].segment_slot, (std::vector<int32_t>{4, 7}));
  EXPECT_EQ(waves[0].segment_start, (std::vector<int32_t>{0, 2, 4}));
  EXPECT_EQ(waves[1].entry_begin, 4);
  EXPECT_EQ(waves[1].entry_end, 7);
  EXPECT_EQ(waves[1].segment_start, (std::vector<int32_t>{0, 1, 3}));
  EXPECT_EQ(waves[2].segment_slot, (std::vector<int32_t>{4}));
  EXPECT_TRUE(Entries().Waves(6).empty());
}

TEST(CudaStepTest, AWaveHasNoMoreSegmentsThanALaunchTakes) {
  Entries entries;
  for (int32_t row = 0; row < lora::kSegmentsMax + 3; ++row) entries.Add(row % 11, {row});
  const std::vector<LoraWave> waves = entries.Waves(lora::kSegmentsMax + 3);
  ASSERT_EQ(waves.size(), 2u);
  EXPECT_EQ(waves[0].segment_slot.size(), static_cast<size_t>(lora::kSegmentsMax));
  EXPECT_EQ(waves[1].entry_begin, lora::kSegmentsMax);
  EXPECT_EQ(waves[1].segment_start, (std::vector<int32_t>{0, 1, 2, 3}));
}

TEST(CudaStepTest, FewRowsAreSplitWhereThereIsRoomAndOthersAreNot) {
  // Positions 1,000 (four splits) and 300 (two); then 20 rows, more than a tile takes with four heads to a KV head.
  std::vector<int32_t> pos{1000, 300}, sequence{0, 1};
  for (int32_t row = 0; row < 20; ++row) {
    pos.push_back(row);
    sequence.push_back(2);
  }
  const RowsView rows{22, nullptr, pos.data(), sequence.data(), nullptr};
  AttentionPlan plan;
  plan.Build(rows, {.group = 4, .prefill_warps = 4, .places = 6});
  EXPECT_EQ(plan.decode.size(), 6u);
  EXPECT_EQ(plan.merge_row, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(plan.row_place[1], 4);
  ASSERT_EQ(plan.prefill.size(), 2u);  // 80 pairs of a row and a head, 64 to a block
  EXPECT_EQ(plan.prefill[1].pair, 64);
  EXPECT_EQ(plan.prefill[1].pairs, 16);
  EXPECT_EQ(plan.prefill[1].split, attention::kAllSplits);
  plan.Build(rows, {.group = 4, .prefill_warps = 4, .places = 5});
  EXPECT_EQ(plan.merge_row, (std::vector<int32_t>{0}));
  EXPECT_EQ(plan.prefill.size(), 3u);
}

}  // namespace
}  // namespace openlora
