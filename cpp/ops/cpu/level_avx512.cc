#include "ops/cpu/simd_avx512.h"
#include "ops/cpu/table-inl.h"

namespace openlora {

const KernelTable kKernelsAvx512 = MakeTable<Simd>("avx512");

}  // namespace openlora
