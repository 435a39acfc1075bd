#pragma once

namespace openlora {

// No library of NVIDIA's driver, or one too old for this build.
inline constexpr char kErrCudaDriver[] = "ERR_CUDA_DRIVER";
// No such device, or one that no image runs on.
inline constexpr char kErrCudaDevice[] = "ERR_CUDA_DEVICE";
// A call or a kernel failed. Nothing of this process can use the device afterwards.
inline constexpr char kErrCudaFailed[] = "ERR_CUDA_FAILED";
// What a base, its dtypes or its limits ask for, the kernels don't have.
inline constexpr char kErrCudaUnsupported[] = "ERR_CUDA_UNSUPPORTED";

}  // namespace openlora
