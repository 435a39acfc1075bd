#include "bench/bench.h"

#include <memory>

#include "base/guarded.h"
#include "base/machine.h"
#include "base/processors.h"
#include "ops/cpu/cpu_ops.h"

namespace openlora::bench {
namespace {

Status FindLevel(const std::string& name, SimdLevel* level) {
  *level = AvailableSimdLevels().back();
  if (name == NameOf(SimdLevel::kAuto)) return Ok();
  for (const SimdLevel known : AvailableSimdLevels())
    if (name == NameOf(known)) {
      *level = known;
      return Ok();
    }
  return Error(kErrSimdLevel, "simd is %s, which this machine or this build doesn't have", name.c_str());
}

Status Run(const BenchOptions& options, const std::atomic<bool>& is_cancelled,
           const std::function<void(BenchEvent)>& report) {
  SimdLevel level;
  OPENLORA_RETURN_IF_ERROR(FindLevel(options.simd, &level));
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  std::unique_ptr<LimitProbe> probe;
  OPENLORA_RETURN_IF_ERROR(LimitProbe::Create(threads, &probe));
  report(BegunEvent{CpuName(), threads, NameOf(level), LastLevelCacheBytes()});
  if (options.kind == "limits") {
    for (const LimitResult& result : MeasureLimits(*probe, options.rounds)) report(result);
    return Ok();
  }
  std::unique_ptr<Ops> ops;
  OPENLORA_RETURN_IF_ERROR(CreateCpuOps(level, threads, &ops));
  BenchOps(*ops, *probe, {options.is_quick, options.filter, &is_cancelled},
           [&](const OpResult& result) { report(result); });
  return Ok();
}

}  // namespace

Status RunBench(const BenchOptions& options, const std::atomic<bool>& is_cancelled,
                const std::function<void(BenchEvent)>& report) {
  OPENLORA_RETURN_IF_ERROR(Guarded([&] { return Run(options, is_cancelled, report); }));
  return is_cancelled.load() ? Error(kErrAborted, "the bench was cancelled") : Ok();
}

}  // namespace openlora::bench
