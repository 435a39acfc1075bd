#include "ops/cpu/int8-inl.h"
#include "ops/cpu/simd_avx512.h"

namespace openlora {

const Int8Kernels kInt8Avx512Vnni = MakeInt8Kernels<Simd>();

}  // namespace openlora
