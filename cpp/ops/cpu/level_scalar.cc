#include "ops/cpu/simd_scalar.h"
#include "ops/cpu/table-inl.h"

namespace openlora {

const KernelTable kKernelsScalar = MakeTable<Simd>("scalar");

}  // namespace openlora
