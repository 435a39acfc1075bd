#pragma once

// The only words in which kernels speak to the machine: `dev::`. device_gpu.cuh says them in PTX, sim/device_sim.h on
// the CPU. A kernel has no #if, no asm, no built-in of CUDA.

#include "device/integers.h"

#if defined(__CUDACC__)
#include "device/device_gpu.cuh"
#else
#include "sim/device_sim.h"
#endif

namespace openlora::dev {

// Moved by one instruction; at an address that isn't a multiple of its size the GPU traps.
struct alignas(16) Vec16 {
  uint32_t w[4];
};
struct alignas(8) Vec8 {
  uint32_t w[2];
};

using BF16 = uint16_t;  // its bits: sums are f32

__device__ __forceinline__ float ToFloat(BF16 bits) { return BitsToFloat(static_cast<uint32_t>(bits) << 16); }

template <class T>
__host__ __device__ constexpr T CeilDiv(T a, T b) {
  return (a + b - 1) / b;
}
template <class T>
__host__ __device__ constexpr T Min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
__host__ __device__ constexpr T Max(T a, T b) {
  return a < b ? b : a;
}

}  // namespace openlora::dev
