#pragma once

// CudaMachine: what the ops launch kernels on. The simulator, or a GPU where DEV_GPU_HOST is defined.

#if defined(DEV_GPU_HOST)
#include "gpu/launch.h"
#else
#include "sim/launch.h"
#endif

#include <cstdint>
#include <cstdlib>

#include "base/status.h"
#include "device/errors.h"

namespace openlora {

#if defined(DEV_GPU_HOST)
using CudaMachine = cuda_gpu::Machine;
inline Status StatusOf(const CudaMachine& machine) { return machine.status(); }
inline int MultiprocessorsOf(const CudaMachine& machine) { return machine.multiprocessors(); }
inline int64_t FreeBytesOf(CudaMachine& machine) {
  size_t free = 0, total = 0;
  return machine.MemoryBytes(&free, &total).ok() ? static_cast<int64_t>(free) : 0;
}
inline void* AllocateHostOf(CudaMachine& machine, size_t bytes) { return machine.AllocateHost(bytes); }
inline void FreeHostOf(CudaMachine& machine, void* memory) { machine.FreeHost(memory); }
inline double MillisecondsBetween(CudaMachine& machine, int begin, int end) {
  return machine.MillisecondsBetween(begin, end);
}
inline constexpr bool kIsSimulated = false;
#else
using CudaMachine = cuda_sim::Machine;
inline Status StatusOf(const CudaMachine& machine) {
  return machine.violation().empty() ? Ok() : Status(kErrCudaFailed, machine.violation());
}
// As few as there can be with several blocks: each costs a fiber for each thread.
inline int MultiprocessorsOf(const CudaMachine&) { return 2; }
inline int64_t FreeBytesOf(const CudaMachine&) { return 4 << 20; }
inline void* AllocateHostOf(const CudaMachine&, size_t bytes) { return std::malloc(bytes); }
inline void FreeHostOf(const CudaMachine&, void* memory) { std::free(memory); }
inline double MillisecondsBetween(CudaMachine&, int, int) { return 1; }  // time isn't simulated
inline constexpr bool kIsSimulated = true;
#endif

}  // namespace openlora
