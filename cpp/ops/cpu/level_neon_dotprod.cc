#include "ops/cpu/quantised-inl.h"
#include "ops/cpu/simd_neon.h"

namespace openlora {

const QuantisedKernels kQuantisedNeonDotprod = MakeQuantisedKernels<Simd>();

}  // namespace openlora
