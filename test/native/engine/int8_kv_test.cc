// What an engine with int8 KV does that other dtypes don't: scales beside the frames.

#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "engine/core_driver.h"
#include "engine/tiny_model.h"

namespace openlora {
namespace {

constexpr int64_t kScales = 2 * 2 * 16 * 2;  // K and V, two heads, 16 tokens, bf16
constexpr int64_t kFrame = 4096 + kScales;

EngineOptions Int8Options(const TestFolder& folder) {
  EngineOptions options = TinyOptions(folder);
  options.kv_dtype = DType::kI8;
  return options;
}

TEST(Int8KvTest, FramesPayForTheirScalesInEveryFigure) {
  const TestFolder folder("int8-bytes");
  EngineOptions options = Int8Options(folder);
  options.pool_bytes = 60 * kFrame + kFrame - 1;
  CoreDriver driver(std::move(options));
  ASSERT_TRUE(driver.opened().ok()) << driver.opened().message();
  driver.Read();
  EXPECT_EQ(driver.opened_event().pool_bytes, 60 * kFrame);
  EXPECT_EQ(driver.core().pool().frames_total(), 60);
  driver.Register(1, TinyAdapter(folder, "a", 8, 0, 5));
  driver.core().Submit(MakeRequest(1, std::vector<int32_t>(40, 3), 4, {{1, 1.0f}}));
  while (driver.answer(1).tokens.empty()) {
    driver.core().Step();
    if (driver.has_loader_work()) driver.DoLoaderWork();
    driver.Read();
  }
  const EngineStats stats = driver.core().Stats();
  const int64_t adapter_frames = driver.core().pool().frames(FrameUse::kAdapter);
  EXPECT_GT(adapter_frames, 0);
  EXPECT_EQ(stats.bytes_kv, 2 * 3 * kFrame);  // two layers, three blocks of 16 tokens
  EXPECT_EQ(stats.bytes_adapters, adapter_frames * kFrame);
  EXPECT_EQ(stats.bytes_pool, 60 * kFrame);
  EXPECT_EQ(stats.bytes_pool_free, (60 - 6 - adapter_frames) * kFrame);
  driver.Run();
  EXPECT_EQ(driver.answer(1).end, "length");
}

TEST(Int8KvTest, LimitsCountTheScales) {
  const TestFolder folder("int8-limits");
  EngineOptions options = Int8Options(folder);
  options.max_context = 64;  // four blocks of two layers
  options.pool_bytes = 8 * kFrame;
  EXPECT_TRUE(CoreDriver(options).opened().ok());
  options.pool_bytes = 8 * kFrame - 1;
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrLimits);
}

// Everything that the pool has is used, given back, and used by others: poisoned in between, or as it was left.
TEST(Int8KvTest, ScalesOfEarlierSequencesAreNeverRead) {
  for (const bool poisons : {true, false}) {
    const TestFolder folder("int8-stale");
    EngineOptions options = Int8Options(folder);
    options.max_context = 64;
    options.pool_bytes = 8 * kFrame;
    options.poisons_freed = poisons;
    CoreDriver driver(std::move(options));
    ASSERT_TRUE(driver.opened().ok());
    const auto ask = [&](int64_t id, int32_t token, int32_t length) {
      driver.core().Submit(MakeRequest(id, std::vector<int32_t>(static_cast<size_t>(length), token), 64 - length));
      driver.Run();
      EXPECT_EQ(driver.answer(id).end, "length");
      return driver.answer(id);
    };
    const Answer first = ask(1, 7, 3);
    for (int64_t id = 2; id < 6; ++id) ask(id, static_cast<int32_t>(id * 11), 50);
    const Answer again = ask(9, 7, 3);
    EXPECT_EQ(first.tokens, again.tokens);
    EXPECT_EQ(first.logprobs, again.logprobs);
  }
}

TEST(Int8KvTest, ANaNEndsItsRequestAlone) {
  const TestFolder folder("int8-nan");
  EngineOptions options = Int8Options(folder);
  {
    std::fstream file(options.files[0], std::ios::in | std::ios::out | std::ios::binary);
    const std::vector<float> nan(48, std::numeric_limits<float>::quiet_NaN());
    file.seekp(options.tensors[0].range.offset + 100 * 48 * 4);
    file.write(reinterpret_cast<const char*>(nan.data()), 48 * 4);
  }
  CoreDriver driver(std::move(options));
  ASSERT_TRUE(driver.opened().ok());
  // The last token's own embedding is finite: what it has of token 100 are its K and V.
  driver.core().Submit(MakeRequest(1, {1, 2}, 5));
  driver.core().Submit(MakeRequest(2, {100, 1}, 5));
  driver.Run();
  EXPECT_EQ(driver.answer(1).end, "length");
  EXPECT_EQ(driver.answer(2).end, kErrNotFinite);
}

}  // namespace
}  // namespace openlora
