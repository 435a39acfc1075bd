#pragma once

#include <span>
#include <vector>

#include "kernels/sample.h"
#include "ops/context.h"
#include "ops/ops.h"
#include "ops/staging.h"

namespace openlora {

// Ops::Sample: stages what rows ask for, launches the three kernels, and takes their results when they are there.
class CudaSampler {
 public:
  explicit CudaSampler(CudaContext& context) : context_(context) {}
  ~CudaSampler();
  CudaSampler(const CudaSampler&) = delete;
  CudaSampler& operator=(const CudaSampler&) = delete;

  Status Reserve(int32_t rows, int32_t vocabulary);
  // At least one row, at most as many as reserved. `results` is written by Finish.
  Status Launch(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results);
  // After the context was synchronised.
  void Finish();

 private:
  static constexpr int kBlocksOfSm = 4;

  Status ReserveSaved();

  CudaContext& context_;
  Staging staging_{context_, "what rows ask of the sampler"};
  void* scratch_ = nullptr;
  void* results_memory_ = nullptr;
  void* saved_memory_ = nullptr;
  size_t saved_max_ = 0;
  int32_t rows_max_ = 0;
  int64_t chunks_ = 0;
  std::vector<sample::Row> table_;
  std::vector<TokenBias> bias_;
  std::vector<SeenToken> seen_;
  void* host_results_ = nullptr;  // pinned, of sample::Result
  std::span<SampleResult> results_;
};

}  // namespace openlora
