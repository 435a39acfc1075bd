#pragma once

#include <cstdint>
#include <string>

#include "base/plant.h"

namespace openlora::sim {

struct RunOptions {
  uint64_t seed = 0;
  int64_t steps = 1000;  // requests arrive until so many are done; then everything must end
  Plant plant = Plant::kNone;
  // False: what the engine knows to be broken, EngineCore::CheckInvariants, isn't asked, so that the rest of the
  // checks, answers above all, have to find it.
  bool asks_engine = true;
};

struct RunCounts {
  int64_t requests = 0;
  int64_t refused = 0;
  int64_t failed = 0;  // after they were accepted
  int64_t cancelled = 0;
  int64_t tokens = 0;
  int64_t cached = 0;  // tokens of prompts, found in the prefix cache
  int64_t loads = 0;
  int64_t evictions = 0;
  int64_t preemptions = 0;
  int64_t registrations = 0;
};

struct RunResult {
  std::string check;   // that failed; empty: everything held
  std::string report;  // with the seed, the step, the load and the last events
  int64_t steps = 0;
  double ms = 0;  // simulated
  uint64_t trace = 0;
  RunCounts counts;
  double wait_share = 0;  // the largest part of its watchdog's bound that a request used

  bool ok() const { return check.empty(); }
};

// One run: a pure function of its options.
RunResult Simulate(const RunOptions& options);

// Simulated time and the bug that is planted, of this thread (base/clock.h, base/plant.h).
void SetNowMs(double ms);
void SetPlanted(Plant plant);

}  // namespace openlora::sim
