#pragma once

#include <memory>

#include "base/status.h"
#include "ops/cpu/cpu_features.h"
#include "ops/ops.h"

namespace openlora {

inline constexpr char kErrSimdLevel[] = "ERR_SIMD_LEVEL";

// Ops on this machine's CPU with `threads` threads, the caller's included. ERR_SIMD_LEVEL if the machine or this build
// lacks `level`; kAuto takes the best. Results are the same bits on every level and for every number of threads.
Status CreateCpuOps(SimdLevel level, int threads, std::unique_ptr<Ops>* ops);

}  // namespace openlora
