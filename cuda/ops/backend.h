#pragma once

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
// GB/s, read and written, of copies of 256 MiB within the device's memory, one for each round. ERR_CUDA_DRIVER,
// ERR_CUDA_DEVICE, ERR_OUT_OF_MEMORY, ERR_CUDA_FAILED.
Status MeasureCudaCopies(const std::string& device, int rounds, std::vector<double>* gbs);

}  // namespace openlora
