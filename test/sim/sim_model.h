#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine_options.h"
#include "fuzz/memory_file.h"
#include "sim/scenario.h"
#include "sim/sim_ops.h"

namespace openlora::sim {

inline constexpr int32_t kLayers = 2;
inline constexpr int32_t kVocabulary = 700;  // two tiles of an embedding's A
inline constexpr int64_t kFrameBytes = 4096;
inline constexpr int32_t kFrameTokens = 16;

// Simulated costs. The slowest load takes kSlowestLoad times Scenario::load_ms a frame.
inline constexpr double kSlowestLoad = 20;
inline double StepMs(int64_t rows) { return 0.05 + 0.01 * static_cast<double>(rows); }

// A Llama of two layers whose every row is one digest.
inline ModelConfig SimConfig(const Scenario& scenario) {
  ModelConfig model;
  model.layers = kLayers;
  model.hidden = model.head_dim = model.intermediate = 2;
  model.heads = model.kv_heads = 1;
  model.vocab = kVocabulary;
  model.context = 4096;
  model.has_pre_norms = false;
  model.is_tied = true;
  model.rope_switch = scenario.rope_switch;
  model.ropes.resize(1);
  model.ropes[0].inv_freq = {1};
  if (model.rope_switch > 0) model.ropes[0].long_inv_freq = {0.5f};
  model.layer_options.resize(static_cast<size_t>(kLayers));
  return model;
}

// A base of that model in a file without a disk; what stands in it doesn't matter. `ops`: those of the engine, which
// owns them, once it is open.
inline EngineOptions SimOptions(const Scenario& scenario, SimOps** ops) {
  static const fuzz::MemoryFile file(std::vector<uint8_t>(static_cast<size_t>(kVocabulary) * 2 * 4));
  EngineOptions options;
  options.model = SimConfig(scenario);
  options.files = {file.path()};
  const auto add = [&](WeightRole role, int32_t layer, int64_t rows, int64_t cols) {
    options.tensors.push_back({role, layer, {0, 0, rows * cols * 4, DType::kF32, rows, cols}});
  };
  add(WeightRole::kEmbed, -1, kVocabulary, 2);
  add(WeightRole::kFinalNorm, -1, 1, 2);
  const std::vector<SiteShape> shapes = SiteShapes(options.model);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    for (int32_t site = 0; site < kLayerSites; ++site) {
      const SiteShape& shape = shapes[static_cast<size_t>(site)];
      if (shape.in == 0) continue;
      add(static_cast<WeightRole>(static_cast<int32_t>(WeightRole::kSite0) + site), layer, shape.out, shape.in);
    }
  }
  options.read_tokens = [] {
    TokenTable tokens;
    tokens.bytes.assign(kVocabulary, 'a');
    for (uint32_t token = 0; token <= kVocabulary; ++token) tokens.offsets.push_back(token);
    return tokens;
  };
  options.open_backend = [ops](Backend* backend) {
    auto made = std::make_unique<SimOps>();
    *ops = made.get();
    backend->device = std::make_unique<SimDevice>();
    backend->ops = std::move(made);
    backend->simd = "sim";
    return Ok();
  };
  options.pool_bytes = scenario.frames * kFrameBytes;
  options.max_context = scenario.max_context;
  options.max_batch_tokens = scenario.max_batch_tokens;
  options.max_step_ms = scenario.max_step_ms;
  options.max_queued = scenario.max_queued;
  options.max_queued_per_tenant = scenario.max_queued_per_tenant;
  options.batch_lora_bytes = scenario.batch_lora_bytes;
  options.has_prefix_cache = scenario.has_prefix_cache;
  options.host_adapter_bytes = scenario.host_adapter_bytes;
  options.poisons_freed = true;
  return options;
}

}  // namespace openlora::sim
