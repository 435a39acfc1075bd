#pragma once

#include <functional>
#include <memory>

#include "cuda/test_machine.h"
#include "engine/tiny_model.h"
#include "ops/cuda_device.h"
#include "ops/cuda_ops.h"

namespace openlora {

// A machine of its own for an engine: of the simulator, `seed` is that of its choices; of a GPU, the host may touch its
// memory if it `is_managed`.
inline std::unique_ptr<CudaMachine> OpenCudaMachine([[maybe_unused]] uint64_t seed,
                                                    [[maybe_unused]] bool is_managed = false) {
#if defined(DEV_GPU_HOST)
  return OpenGpu({.is_managed = is_managed});
#else
  return std::make_unique<CudaMachine>(cuda_sim::Options{.seed = seed});
#endif
}

// A backend whose kernels run there. `made`: where its ops are, for as long as it lives.
inline std::function<Status(Backend*)> OpensCuda(DType dtype, uint64_t seed, const CudaOps** made = nullptr) {
  return [dtype, seed, made](Backend* backend) {
    auto context = std::make_shared<CudaContext>(OpenCudaMachine(seed));
    backend->simd = "cuda";
    backend->device = std::make_unique<CudaDevice>(context);
    auto ops = std::make_unique<CudaOps>(context, dtype);
    if (made != nullptr) *made = ops.get();
    backend->ops = std::move(ops);
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
