#pragma once

#include <functional>
#include <string>
#include <vector>

#include "native/limits.h"
#include "ops/ops.h"

namespace openlora::bench {

struct OpOptions {
  bool is_quick = false;  // a few small cases, two rounds: does it run at all?
  std::string filter;     // part of a case's description
};

struct OpResult {
  std::string op;
  std::string what;  // the case
  double bytes = 0;  // of weights, adapters or KV: each read once. Rows and outputs are not counted
  double flops = 0;
  bool is_int8 = false;  // most of them in bytes
  double us = 0;         // median
  double us_p90 = 0;
  Limits limits = {};  // measured between the runs of this case
  double error = 0;    // ‖ops - reference‖ / ‖reference‖
  double error_max = 0;

  double Gbs() const { return bytes / us * 1e-3; }
  double Gflops() const { return flops / us * 1e-3; }
  // Of the instruction that does the products, GFLOP/s or GOP/s.
  double Peak() const;
  // The time that the machine's limits allow, over the median.
  double OfLimit() const;
  bool is_right() const { return error <= error_max; }
};

// Every case of the shared lists at the sizes of a model; `done` is called for each as it ends.
void BenchOps(Ops& ops, LimitProbe& probe, const OpOptions& options, const std::function<void(const OpResult&)>& done);

}  // namespace openlora::bench
