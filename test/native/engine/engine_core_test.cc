#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "engine/core_driver.h"
#include "engine/tiny_model.h"

namespace openlora {
namespace {

class EngineCoreTest : public testing::Test {
 protected:
  void Open(EngineOptions options) {
    driver_ = std::make_unique<CoreDriver>(std::move(options));
    ASSERT_TRUE(driver_->opened().ok()) << driver_->opened().message();
  }
  Answer& Generate(const Request& request) {
    driver_->core().Submit(request);
    driver_->Run();
    return driver_->answer(request.id);
  }

  TestFolder folder_{"core"};
  std::unique_ptr<CoreDriver> driver_;
};

TEST_F(EngineCoreTest, ReadsEachBaseWeightOnceAStepWhateverItsRows) {
  Open(TinyOptions(folder_));
  const auto bytes_per_step = [&](int requests, int64_t first_id) {
    const EngineStats before = driver_->core().Stats();
    for (int i = 0; i < requests; ++i) driver_->core().Submit(MakeRequest(first_id + i, {5}, 10));
    driver_->Run();
    const EngineStats after = driver_->core().Stats();
    EXPECT_EQ(after.steps - before.steps, 10u);
    return (after.weight_bytes_read - before.weight_bytes_read) / 10;
  };
  const uint64_t one = bytes_per_step(1, 1), many = bytes_per_step(32, 100);
  const uint64_t embedding_row = 48 * 4;
  EXPECT_EQ(many, one + 31 * embedding_row);  // an embedding's rows are gathered
}

TEST_F(EngineCoreTest, BaseOnlyRequestsDoNoLoraWork) {
  Open(TinyOptions(folder_));
  driver_->Register(1, TinyAdapter(folder_, "a", 8, 0, 5));
  using Counts = std::array<uint64_t, 3>;
  int64_t next = 1;
  // Of requests that run together, one with the adapter if it is wanted.
  const auto work_of = [&](int base_only, bool has_adapter) {
    const auto count = [&] {
      const EngineStats stats = driver_->core().Stats();
      return Counts{stats.lora_ops, stats.page_table_reads, stats.lora_bytes_read};
    };
    const Counts before = count();
    for (int i = 0; i < base_only; ++i) driver_->core().Submit(MakeRequest(next++, {1, 2, 3}, 5));
    if (has_adapter) driver_->core().Submit(MakeRequest(next++, {1, 2, 3}, 5, {{1, 1.0f}}));
    for (int i = 0; i < base_only; ++i) driver_->core().Submit(MakeRequest(next++, {4, 5}, 5));
    driver_->Run();
    Counts work = count();
    for (size_t i = 0; i < work.size(); ++i) work[i] -= before[i];
    return work;
  };
  EXPECT_EQ(work_of(1, false), Counts{});
  const Counts alone = work_of(0, true);
  for (const uint64_t of_adapter : alone) EXPECT_GT(of_adapter, 0u);
  ASSERT_EQ(driver_->core().Stats().adapters_resident, 1);
  EXPECT_EQ(work_of(1, false), Counts{});
  EXPECT_EQ(work_of(3, true), alone);
}

// Options with a pool for one adapter of rank 32 and `kv_frames` besides.
EngineOptions PoolForOneAdapter(const TestFolder& folder, int64_t kv_frames) {
  EngineOptions options = TinyOptions(folder);
  CoreDriver probe(options);
  probe.Register(1, TinyAdapter(folder, "a", 32, 0, 5));
  probe.core().Submit(MakeRequest(1, {1, 2}, 1, {{1, 1.0f}}));
  probe.Run();
  options.pool_bytes = probe.core().Stats().bytes_adapters + kv_frames * probe.core().pool().frame_bytes();
  options.max_context = 32;
  return options;
}

TEST_F(EngineCoreTest, FramesOfAnUnregisteredAdapterServeTheVeryNextRequest) {
  Open(PoolForOneAdapter(folder_, 6));
  driver_->Register(1, TinyAdapter(folder_, "a", 32, 0, 5));
  driver_->Register(2, TinyAdapter(folder_, "b", 32, 0, 6));
  EXPECT_EQ(Generate(MakeRequest(1, {1, 2}, 3, {{1, 1.0f}})).end, "length");
  driver_->core().Unregister(1);
  EXPECT_EQ(Generate(MakeRequest(2, {1, 2}, 3, {{2, 1.0f}})).end, "length");
}

TEST_F(EngineCoreTest, ARequestThatFindsNoRoomFailsThoughARegistrationIsBeingChecked) {
  Open(PoolForOneAdapter(folder_, 2));  // a block of 16 tokens in each of two layers
  driver_->Register(1, TinyAdapter(folder_, "a", 32, 0, 5));
  driver_->core().Submit(MakeRequest(1, std::vector<int32_t>(14, 3), 18, {{1, 1.0f}}));
  driver_->core().Step();
  driver_->DoLoaderWork();                                          // its adapter is loaded
  driver_->core().Register(2, TinyAdapter(folder_, "b", 1, 0, 5));  // a check that nobody does
  for (int i = 0; i < 100 && driver_->core().requests() > 0; ++i) driver_->core().Step();
  driver_->Read();
  EXPECT_EQ(driver_->answer(1).end, kErrOutOfMemory);
}

TEST_F(EngineCoreTest, AnAdapterChangesTheAnswerAndTheNextBaseRequestIsUntouched) {
  Open(TinyOptions(folder_));
  driver_->Register(1, TinyAdapter(folder_, "a", 8, 0, 5));
  const Answer base = Generate(MakeRequest(1, {1, 2, 3}, 20));
  const Answer adapted = Generate(MakeRequest(2, {1, 2, 3}, 20, {{1, 1.0f}}));
  const Answer again = Generate(MakeRequest(3, {1, 2, 3}, 20));
  EXPECT_NE(base.tokens, adapted.tokens);
  EXPECT_EQ(base.tokens, again.tokens);
  EXPECT_EQ(base.logprobs, again.logprobs);
}

TEST_F(EngineCoreTest, EndsAtEosStopTokensStopStringsAndLength) {
  Open(TinyOptions(folder_));
  const Answer whole = Generate(MakeRequest(1, {9, 8, 7}, 12));
  EXPECT_EQ(whole.end, "length");
  EXPECT_EQ(whole.text.size(), 24u);
  const int32_t fifth = whole.tokens[4];
  const auto first_at =
      static_cast<size_t>(std::find(whole.tokens.begin(), whole.tokens.end(), fifth) - whole.tokens.begin());

  Request request = MakeRequest(2, {9, 8, 7}, 12);
  request.eos_tokens = {fifth};
  EXPECT_EQ(Generate(request).end, "eos");
  EXPECT_EQ(driver_->answer(2).tokens.size(), first_at + 1);
  EXPECT_EQ(driver_->answer(2).text, whole.text.substr(0, 2 * first_at));  // the end token has no text

  request = MakeRequest(3, {9, 8, 7}, 12);
  request.stop_tokens = {fifth};
  EXPECT_EQ(Generate(request).end, "stop");

  request = MakeRequest(4, {9, 8, 7}, 12);
  request.stop = {whole.text.substr(5, 4)};
  EXPECT_EQ(Generate(request).end, "stop");
  EXPECT_EQ(driver_->answer(4).text, whole.text.substr(0, whole.text.find(request.stop[0])));
}

TEST_F(EngineCoreTest, MinTokensForbidsEveryEndBeforeIt) {
  Open(TinyOptions(folder_));
  const Answer whole = Generate(MakeRequest(1, {9, 8, 7}, 12));
  Request request = MakeRequest(2, {9, 8, 7}, 12);
  request.eos_tokens = {whole.tokens[0]};
  request.min_tokens = 6;
  const Answer& answer = Generate(request);
  EXPECT_GE(answer.tokens.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_NE(answer.tokens[i], whole.tokens[0]);
}

TEST_F(EngineCoreTest, RefusesRequestsThatCanNotBeServedEachByItsCode) {
  EngineOptions options = TinyOptions(folder_);
  options.max_context = 64;
  options.max_queued = 2;
  Open(std::move(options));
  EXPECT_EQ(Generate(MakeRequest(1, {}, 5)).end, kErrInvalidRequest);
  EXPECT_EQ(Generate(MakeRequest(2, {101}, 5)).end, kErrTokenRange);
  EXPECT_EQ(Generate(MakeRequest(3, {-1}, 5)).end, kErrTokenRange);
  EXPECT_EQ(Generate(MakeRequest(4, std::vector<int32_t>(64, 1), 5)).end, kErrContextLength);
  EXPECT_EQ(Generate(MakeRequest(5, {1}, 0)).end, kErrInvalidRequest);
  EXPECT_EQ(Generate(MakeRequest(6, {1}, 5, {{77, 1.0f}})).end, kErrAdapterNotFound);
  Request greedy_for_logprobs = MakeRequest(7, {1}, 5);
  greedy_for_logprobs.logprobs = kTopLogprobsMax + 1;
  EXPECT_EQ(Generate(greedy_for_logprobs).end, kErrInvalidRequest);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  int64_t next_id = 100;
  const auto end_with = [&](auto member, auto value) {
    Request request = MakeRequest(next_id++, {1}, 5);
    request.*member = value;
    return Generate(request).end;
  };
  for (const float temperature : {kNan, -1.0f, std::numeric_limits<float>::infinity()})
    EXPECT_EQ(end_with(&Request::temperature, temperature), kErrInvalidRequest) << temperature;
  for (const auto member : {&Request::top_p, &Request::min_p}) {
    for (const float share : {kNan, -0.1f, 1.1f}) EXPECT_EQ(end_with(member, share), kErrInvalidRequest) << share;
  }
  EXPECT_EQ(end_with(&Request::top_k, -1), kErrInvalidRequest);
  EXPECT_EQ(end_with(&Request::min_tokens, -1), kErrInvalidRequest);
  EXPECT_EQ(Generate(MakeRequest(next_id++, {1}, 5, {{77, kNan}})).end, kErrInvalidRequest);
  for (int64_t id = 10; id < 13; ++id) driver_->core().Submit(MakeRequest(id, {1}, 5));
  driver_->Run();
  EXPECT_EQ(driver_->answer(12).end, kErrOverloaded);
  EXPECT_EQ(driver_->answer(10).end, "length");
  // A prompt that fills the context but for one token gives one token.
  EXPECT_EQ(Generate(MakeRequest(20, std::vector<int32_t>(63, 1), 5)).tokens.size(), 1u);
}

TEST_F(EngineCoreTest, APausedRequestGetsNoRowsAndGoesOnWhereItWas) {
  Open(TinyOptions(folder_));
  const Answer alone = Generate(MakeRequest(1, {4, 5}, 10));
  driver_->core().Submit(MakeRequest(2, {4, 5}, 10));
  for (int i = 0; i < 3; ++i) driver_->core().Step();
  driver_->core().SetPaused(2, true);
  EXPECT_FALSE(driver_->core().Step());
  driver_->Read();
  EXPECT_EQ(driver_->answer(2).tokens.size(), 3u);
  driver_->core().SetPaused(2, false);
  driver_->Run();
  EXPECT_EQ(driver_->answer(2).tokens, alone.tokens);
}

TEST_F(EngineCoreTest, ASequenceWhoseReaderIsBehindStopsAndGoesOnWhenItReads) {
  EngineOptions options = TinyOptions(folder_);
  options.model.context = 2000;
  Open(std::move(options));
  driver_->core().Submit(MakeRequest(1, {4, 5}, 600));
  int steps = 0;
  while (driver_->core().Step()) ++steps;  // nobody reads
  EXPECT_EQ(steps, 256);
  driver_->Run();
  EXPECT_EQ(driver_->answer(1).tokens.size(), 600u);
}

TEST_F(EngineCoreTest, APausedRequestGivesWayToOthersUnderMemoryPressure) {
  EngineOptions options = TinyOptions(folder_);
  options.max_context = 96;
  options.pool_bytes = 12 * 4096;  // 6 blocks of 16 tokens over 2 layers
  Open(std::move(options));
  driver_->core().Submit(MakeRequest(1, std::vector<int32_t>(60, 1), 30));
  driver_->core().Step();
  driver_->core().SetPaused(1, true);
  driver_->core().Submit(MakeRequest(2, std::vector<int32_t>(70, 2), 20));
  while (!driver_->has_ended(2) && driver_->core().Step()) driver_->Read();
  EXPECT_EQ(driver_->answer(2).end, "length");
  driver_->core().SetPaused(1, false);
  driver_->Run();
  EXPECT_EQ(driver_->answer(1).end, "length");
  EXPECT_GT(driver_->core().Stats().preemptions, 0u);
}

TEST_F(EngineCoreTest, UnregisteringHidesAtOnceAndFreesWhenTheLastRequestEnds) {
  Open(TinyOptions(folder_));
  driver_->Register(1, TinyAdapter(folder_, "a", 8, 0, 5));
  const Answer before = Generate(MakeRequest(1, {3}, 10, {{1, 1.0f}}));
  driver_->core().Submit(MakeRequest(2, {3}, 10, {{1, 1.0f}}));
  driver_->core().Step();
  driver_->core().Unregister(1);
  EXPECT_EQ(Generate(MakeRequest(3, {3}, 10, {{1, 1.0f}})).end, kErrAdapterNotFound);
  EXPECT_EQ(driver_->answer(2).tokens, before.tokens);
  EXPECT_EQ(driver_->adapter_events()[1], "retired");
  EXPECT_EQ(driver_->core().pool().frames(FrameUse::kAdapter), 0);
}

TEST_F(EngineCoreTest, AnAdapterThatIsTooLargeForThePoolFailsItsOwnRequestAlone) {
  EngineOptions options = TinyOptions(folder_);
  options.max_context = 32;
  options.pool_bytes = 8 * 4096;
  Open(std::move(options));
  driver_->Register(1, TinyAdapter(folder_, "large", 64, 0, 5));
  driver_->core().Submit(MakeRequest(1, {3}, 10, {{1, 1.0f}}));
  EXPECT_EQ(Generate(MakeRequest(2, {3}, 10)).end, "length");
  EXPECT_EQ(driver_->answer(1).end, kErrOutOfMemory);
}

TEST_F(EngineCoreTest, RefusesAdaptersWithBadContentEachByItsCode) {
  Open(TinyOptions(folder_));
  AdapterManifest manifest = TinyAdapter(folder_, "nan", 4, 0, 5);
  {
    std::fstream file(manifest.files[0], std::ios::in | std::ios::out | std::ios::binary);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    file.seekp(manifest.sites[1].b.offset + 8);
    file.write(reinterpret_cast<const char*>(&nan), 4);
  }
  driver_->Register(1, manifest);
  EXPECT_EQ(driver_->adapter_events()[1], kErrAdapterNotFinite);
  manifest = TinyAdapter(folder_, "shape", 4, 0, 5);
  manifest.sites[0].rank = 5;
  driver_->Register(2, manifest);
  EXPECT_EQ(driver_->adapter_events()[2], kErrAdapterShape);
  manifest = TinyAdapter(folder_, "range", 4, 0, 5);
  manifest.sites[0].a.offset = std::numeric_limits<int64_t>::max() - 4;
  driver_->Register(3, manifest);
  EXPECT_EQ(driver_->adapter_events()[3], kErrTensorRange);
  manifest = TinyAdapter(folder_, "site", 4, 0, 5);
  manifest.sites[0].site = 1000;
  driver_->Register(4, manifest);
  EXPECT_EQ(driver_->adapter_events()[4], kErrAdapterShape);
  manifest = TinyAdapter(folder_, "gone", 4, 0, 5);
  std::filesystem::remove(manifest.files[0]);
  driver_->Register(5, manifest);
  EXPECT_EQ(driver_->adapter_events()[5], kErrIo);
  manifest = TinyAdapter(folder_, "twice", 4, 0, 5);
  manifest.sites.push_back(AdapterSite(manifest.sites.back()));
  driver_->Register(6, manifest);
  EXPECT_EQ(driver_->adapter_events()[6], kErrAdapterShape);
}

TEST_F(EngineCoreTest, AnAdapterThatIsInfiniteInTheDtypeItIsHeldInFailsItsRequestsAndNobodyElses) {
  // 65504 is the largest f16; int8 holds f32's values, but for the last hundredth before infinity.
  for (const auto& [dtype, limit] : {std::pair{DType::kF16, 1e6f}, {DType::kI8, 0x1.fffffep127f}}) {
    EngineOptions options = TinyOptions(folder_);
    options.adapter_dtype = dtype;
    Open(std::move(options));
    driver_->Register(1, TinyAdapter(folder_, "large", 4, 0, 5, TinyConfig(), limit));
    EXPECT_EQ(driver_->adapter_events()[1], "ready");
    driver_->core().Submit(MakeRequest(1, {3}, 10, {{1, 1.0f}}));
    driver_->core().Submit(MakeRequest(2, {3}, 10));
    driver_->Run();
    EXPECT_EQ(driver_->answer(1).end, kErrAdapterNotFinite) << NameOf(dtype);
    EXPECT_EQ(driver_->answer(2).end, "length");
  }
}

TEST_F(EngineCoreTest, AnIdThatARequestHasIsRefusedToAnotherUntilTheFirstHasEnded) {
  Open(TinyOptions(folder_));
  driver_->core().Submit(MakeRequest(1, {3}, 10));
  driver_->core().Submit(MakeRequest(1, {4}, 10));
  driver_->core().Submit(MakeRequest(2, {3}, 10));
  driver_->Read();
  EXPECT_EQ(driver_->answer(1).end, kErrInvalidRequest);
  driver_->answer(1) = Answer();
  driver_->Run();
  EXPECT_EQ(driver_->answer(1).end, "length");
  EXPECT_EQ(driver_->answer(1).tokens, driver_->answer(2).tokens);
  driver_->answer(1) = Answer();
  driver_->core().Submit(MakeRequest(1, {3}, 10));
  driver_->Run();
  EXPECT_EQ(driver_->answer(1).tokens, driver_->answer(2).tokens);
}

TEST_F(EngineCoreTest, AnAdapterWhoseFileChangedAfterRegistrationFailsItsRequestsAndNobodyElses) {
  Open(TinyOptions(folder_));
  driver_->Register(1, TinyAdapter(folder_, "changed", 4, 0, 5));
  std::ofstream(folder_.File("changed"), std::ios::app) << "x";
  driver_->core().Submit(MakeRequest(1, {3}, 10, {{1, 1.0f}}));
  driver_->core().Submit(MakeRequest(2, {3}, 10));
  driver_->Run();
  EXPECT_EQ(driver_->answer(1).end, kErrAdapterChanged);
  EXPECT_EQ(driver_->answer(2).end, "length");
}

TEST_F(EngineCoreTest, SavedBaseTensorsMustEqualTheBases) {
  EngineOptions options = TinyOptions(folder_);
  const TensorRange embed = options.tensors[0].range, head = options.tensors[1].range;
  std::filesystem::copy(options.files[0], folder_.File("saved"));
  Open(std::move(options));
  AdapterManifest manifest = TinyAdapter(folder_, "with-base", 4, 0, 5);
  manifest.files.push_back(folder_.File("saved"));
  TensorRange saved = embed;
  saved.file = 1;
  manifest.base_tensors = {{"embed_tokens.base_layer.weight", saved, embed}};
  driver_->Register(1, manifest);
  EXPECT_EQ(driver_->adapter_events()[1], "ready");
  manifest.base_tensors = {{"embed_tokens.base_layer.weight", saved, head}};
  driver_->Register(2, manifest);
  EXPECT_EQ(driver_->adapter_events()[2], kErrAdapterBaseTensor);
  TensorRange outside = embed;
  outside.file = 1;
  manifest.base_tensors = {{"embed_tokens.base_layer.weight", saved, outside}};
  driver_->Register(3, manifest);
  EXPECT_EQ(driver_->adapter_events()[3], kErrTensorRange);
}

TEST_F(EngineCoreTest, NanLogitsEndTheirRequestAlone) {
  EngineOptions options = TinyOptions(folder_);
  {
    // Token 100's embedding is NaN: only requests that see it are hurt.
    std::fstream file(options.files[0], std::ios::in | std::ios::out | std::ios::binary);
    const std::vector<float> nan(48, std::numeric_limits<float>::quiet_NaN());
    file.seekp(options.tensors[0].range.offset + 100 * 48 * 4);
    file.write(reinterpret_cast<const char*>(nan.data()), 48 * 4);
  }
  Open(std::move(options));
  Request scored = MakeRequest(3, {1, 100, 2, 3, 4}, 5);
  scored.prompt_logprobs = 0;
  for (const Request& request : {MakeRequest(1, {1, 2}, 5), MakeRequest(2, {1, 100}, 5), scored})
    driver_->core().Submit(request);
  driver_->Run();
  EXPECT_EQ(driver_->answer(1).end, "length");
  EXPECT_EQ(driver_->answer(2).end, kErrNotFinite);
  EXPECT_EQ(driver_->answer(3).end, kErrNotFinite);
}

TEST_F(EngineCoreTest, RefusesLimitsThatCanNotHold) {
  EngineOptions options = TinyOptions(folder_);
  options.pool_bytes = 4096;
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrLimits);
  options = TinyOptions(folder_);
  options.max_context = 257;
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrLimits);
  options = TinyOptions(folder_);
  options.pool_bytes = 8 * 4096;
  options.max_context = 65;
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrLimits);
}

TEST_F(EngineCoreTest, RefusesBasesWithMissingOrLyingTensors) {
  EngineOptions options = TinyOptions(folder_);
  options.tensors.pop_back();  // a bias is optional
  EXPECT_TRUE(CoreDriver(std::move(options)).opened().ok());
  options = TinyOptions(folder_);
  options.tensors.erase(options.tensors.begin() + 5);
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrModelTensor);
  options = TinyOptions(folder_);
  options.tensors[0].range.rows -= 1;
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrTensorRange);
  options = TinyOptions(folder_);
  options.tensors[0].role = static_cast<WeightRole>(-2);
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrModelTensor);
  options = TinyOptions(folder_);
  std::filesystem::resize_file(options.files[0], 1000);
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrTensorRange);
  options = TinyOptions(folder_);
  options.model.kv_heads = 3;
  EXPECT_STREQ(CoreDriver(std::move(options)).opened().code(), kErrModelConfig);
}

TEST_F(EngineCoreTest, ADeadlineEndsARequestThatWaitsOrRuns) {
  Open(TinyOptions(folder_));
  Request late = MakeRequest(1, {1}, 50);
  late.deadline_ms = 1e-6;  // submitted at time 0 of the clock
  driver_->core().Submit(late);
  EXPECT_EQ(Generate(MakeRequest(2, {1}, 5)).end, "length");
  EXPECT_EQ(driver_->answer(1).end, kErrDeadline);
}

TEST_F(EngineCoreTest, HigherPrioritiesGoFirst) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 1;
  Open(std::move(options));
  driver_->core().Submit(MakeRequest(1, {1}, 3));
  Request urgent = MakeRequest(2, {1}, 3);
  urgent.priority = 1;
  driver_->core().Submit(urgent);
  for (int i = 0; i < 3; ++i) driver_->core().Step();
  driver_->Read();
  EXPECT_EQ(driver_->answer(2).end, "length");
  EXPECT_TRUE(driver_->answer(1).tokens.empty());
}

}  // namespace
}  // namespace openlora
