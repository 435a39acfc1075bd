#include "ops/cpu/simd_avx2.h"
#include "ops/cpu/table-inl.h"

namespace openlora {

const KernelTable kKernelsAvx2 = MakeTable<Simd>("avx2");

}  // namespace openlora
