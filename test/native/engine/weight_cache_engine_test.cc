#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "engine/core_driver.h"
#include "engine/engine.h"
#include "engine/tiny_model.h"
#include "model/forwarding_ops.h"

namespace openlora {
namespace {

namespace fs = std::filesystem;

class NoPacking : public ForwardingOps {
 public:
  using ForwardingOps::ForwardingOps;
  void Pack(const SourceView&, WeightFormat, int64_t, int64_t, void*) override { ADD_FAILURE() << "packed again"; }
};

class EngineCacheTest : public testing::Test {
 protected:
  EngineOptions Options(WeightFormat format = DType::kF32, SimdLevel level = SimdLevel::kAuto) {
    EngineOptions options = TinyOptions(folder_, 1, level, format);
    fs::last_write_time(options.files[0], written_);  // by each TinyOptions anew, with the same content
    options.cache_dir = cache_;
    return options;
  }
  static EngineOptions WithoutPacking(EngineOptions options) {
    options.open_backend = [open = options.open_backend](Backend* backend) {
      const Status status = open(backend);
      backend->ops = std::make_unique<NoPacking>(std::move(backend->ops));
      return status;
    };
    return options;
  }
  // What a start found, and what its engine answers.
  struct Start {
    OpenedEvent opened;
    std::vector<LoadPhase> phases;
    Answer answer;
  };
  static Start Run(const EngineOptions& options) {
    CoreDriver driver(options);
    EXPECT_TRUE(driver.opened().ok()) << driver.opened().message();
    if (!driver.opened().ok()) return {};
    driver.core().Submit(MakeRequest(1, {1, 2, 3}, 12));
    driver.Run();
    Start start{driver.opened_event(), {}, driver.answer(1)};
    for (const ProgressEvent& event : driver.progress()) {
      EXPECT_LE(event.bytes_done, event.bytes_total);
      if (start.phases.empty() || start.phases.back() != event.phase) start.phases.push_back(event.phase);
    }
    EXPECT_EQ(driver.progress().back().bytes_done, driver.progress().back().bytes_total);
    EXPECT_EQ(driver.core().Stats().bytes_base, start.opened.weight_bytes);
    return start;
  }
  static void ExpectSame(const Answer& one, const Answer& two) {
    EXPECT_EQ(one.tokens, two.tokens);
    EXPECT_EQ(one.logprobs, two.logprobs);
  }
  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    if (!fs::exists(cache_)) return files;
    for (const auto& entry : fs::directory_iterator(cache_)) files.push_back(entry.path());
    return files;
  }

  TestFolder folder_{"engine-cache"};
  std::string cache_ = folder_.File("packed");
  fs::file_time_type written_ = fs::file_time_type::clock::now();
};

using Phases = std::vector<LoadPhase>;
const Phases kPacked = {LoadPhase::kWeights, LoadPhase::kPack, LoadPhase::kCache};
const Phases kMapped = {LoadPhase::kWeights};

TEST_F(EngineCacheTest, TheSecondStartPacksNothingAndAnswersTheSameBits) {
  for (const WeightFormat::Kind format :
       {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    const Start first = Run(Options(format)), second = Run(WithoutPacking(Options(format)));
    EXPECT_FALSE(first.opened.is_from_cache);
    EXPECT_TRUE(second.opened.is_from_cache);
    EXPECT_EQ(first.opened.cache_warning + second.opened.cache_warning, "");
    EXPECT_EQ(first.phases, kPacked);
    EXPECT_EQ(second.phases, kMapped);
    EXPECT_EQ(first.opened.digest, second.opened.digest);
    ExpectSame(first.answer, second.answer);
    EXPECT_EQ(first.answer.tokens.size(), 12u);
  }
}

TEST_F(EngineCacheTest, WhatOneLevelPackedEveryLevelReads) {
  for (const WeightFormat::Kind format : {WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    const Start packed = Run(Options(format, SimdLevel::kScalar));
    for (const SimdLevel level : AvailableSimdLevels()) {
      const Start mapped = Run(WithoutPacking(Options(format, level)));
      EXPECT_TRUE(mapped.opened.is_from_cache) << NameOf(level);
      ExpectSame(packed.answer, mapped.answer);
    }
  }
}

TEST_F(EngineCacheTest, WithoutAFolderNothingIsKept) {
  EngineOptions options = Options();
  options.cache_dir = "";
  EXPECT_EQ(Run(options).phases, (Phases{LoadPhase::kWeights, LoadPhase::kPack}));
  EXPECT_TRUE(Files().empty());
}

TEST_F(EngineCacheTest, ADamagedFileIsPackedAnewWithoutAWord) {
  const Start first = Run(Options());
  const fs::path file = Files().at(0);
  const auto size = fs::file_size(file);
  for (const auto& damage :
       std::vector<std::function<void()>>{[&] { fs::resize_file(file, size / 2); }, [&] { fs::resize_file(file, 0); },
                                          [&] {
                                            fs::resize_file(file, 4096);
                                            fs::resize_file(file, size);  // zeros
                                          },
                                          [&] { std::fstream(file, std::ios::in | std::ios::out).seekp(9).put(2); }}) {
    damage();
    const Start again = Run(Options()), third = Run(WithoutPacking(Options()));
    EXPECT_FALSE(again.opened.is_from_cache);
    EXPECT_EQ(again.opened.cache_warning, "");
    ExpectSame(first.answer, again.answer);
    EXPECT_TRUE(third.opened.is_from_cache);
    ExpectSame(first.answer, third.answer);
  }
  EXPECT_EQ(Files().size(), 1u);
}

TEST_F(EngineCacheTest, AChangeOfTheCheckpointIsSeenThoughNoFirstBytesChanged) {
  const Start first = Run(Options());
  const EngineOptions options = Options();
  // The last weight of the embedding, beyond its first 4 KiB.
  const TensorRange& embed = options.tensors[0].range;
  ASSERT_GT(embed.bytes, 8192);
  const std::vector<float> large(1024, 3.0f);
  std::fstream(options.files[0], std::ios::in | std::ios::out | std::ios::binary)
      .seekp(embed.offset + 4096)
      .write(reinterpret_cast<const char*>(large.data()), 4096);
  fs::last_write_time(options.files[0], written_ + std::chrono::milliseconds(1));
  const Start changed = Run(options), again = Run(WithoutPacking(options));
  EXPECT_EQ(changed.opened.digest, first.opened.digest);
  EXPECT_FALSE(changed.opened.is_from_cache);
  EXPECT_NE(changed.answer.logprobs, first.answer.logprobs);
  EXPECT_TRUE(again.opened.is_from_cache);
  ExpectSame(changed.answer, again.answer);
}

TEST_F(EngineCacheTest, AFolderThatCantBeUsedIsAWarningAndTheBaseServes) {
  EngineOptions plain = Options();
  plain.cache_dir = "";
  const Start packed = Run(plain);
  EngineOptions options = Options();
  options.cache_dir = options.files[0] + "/below a file";
  const Start start = Run(options);
  EXPECT_FALSE(start.opened.is_from_cache);
  EXPECT_NE(start.opened.cache_warning.find(options.cache_dir), std::string::npos) << start.opened.cache_warning;
  ExpectSame(packed.answer, start.answer);

  // One that can neither be read nor written.
  Run(Options());
  const fs::path file = Files().at(0);
  fs::remove(file);
  fs::create_directory(file);
  const Start occupied = Run(Options());
  EXPECT_NE(occupied.opened.cache_warning.find("not a regular file; "), std::string::npos)
      << occupied.opened.cache_warning;
  ExpectSame(packed.answer, occupied.answer);
}

TEST_F(EngineCacheTest, ManyStartsAtOnceAllServeAndLeaveOneFile) {
  const Start alone = Run(Options());
  for (int round = 0; round < 10; ++round) {
    fs::remove_all(cache_);
    const EngineOptions options = Options();
    std::vector<Start> starts(4);
    std::vector<std::thread> threads;
    for (Start& start : starts) threads.emplace_back([&start, &options] { start = Run(options); });
    for (std::thread& thread : threads) thread.join();
    for (const Start& start : starts) {
      EXPECT_EQ(start.opened.cache_warning, "");
      ExpectSame(alone.answer, start.answer);
    }
    EXPECT_EQ(Files().size(), 1u);
    EXPECT_TRUE(Run(options).opened.is_from_cache);
  }
}

TEST_F(EngineCacheTest, ClosingWhileTheFileIsWrittenLeavesNone) {
  std::mutex mutex;
  std::condition_variable news;
  std::string error;
  bool is_closed = false, was_writing = false;
  std::unique_ptr<Engine> engine;
  std::unique_lock lock(mutex);
  // On the engine's thread, which waits in here.
  engine = std::make_unique<Engine>(Options(), [&] {
    const std::lock_guard reading(mutex);
    for (const ControlEvent& event : engine->Take().events) {
      if (const auto* failed = std::get_if<OpenFailedEvent>(&event)) error = failed->status.code();
      is_closed = is_closed || std::holds_alternative<ClosedEvent>(event);
      const auto* progress = std::get_if<ProgressEvent>(&event);
      if (progress == nullptr || progress->phase != LoadPhase::kCache) continue;
      EXPECT_EQ(Files().size(), 1u) << "it is being written";
      was_writing = true;
      engine->Close();
    }
    news.notify_one();
  });
  ASSERT_TRUE(news.wait_for(lock, std::chrono::seconds(60), [&] { return is_closed; }));
  lock.unlock();
  EXPECT_TRUE(was_writing);
  EXPECT_EQ(error, kErrAborted);
  EXPECT_TRUE(Files().empty());
}

}  // namespace
}  // namespace openlora
