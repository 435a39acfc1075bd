#pragma once

// DEV_KERNEL(space, Name, Params): declares openlora::space::Name, a kernel that takes one struct, in the `.h` that
// holds the struct. Kernels see a function; so does the code that launches them under the simulator. Where the host's
// compiler sees no kernel code it is a name, which device images are searched for.

#include "device/integers.h"

#if defined(__CUDACC__)
#define DEV_KERNEL(space, Name, Params)      \
  namespace openlora::space {                \
  __global__ void Name(const Params params); \
  }
#else
#define DEV_KERNEL(space, Name, Params) \
  namespace openlora::space {           \
  void Name(const Params params);       \
  }
#endif
