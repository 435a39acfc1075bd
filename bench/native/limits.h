#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/pages.h"
#include "base/thread_pool.h"

namespace openlora::bench {

// What the machine gives at best, with all threads at once.
struct Limits {
  double read_gbs = 0;   // GB/s of reading memory that no cache holds
  double gflops = 0;     // f32 fused multiply-adds, two operations each
  double int8_gops = 0;  // dot products of bytes, two operations each; 0: not known for this machine
};

// Independent chains of an instruction; operations of each are 2 * lanes.
struct Burst {
  float (*run)(int64_t count, float x);
  int lanes;
};

// Measures them a piece at a time, so that pieces can stand between those of what is compared with them: a shared
// machine changes from second to second.
class LimitProbe {
 public:
  explicit LimitProbe(int threads);

  // One pass over a buffer of more than twice the last-level cache (about 10 ms); four streams a thread, as the kernels
  // read.
  double ReadGbs();
  // One burst of about 2 ms.
  double Gflops();
  double Int8Gops();
  // Medians of `rounds` of each.
  Limits Measure(int rounds);

 private:
  double GopsOf(const Burst& burst);
  ThreadPool pool_;
  PageBuffer buffer_;
};

// Bytes; 32 MiB where the system doesn't say.
size_t LastLevelCacheBytes();
std::string CpuName();

// The value that `share` of the values are not above; sorts them.
double Quantile(std::vector<double>& values, double share);

}  // namespace openlora::bench
