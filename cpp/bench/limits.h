#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/pages.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "ops/cpu/peaks.h"

namespace openlora::bench {

// What the machine gives at best, with all threads at once.
struct Limits {
  double read_gbs = 0;         // GB/s of reading memory that no cache holds
  const char* peak = nullptr;  // the instruction's name
  double peak_gops = 0;        // 10⁹ operations of it a second
};

// Measures them a piece at a time, so that pieces can stand between those of what is compared with them: a shared
// machine changes from second to second.
class LimitProbe {
 public:
  // ERR_OUT_OF_MEMORY, ERR_THREADS if the system starts fewer.
  static Status Create(int threads, std::unique_ptr<LimitProbe>* probe);

  int threads() const { return pool_.size(); }
  // One pass over a buffer of more than twice the last-level cache (about 10 ms); four streams a thread, as the kernels
  // read.
  double ReadGbs();
  // One burst of about 2 ms: 10⁹ operations a second.
  double Gops(const InstructionPeak& peak);

 private:
  explicit LimitProbe(int threads);

  ThreadPool pool_;
  PageBuffer buffer_;
};

// A limit with its spread.
struct LimitResult {
  const char* name;          // "read", or an instruction's
  const char* unit;          // "GB/s" or "GOP/s"
  double median, low, high;  // of all rounds; 10 % lie below low, 10 % above high
};

// Reading, then each instruction that the machine has; the rounds of all of them by turns.
std::vector<LimitResult> MeasureLimits(LimitProbe& probe, int rounds);

// The value that `share` of the values are not above; sorts them.
double Quantile(std::vector<double>& values, double share);

}  // namespace openlora::bench
