#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/reference/reference_ops.h"

namespace openlora {

// One object per (level, threads) for the whole test program.
inline Ops& CpuOpsFor(SimdLevel level, int threads) {
  static std::map<std::pair<SimdLevel, int>, std::unique_ptr<Ops>> all;
  std::unique_ptr<Ops>& ops = all[{level, threads}];
  if (ops == nullptr) {
    const Status status = CreateCpuOps(level, threads, &ops);
    if (!status.ok()) ADD_FAILURE() << status.message();
  }
  return *ops;
}

// Every level that this machine has on one thread, and the best one on two and three. (On a busy machine each call of a
// team waits for a core, so only comparisons of thread counts use teams.)
inline std::vector<Ops*> AllCpuOps() {
  std::vector<Ops*> all;
  for (const SimdLevel level : AvailableSimdLevels()) all.push_back(&CpuOpsFor(level, 1));
  for (const int threads : {2, 3}) all.push_back(&CpuOpsFor(AvailableSimdLevels().back(), threads));
  return all;
}

inline constexpr double kUnitRoundoff = 0x1.0p-24;

// The error of a chain of n fused multiply-adds is at most n·u·Σ|x·w|; with roundings that behave like random signs it
// is below λ·√n·u·Σ|x·w| but for a probability of 2n·exp(-λ²/2) (Higham & Mary 2019, SIAM J. Sci. Comput. 41). λ = 6:
// 3e-8·n. Σ|x·w| <= ‖x‖·‖w‖.
inline double ChainError(double n) { return std::min(n, 6 * std::sqrt(n)); }

inline double Norm(const float* values, int64_t count, int64_t stride = 1) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{values[i * stride]} * values[i * stride];
  return std::sqrt(sum);
}

// |actual - expected| <= tolerance for each; a NaN fails.
inline testing::AssertionResult AreNear(const std::vector<float>& actual, const std::vector<float>& expected,
                                        const std::vector<double>& tolerance) {
  if (actual.size() != expected.size() || actual.size() != tolerance.size())
    return testing::AssertionFailure() << actual.size() << " values, wanted " << expected.size();
  for (size_t i = 0; i < actual.size(); ++i)
    if (!(std::abs(double{actual[i]} - expected[i]) <= tolerance[i]))
      return testing::AssertionFailure() << "[" << i << "] = " << actual[i] << ", wanted " << expected[i] << " ± "
                                         << tolerance[i];
  return testing::AssertionSuccess();
}

// The same bits from actual[0] on as from expected[begin] on, actual.size() of them.
inline testing::AssertionResult AreSameBits(const std::vector<float>& actual, const std::vector<float>& expected,
                                            size_t begin = 0) {
  if (begin + actual.size() > expected.size() || actual.empty())
    return testing::AssertionFailure() << actual.size() << " values at " << begin << " of " << expected.size();
  for (size_t i = 0; i < actual.size(); ++i)
    if (std::memcmp(&actual[i], &expected[begin + i], sizeof(float)) != 0)
      return testing::AssertionFailure() << "[" << begin + i << "] is " << actual[i] << " and " << expected[begin + i];
  return testing::AssertionSuccess();
}

}  // namespace openlora
