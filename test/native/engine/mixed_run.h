#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "engine/core_driver.h"
#include "engine/tiny_model.h"
#include "test_size.h"

// Requests that run one by one, and again all at once: the same bits.

namespace openlora {

inline constexpr int kAdapters = 8;
inline constexpr int32_t kRanks[kAdapters] = {1, 3, 4, 8, 9, 16, 17, 32};
inline constexpr int32_t kInt8Ranks[kAdapters] = {1, 3, 8, 16, 64, 9, 5, 24};

// By default 64 requests, 32 under sanitizers: eight adapters and the base alone mixed, half of them sampled at
// temperature 1, lengths from 1 to 60, half of them with penalties or biases. Two thirds begin like others, so that
// they find one another's KV.
inline std::vector<Request> Requests(int64_t count = BySize(32, 64, 64)) {
  std::vector<Request> requests;
  for (int64_t id = 1; id <= count; ++id) {
    const uint64_t draw = Philox(3, static_cast<uint64_t>(id));
    std::vector<int32_t> prompt;
    const uint64_t stem = draw / 3 % 3, shared = stem == 0 ? 0 : draw / 9 % 60;
    for (uint64_t i = 0; i < 1 + draw % 60; ++i)
      prompt.push_back(static_cast<int32_t>(Philox(i < shared ? stem : draw, i) % 101));
    Request request = MakeRequest(id, prompt, 1 + static_cast<int32_t>(draw / 64 % 40));
    const auto adapter = static_cast<int64_t>(draw / 4096 % (kAdapters + 1));
    if (adapter > 0) request.adapters = {{adapter, 1.0f}};
    if (id % 7 == 0) request.adapters.push_back({1 + id % kAdapters, 0.5f});  // two at once, with weights
    if (id % 2 == 0) request.temperature = 1;
    if (id % 5 == 0) request.prompt_logprobs = 0;
    if (id % 3 == 0) request.repetition_penalty = id % 2 == 0 ? 1.3f : 0.8f;
    if (id % 4 == 1) request.frequency_penalty = 0.7f;
    if (id % 8 == 1) request.presence_penalty = -0.4f;
    if (id % 6 == 2) request.logit_bias = {{static_cast<int32_t>(id), 3.0f}, {7, -INFINITY}, {90, -1.5f}};
    if (id % 9 == 0) {  // that never stops
      request.min_tokens = request.max_tokens;
      request.stop_tokens = {7, static_cast<int32_t>(id)};
    }
    request.seed = draw;
    requests.push_back(std::move(request));
  }
  return requests;
}

inline void RegisterAll(const TestFolder& folder, const ModelConfig& model, CoreDriver* driver) {
  const bool is_int8 = driver->core().residency().format().dtype == DType::kI8;
  for (int i = 0; i < kAdapters; ++i)
    driver->Register(i + 1, TinyAdapter(folder, "adapter" + std::to_string(i), (is_int8 ? kInt8Ranks : kRanks)[i],
                                        i % 3, 100 + static_cast<uint64_t>(i), model));
}

// What families of decoders add to a Llama, by name: `llama` with it.
inline std::vector<std::pair<const char*, ModelConfig>> FamiliesOf(const ModelConfig& llama) {
  ModelConfig windows = llama;  // Mistral, Gemma 3, SmolLM3
  windows.ropes.push_back(windows.ropes[0]);
  for (float& frequency : windows.ropes[1].inv_freq) frequency /= 3;
  windows.layer_options = {{13, 1}, {0, -1}};
  ModelConfig gemma = llama;
  gemma.has_post_norms = true;
  gemma.qk_norm = QkNorm::kHead;
  gemma.activation = Activation::kGeluTanh;
  gemma.attention_soft_cap = 2;
  gemma.logit_soft_cap = 5;
  gemma.embedding_scale = 3;
  gemma.norm_offset = 0.25f;
  ModelConfig olmo = llama;
  olmo.has_pre_norms = false;
  olmo.has_post_norms = true;
  olmo.qk_norm = QkNorm::kAll;
  ModelConfig phi = llama;  // sequences cross its switch while they run
  phi.is_fused = true;
  phi.rope_switch = 40;
  phi.ropes[0].long_inv_freq = {0.9f, 0.2f, 0.04f, 0.008f, 0.001f, 0.0001f};
  ModelConfig granite = llama;
  granite.residual_scale = 0.3f;
  granite.logit_scale = 1.7f;
  return {{"windows", windows}, {"gemma", gemma}, {"olmo", olmo}, {"phi", phi}, {"granite", granite}};
}

// What TinyOptions doesn't ask for. None: as it says.
struct EngineVariant {
  std::optional<DType> kv = {};
  std::optional<DType> adapter = {};
  std::function<Status(Backend*)> open_backend = {};
  std::string adapter_dir = {};  // of packs; empty: none are kept
  std::function<void()> at_end = {};

  void SetIn(EngineOptions* options) const {
    options->kv_dtype = kv.value_or(options->kv_dtype);
    options->adapter_dtype = adapter.value_or(options->adapter_dtype);
    if (open_backend) options->open_backend = open_backend;
    if (adapter_dir.empty()) return;
    options->adapter_dir = adapter_dir;
    options->adapter_disk_bytes = options->host_adapter_bytes = 64 << 20;
  }
};

// Each request by itself, one after another, with nothing left of the one before.
inline std::vector<Answer> Alone(const TestFolder& folder, WeightFormat dtype = DType::kF32,
                                 const ModelConfig& model = TinyConfig(), const EngineVariant& variant = {},
                                 const std::vector<Request>& requests = Requests()) {
  EngineOptions options = TinyOptions(folder, 1, SimdLevel::kAuto, dtype, model);
  variant.SetIn(&options);
  options.has_prefix_cache = false;
  CoreDriver driver(std::move(options));
  EXPECT_TRUE(driver.opened().ok()) << driver.opened().message();
  RegisterAll(folder, model, &driver);
  std::vector<Answer> answers;
  for (const Request& request : requests) {
    driver.core().Submit(request);
    driver.Run();
    answers.push_back(driver.answer(request.id));
    EXPECT_EQ(answers.back().end, "length");
    EXPECT_EQ(answers.back().tokens.size(), static_cast<size_t>(request.max_tokens));
  }
  return answers;
}

struct MixedRun {
  uint64_t seed = 1;
  int threads = 1;
  int32_t max_batch_tokens = 64;
  int64_t pool_bytes = 4 << 20;
  bool cancels = false;
  SimdLevel simd = SimdLevel::kAuto;
  WeightFormat dtype = DType::kF32;
  ModelConfig model = TinyConfig();
  EngineVariant variant = {};
  std::vector<Request> requests = Requests();
};

// All at once: random arrival, and cancels of some. Returns the engine's counters.
inline EngineStats ExpectSame(const TestFolder& folder, const std::vector<Answer>& alone, const MixedRun& run) {
  SCOPED_TRACE("seed " + std::to_string(run.seed) + ", threads " + std::to_string(run.threads) + ", maxBatchTokens " +
               std::to_string(run.max_batch_tokens));
  EngineOptions options = TinyOptions(folder, run.threads, run.simd, run.dtype, run.model);
  options.max_batch_tokens = run.max_batch_tokens;
  options.pool_bytes = run.pool_bytes;
  options.max_context = 128;
  run.variant.SetIn(&options);
  CoreDriver driver(std::move(options));
  EXPECT_TRUE(driver.opened().ok()) << driver.opened().message();
  RegisterAll(folder, run.model, &driver);
  const std::vector<Request>& requests = run.requests;
  uint64_t draws = 0;
  const auto draw = [&](uint64_t below) { return Philox(run.seed, draws++) % below; };
  size_t next = 0;
  std::vector<bool> is_cancelled(requests.size());
  for (int step = 0; next < requests.size() || driver.core().requests() > 0; ++step) {
    if (step > 20'000) {
      ADD_FAILURE() << "a request never ends";
      break;
    }
    for (uint64_t arriving = draw(4); arriving > 0 && next < requests.size(); --arriving)
      driver.core().Submit(requests[next++]);
    if (run.cancels && next > 0 && draw(6) == 0) {
      const uint64_t victim = draw(next);
      if (victim % 4 == 0) {
        driver.core().Cancel(requests[victim].id);
        is_cancelled[victim] = true;
      }
    }
    driver.core().Step();
    if (driver.has_loader_work() && draw(3) == 0) driver.DoLoaderWork();
    driver.Read();
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const Answer& mixed = driver.answer(requests[i].id);
    if (is_cancelled[i] && mixed.end == "cancelled") {
      EXPECT_LE(mixed.tokens.size(), alone[i].tokens.size());
      EXPECT_TRUE(std::equal(mixed.tokens.begin(), mixed.tokens.end(), alone[i].tokens.begin()));
      continue;
    }
    EXPECT_EQ(mixed.end, "length") << "request " << requests[i].id;
    EXPECT_EQ(mixed.tokens, alone[i].tokens) << "request " << requests[i].id;
    EXPECT_EQ(mixed.logprobs, alone[i].logprobs) << "request " << requests[i].id;  // ==: bit for bit
    EXPECT_EQ(mixed.prompt_logprobs, alone[i].prompt_logprobs) << "request " << requests[i].id;
    EXPECT_EQ(mixed.text, alone[i].text);
  }
  EXPECT_TRUE(driver.core().CheckInvariants().ok());
  EXPECT_EQ(driver.core().pool().frames(FrameUse::kKv), 0);
  if (run.variant.at_end) run.variant.at_end();
  return driver.core().Stats();
}

}  // namespace openlora
