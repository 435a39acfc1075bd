#pragma once

// TestMachine: what the kernel tests run on. The simulator, or a GPU where the tests are built for one (DEV_GPU_HOST).

#if defined(DEV_GPU_HOST)
#include "cuda/gpu_test_machine.h"
#else
#include "ops/machine.h"

namespace openlora {

using TestMachine = CudaMachine;

}  // namespace openlora
#endif
