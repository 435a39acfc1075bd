#include "ops/cpu/attention_dots-inl.h"
#include "ops/cpu/bf16_dots-inl.h"
#include "ops/cpu/simd_avx512.h"

namespace openlora {

const QuantisedFormat kBF16DotAvx512 = MakeBF16Dot<Simd>();
const AttentionDotKernels kAttentionDotsAvx512 = MakeAttentionDotKernels<Simd>();

}  // namespace openlora
