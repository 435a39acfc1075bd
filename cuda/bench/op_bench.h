#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "bench/op_load.h"
#include "ops/backend.h"

namespace openlora {

double MedianOf(std::vector<double> values);

// Every case in turn; `report` is called as each ends. ERR_OUT_OF_MEMORY, ERR_CUDA_FAILED.
Status BenchCudaOps(std::shared_ptr<CudaContext> context, const CudaBenchOptions& options,
                    const std::function<void(const CudaOpResult&)>& report);

}  // namespace openlora
