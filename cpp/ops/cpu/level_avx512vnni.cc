#include "ops/cpu/quantised-inl.h"
#include "ops/cpu/simd_avx512.h"

namespace openlora {

const QuantisedKernels kQuantisedAvx512Vnni = MakeQuantisedKernels<Simd>();

}  // namespace openlora
