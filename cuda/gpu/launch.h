#pragma once

#include <type_traits>

#include "device/kernel.h"
#include "gpu/machine.h"

namespace openlora::dev {

struct Stream {
  cuda_gpu::Machine* machine = nullptr;
  int index = 0;
};

// The parameters are copied now.
template <class Params>
void Launch(const Kernel<Params>& kernel, const Shape& shape, Stream stream,
            const std::type_identity_t<Params>& params) {
  static_assert(std::is_trivially_copyable_v<Params>);
  stream.machine->Launch(stream.index, shape, kernel.name, &params);
}

}  // namespace openlora::dev
