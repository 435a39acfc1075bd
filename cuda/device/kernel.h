#pragma once

// DEV_KERNEL(space, Name, Params): declares openlora::space::Name, a kernel that takes one struct, in the `.h` that
// holds the struct. Kernels see a function; so does the code that launches them under the simulator. Where DEV_GPU_HOST
// is defined, for a GPU, that code sees a name, which device images are searched for. Of either the type is
// dev::Kernel<Params>.

#include "device/integers.h"

#if defined(__CUDACC__)
#define DEV_KERNEL(space, Name, Params)      \
  namespace openlora::space {                \
  __global__ void Name(const Params params); \
  }
#elif defined(DEV_GPU_HOST)
namespace openlora::dev {
template <class Params>
struct Kernel {
  const char* name;
};
}  // namespace openlora::dev
#define DEV_KERNEL(space, Name, Params)                         \
  namespace openlora::space {                                   \
  inline constexpr dev::Kernel<Params> Name{#space "::" #Name}; \
  }
#else
namespace openlora::dev {
template <class Params>
using Kernel = void (*)(Params);
}  // namespace openlora::dev
#define DEV_KERNEL(space, Name, Params) \
  namespace openlora::space {           \
  void Name(const Params params);       \
  }
#endif
