#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "model/model_weights.h"
#include "ops/device.h"
#include "ops/ops.h"

namespace openlora {

// The machine that computes, as the composition root chose it.
struct Backend {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
  std::string simd;
  int32_t threads = 1;
};

// The text of token t is [offsets[t], offsets[t + 1]) of `bytes`; there is one offset more than tokens.
struct TokenTable {
  std::vector<uint8_t> bytes;
  std::vector<uint32_t> offsets;
};

struct EngineOptions {
  std::function<Status(Backend*)> open_backend;  // called on the engine's thread
  std::function<TokenTable()> read_tokens;       // called once, before the open event, on the engine's thread
  ModelConfig model;
  std::vector<std::string> files;
  std::vector<BaseTensor> tensors;
  std::string cache_dir;  // where packed weights are kept for the next start; empty: nowhere
  // Of the base's matrices. In int8, embedding and head included: they are 20 to 40 % of what a step of a small model
  // reads, and add 3 to 26 % to the KL divergence from f32 (docs/models.md). In int4, those two are int8.
  WeightFormat dtype = DType::kF32;
  DType kv_dtype = DType::kF32;
  DType adapter_dtype = DType::kF32;
  int64_t pool_bytes = 0;            // 0: nine tenths of what the device has free, less what else is needed there
  std::string adapter_dir;           // of pack files; empty: adapters are loaded from their sources each time
  int64_t adapter_disk_bytes = 0;    // that they may take
  int64_t host_adapter_bytes = 0;    // of them in the page cache
  int64_t pinned_adapter_bytes = 0;  // of frames; 0 beside pool_bytes = 0: half of them
  int32_t max_context = 0;           // 0: the model's, or what the pool holds
  int32_t max_batch_tokens = 256;
  double max_step_ms = 0;  // that a step of several requests should take at most (StepPace); 0: as long as it takes
  int32_t max_queued = 1024;
  int32_t max_queued_per_tenant = 0;  // of requests that name their tenant; 0: max_queued
  int64_t batch_lora_bytes = 0;       // of adapters that a step may read, or one adapter's; 0: twice the base's weights
  bool has_prefix_cache = true;       // sequences share the KV of equal beginnings
  bool poisons_freed = false;         // tests: freed frames become NaN
  bool checks_invariants = false;     // tests: after every step
};

}  // namespace openlora
