#pragma once

#include <type_traits>

#include "device/kernel.h"
#include "device/shape.h"
#include "sim/machine.h"

namespace openlora::dev {

struct Stream {
  cuda_sim::Machine* machine = nullptr;
  int index = 0;
};

// The parameters are copied now; the kernel runs when somebody waits for the stream.
template <class Params>
void Launch(Kernel<Params> kernel, const Shape& shape, Stream stream, const std::type_identity_t<Params>& params) {
  stream.machine->Launch(stream.index, shape, [kernel, params] { kernel(params); });
}

}  // namespace openlora::dev
