#pragma once

#include <functional>
#include <memory>

#include "engine/tiny_model.h"
#include "ops/cuda_device.h"
#include "ops/cuda_ops.h"

namespace openlora {

// A backend whose kernels run on the simulator.
inline std::function<Status(Backend*)> OpensCudaSim(DType dtype, uint64_t seed) {
  return [dtype, seed](Backend* backend) {
    auto context = std::make_shared<CudaContext>(std::make_unique<CudaMachine>(cuda_sim::Options{.seed = seed}));
    backend->simd = "cuda-sim";
    backend->device = std::make_unique<CudaDevice>(context);
    backend->ops = std::make_unique<CudaOps>(context, dtype);
    return Ok();
  };
}

// TinyConfig in sizes that the kernels take.
inline ModelConfig CudaTinyConfig() {
  ModelConfig model = TinyConfig();
  model.hidden = 64;
  model.head_dim = 16;
  model.intermediate = 96;
  model.attention_scale = 0.25f;
  return model;
}

}  // namespace openlora
