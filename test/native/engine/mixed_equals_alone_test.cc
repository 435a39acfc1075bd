#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "engine/mixed_run.h"

namespace openlora {
namespace {

TEST(MixedEqualsAloneTest, WhateverTheChunksTheArrivalsTheCancelsAndTheThreads) {
  const TestFolder folder("mixed");
  const std::vector<Answer> alone = Alone(folder);
  const EngineStats stats =  // teams need 35 rows
      ExpectSame(folder, alone, {.seed = 5, .threads = 2, .max_batch_tokens = 61, .cancels = true});
  EXPECT_GT(stats.prefix_tokens_found, BySize(50u, 100u, 100u));
  if (IsSmall()) return;
  ExpectSame(folder, alone, {.seed = 1});
  ExpectSame(folder, alone, {.seed = 2, .threads = 2, .max_batch_tokens = 7});
  ExpectSame(folder, alone, {.seed = 3, .threads = 3, .max_batch_tokens = 1});
  ExpectSame(folder, alone, {.seed = 7, .threads = 3, .max_batch_tokens = 61});
  ExpectSame(folder, alone, {.seed = 5, .max_batch_tokens = 13, .cancels = true});
  for (uint64_t seed = 1000; seed < BySize(1000u, 1000u, 1200u) && !HasFailure(); ++seed) {
    const uint64_t draw = Philox(17, seed);
    ExpectSame(folder, alone,
               {.seed = seed,
                .threads = 1 + static_cast<int>(draw % 3),
                .max_batch_tokens = 1 + static_cast<int32_t>(draw / 4 % 90),
                .cancels = draw / 1024 % 2 == 0});
  }
}

TEST(MixedEqualsAloneTest, UnderEvictionReloadAndPreemption) {
  const TestFolder folder("pressure");
  const std::vector<Answer> alone = Alone(folder);
  for (uint64_t seed = 6; seed < BySize(7u, 9u, 109u) && !HasFailure(); ++seed) {
    const EngineStats stats = ExpectSame(
        folder, alone,
        {.seed = seed, .threads = 2, .max_batch_tokens = 32, .pool_bytes = 60 * 4096, .cancels = seed % 4 == 0});
    EXPECT_GT(stats.adapter_evictions, 10u);
    EXPECT_GT(stats.preemptions, 0u);
  }
}

TEST(MixedEqualsAloneTest, InSixteenEightAndFourBits) {
  const TestFolder folder("dtypes");
  for (const WeightFormat dtype :
       {WeightFormat::kBF16, WeightFormat::kF16, WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kBF16Dot}) {
    SCOPED_TRACE(NameOf(dtype));
    const std::vector<Answer> alone = Alone(folder, dtype);
    ExpectSame(folder, alone, {.seed = 10, .threads = 2, .max_batch_tokens = 61, .cancels = true, .dtype = dtype});
    if (IsSmall()) continue;
    ExpectSame(folder, alone, {.seed = 11, .threads = 3, .max_batch_tokens = 5, .dtype = dtype});
    const EngineStats stats = ExpectSame(
        folder, alone, {.seed = 12, .threads = 2, .max_batch_tokens = 32, .pool_bytes = 50 * 4096, .dtype = dtype});
    EXPECT_GT(stats.adapter_evictions, 0u);
  }
}

TEST(MixedEqualsAloneTest, WithAdaptersInInt8) {
  const TestFolder folder("int8-adapters");
  for (const WeightFormat dtype : {WeightFormat::kF32, WeightFormat::kInt8}) {
    SCOPED_TRACE(NameOf(dtype));
    const std::vector<Answer> alone = Alone(folder, dtype, TinyConfig(), {.adapter = DType::kI8});
    MixedRun run{.seed = 20, .threads = 2, .max_batch_tokens = 61, .cancels = true, .dtype = dtype};
    run.variant.adapter = DType::kI8;
    ExpectSame(folder, alone, run);
    for (const SimdLevel level : AvailableSimdLevels()) {
      if (IsSmall()) continue;
      run.simd = level;
      ExpectSame(folder, alone, run);
    }
    // Evicted and loaded again, they are the same bits.
    run.simd = SimdLevel::kAuto;
    run.seed = 21;
    run.pool_bytes = 60 * 4096;
    EXPECT_GT(ExpectSame(folder, alone, run).adapter_evictions, 0u);
  }
}

// Chunks, threads, preemption with recomputing, frames freed and taken again (poisoned in between, as are their
// scales), windows and soft caps; heads with a tail, and frames of fewer than 16 tokens.
void ExpectSameOverKv(WeightFormat dtype, DType kv) {
  ModelConfig windows = TinyConfig();
  windows.layer_options = {{13, 0}, {0, -1}};
  windows.attention_soft_cap = 2;
  ModelConfig wide = TinyConfig();  // a frame holds 8 tokens in int8: 16 would take 84 KiB; 4 in bf16
  wide.kv_heads = 4;
  wide.heads = 4;
  wide.head_dim = 660;
  for (const auto& [name, model] : {std::pair{"kv", TinyConfig()}, {"kv-windows", windows}, {"kv-wide", wide}}) {
    SCOPED_TRACE(name);
    const TestFolder folder(name);
    const std::vector<Answer> alone = Alone(folder, dtype, model, {.kv = kv});
    const bool is_wide = model.head_dim > 12;
    MixedRun run{.seed = 21, .threads = 2, .max_batch_tokens = 61, .cancels = true, .dtype = dtype, .model = model};
    run.variant.kv = kv;
    if (is_wide) run.pool_bytes = 16 << 20;
    ExpectSame(folder, alone, run);
    if (is_wide) continue;
    run.seed = 22;
    run.max_batch_tokens = 32;
    run.pool_bytes = 60 * (4096 + KvScaleBytes(kv, 2, 16));  // as many frames as the other dtypes have under pressure
    const EngineStats stats = ExpectSame(folder, alone, run);
    EXPECT_GT(stats.adapter_evictions, 0u);
    EXPECT_GT(stats.preemptions, 0u);
    if (IsSmall()) continue;
    run = {.seed = 23, .threads = 3, .max_batch_tokens = 5, .dtype = dtype, .model = model, .variant = {.kv = kv}};
    ExpectSame(folder, alone, run);
    for (const SimdLevel level : AvailableSimdLevels()) {
      run = {.seed = 24, .simd = level, .dtype = dtype, .model = model, .variant = {.kv = kv}};
      ExpectSame(folder, alone, run);
    }
  }
}

TEST(MixedEqualsAloneTest, WithKVInInt8) { ExpectSameOverKv(DType::kF32, DType::kI8); }

TEST(MixedEqualsAloneTest, WithAttentionByBF16Dots) { ExpectSameOverKv(WeightFormat::kInt8, DType::kBF16); }

// What the families add to TinyConfig.
TEST(MixedEqualsAloneTest, OnEveryKindOfDecoder) {
  for (const auto& [name, model] : FamiliesOf(TinyConfig())) {
    SCOPED_TRACE(name);
    const TestFolder folder(name);
    const std::vector<Answer> alone = Alone(folder, DType::kF32, model);
    ExpectSame(folder, alone, {.seed = 13, .threads = 2, .max_batch_tokens = 61, .cancels = true, .model = model});
    if (IsSmall()) continue;
    ExpectSame(folder, alone, {.seed = 14, .threads = 3, .max_batch_tokens = 5, .model = model});
    ExpectSame(folder, alone,
               {.seed = 15, .threads = 2, .max_batch_tokens = 32, .pool_bytes = 60 * 4096, .model = model});
  }
}

TEST(MixedEqualsAloneTest, OnEverySimdLevel) {
  const TestFolder folder("levels");
  const std::vector<Answer> alone = Alone(folder);
  for (const SimdLevel level : AvailableSimdLevels()) ExpectSame(folder, alone, {.seed = 9, .simd = level});
}

}  // namespace
}  // namespace openlora
