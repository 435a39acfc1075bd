#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "bench/entries_by_turns.h"
#include "bench/op_cases.h"
#include "ops/context.h"
#include "ops/cuda_ops.h"

namespace openlora {

struct CudaOpSizes {
  // Bytes that are read before the same ones are read again: more than any L2 holds.
  int64_t cold_bytes = 256 << 20;
  // Bytes of the launches of one run, so that what a step begins with doesn't count; but no more than so many launches
  // unless it takes them to read all that is cold.
  int64_t run_bytes = int64_t{8} << 30;
  int32_t launches_max = 1024;
};

// What an op case works on, in device memory, as many times as it takes for every launch to find it cold. Values are in
// bf16, of 2^-7 to 2^-6, of either sign, and known to the host one by one: results are compared with sums in double.
class CudaOpLoad {
 public:
  // ERR_OUT_OF_MEMORY and what CudaOps::Reserve says.
  static Status Open(const CudaOpCase& shape, const CudaOpSizes& sizes, std::shared_ptr<CudaContext> context,
                     std::unique_ptr<CudaOpLoad>* opened);
  virtual ~CudaOpLoad();
  CudaOpLoad(const CudaOpLoad&) = delete;
  CudaOpLoad& operator=(const CudaOpLoad&) = delete;

  // Of one launch, before any Run: ‖result - wanted‖ / ‖wanted‖ of a sample of outputs, and what it may be.
  Status Check(double* error, double* error_max);
  // Every launch once; from the second run on they are one graph. A run ends before the next begins: its caller waits.
  Status Run();

  int32_t launches() const { return launches_; }
  int64_t bytes() const { return bytes_; }  // of weights, adapters or KV that a launch reads, each once
  double operations() const { return operations_; }
  const CudaOps& ops() const { return ops_; }

 protected:
  CudaOpLoad(const CudaOpCase& shape, std::shared_ptr<CudaContext> context)
      : shape_(shape),
        context_(std::move(context)),
        ops_(context_, DType::kBF16),
        entries_(shape.rows, shape.adapters) {}

  // Bytes and operations of a launch, and limits of the step.
  virtual StepLimits Measure() = 0;
  virtual Status MakeData(int32_t copies) = 0;
  virtual void Launch(int32_t copy) = 0;
  virtual Status Compare(double* error, double* error_max) = 0;

  Status Allocate(int64_t bytes, void** memory);
  Status Download(const void* from, std::span<uint8_t> to);
  // `copies` of the first `bytes` stand one after another.
  void CopyFirst(void* memory, int64_t bytes, int32_t copies);
  int32_t copies() const { return copies_; }

  const CudaOpCase shape_;
  std::shared_ptr<CudaContext> context_;
  CudaOps ops_;
  int64_t bytes_ = 0;
  double operations_ = 0;
  // The batch.
  std::vector<int32_t> tokens_, positions_, sequences_;
  std::vector<uint32_t> table_;
  std::vector<int64_t> table_begin_;
  const EntriesByTurns entries_;
  BatchView batch_;

 private:
  Status Prepare(const CudaOpSizes& sizes);
  void MakeBatch();

  int32_t copies_ = 1;
  int32_t launches_ = 1;
  std::vector<void*> memory_;
};

}  // namespace openlora
