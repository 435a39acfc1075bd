#include "ops/cpu/int8-inl.h"
#include "ops/cpu/simd_neon.h"

namespace openlora {

const Int8Kernels kInt8NeonDotprod = MakeInt8Kernels<Simd>();

}  // namespace openlora
