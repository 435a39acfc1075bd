#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "ops/device.h"
#include "ops/ops.h"
#include "tensor/weight_format.h"

// What the addon knows of CUDA. Each of its variants is linked with one of two: cuda/gpu/backend.cc, or, of the one for
// CPUs, cuda/none/backend.cc.

namespace openlora {

struct CudaBackend {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
  std::string name;  // of the GPU
};

// Whether this variant computes on GPUs.
bool IsForCuda();
// ERR_CUDA_DRIVER where it can't.
Status CheckCuda();
// `device`: "cuda:0", …; `images`: the folder of device images. ERR_CUDA_DRIVER, ERR_CUDA_DEVICE, ERR_CUDA_UNSUPPORTED
// unless weights are in bf16 or f16, ERR_CUDA_FAILED, ERR_IO.
Status OpenCuda(const std::string& device, WeightFormat dtype, const std::string& images, CudaBackend* backend);
struct CudaBenchOptions {
  std::string device = {};
  std::string images = {};                          // the folder of device images
  bool is_quick = false;                            // a few small cases, two rounds: does it run at all?
  std::string filter = {};                          // part of a case's description
  const std::atomic<bool>* is_cancelled = nullptr;  // set: ends soon, within the work on one case
  bool IsCancelled() const { return is_cancelled != nullptr && is_cancelled->load(std::memory_order_relaxed); }
};
// An op case on a GPU, its weights, adapters or KV in no cache.
struct CudaOpResult {
  std::string op;
  std::string what;  // the case
  double bytes = 0;  // of weights, adapters or KV, each read once
  double operations = 0;
  std::vector<double> us;  // of each round
  double copy_gbs = 0;     // of copies within the device's memory, read and written, measured between rounds
  double peak_gops = 0;    // of mma in bf16 on registers, likewise
  double error = 0;        // ‖result - wanted‖ / ‖wanted‖ of a sample of outputs
  double error_max = 0;
};
// `name`: of the GPU. ERR_CUDA_DRIVER, ERR_CUDA_DEVICE, ERR_CUDA_UNSUPPORTED, ERR_OUT_OF_MEMORY, ERR_CUDA_FAILED,
// ERR_IO.
Status MeasureCudaOps(const CudaBenchOptions& options, const std::function<void(const std::string& name)>& begun,
                      const std::function<void(const CudaOpResult&)>& report);
// The GPU's name, and GB/s, read and written, of copies of 1 GiB within the device's memory, one for each round.
// ERR_CUDA_DRIVER, ERR_CUDA_DEVICE, ERR_OUT_OF_MEMORY, ERR_CUDA_FAILED.
Status MeasureCudaCopies(const std::string& device, int rounds, std::string* name, std::vector<double>* gbs);

}  // namespace openlora
