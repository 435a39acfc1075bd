#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <variant>

#include "base/status.h"
#include "bench/limits.h"
#include "bench/ops_bench.h"

namespace openlora::bench {

struct BenchOptions {
  std::string kind;  // "limits" or "ops"
  std::string device = "cpu";
  std::string cuda_images = {};  // the folder of device images
  int32_t threads = 0;           // 0: as many as may run
  std::string simd;              // "auto" or a level's name
  int32_t rounds = 1;            // of the limits
  bool is_quick = false;
  std::string filter = {};
};

struct BegunEvent {
  std::string cpu;
  int32_t threads;
  std::string simd;
  size_t cache_bytes;  // last level
};
using BenchEvent = std::variant<BegunEvent, LimitResult, OpResult>;

// Runs one bench on the calling thread and the threads that it makes; `report` is called on the calling thread.
// ERR_ABORTED once `is_cancelled` was seen.
Status RunBench(const BenchOptions& options, const std::atomic<bool>& is_cancelled,
                const std::function<void(BenchEvent)>& report);

}  // namespace openlora::bench
