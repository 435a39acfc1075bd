#pragma once

#include <memory>
#include <string>

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

}  // namespace openlora
