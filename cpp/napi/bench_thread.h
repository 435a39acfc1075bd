#pragma once

#include <napi.h>

#include <atomic>
#include <functional>

#include "base/status.h"
#include "bench/bench.h"

namespace openlora {

// bench::RunBench for a device that isn't the CPU.
using BenchOfGpu = Status (*)(const bench::BenchOptions& options, const std::atomic<bool>& is_cancelled,
                              const std::function<void(bench::BenchEvent)>& report);

// NativeAddon.bench of src/native/binding.ts: a measurement in a thread of its own, which ends with its environment.
Napi::Value StartBench(const Napi::CallbackInfo& info, BenchOfGpu of_gpu);

}  // namespace openlora
