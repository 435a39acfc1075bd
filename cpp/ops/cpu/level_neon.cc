#include "ops/cpu/simd_neon.h"
#include "ops/cpu/table-inl.h"

namespace openlora {

const KernelTable kKernelsNeon = MakeTable<Simd>("neon");

}  // namespace openlora
