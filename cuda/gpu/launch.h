#pragma once

#include <type_traits>

#include "device/kernel.h"
#include "gpu/machine.h"

namespace openlora::dev {

struct Stream {
  Stream(cuda_gpu::Machine* of, int at) : machine(of), index(at) {}
  // Of what stands for a machine in tests.
  template <class Wrapper>
  Stream(Wrapper* of, int at) : Stream(&of->gpu(), at) {}

  cuda_gpu::Machine* machine;
  int index;
};

// The parameters are copied now.
template <class Params>
void Launch(const Kernel<Params>& kernel, const Shape& shape, Stream stream,
            const std::type_identity_t<Params>& params) {
  static_assert(std::is_trivially_copyable_v<Params>);
  stream.machine->Launch(stream.index, shape, kernel.name, &params);
}

}  // namespace openlora::dev
