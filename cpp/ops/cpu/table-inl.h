#pragma once

#include "ops/cpu/attention-inl.h"
#include "ops/cpu/attention_dots-inl.h"
#include "ops/cpu/bf16_dots-inl.h"
#include "ops/cpu/elementwise-inl.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/lora-inl.h"
#include "ops/cpu/panels-inl.h"
#include "ops/cpu/quantised-inl.h"
#include "ops/cpu/sample-inl.h"

namespace openlora {
namespace {

template <class V>
constexpr KernelTable MakeTable(const char* level) {
  return {
      .level = level,
      .panels = {&Panels<V, WeightF32<V>>, &Panels<V, WeightF16<V>>, &Panels<V, WeightBF16<V>>},
      .quantised = MakeQuantisedKernels<V>(),
      .bf16_dot = MakeBF16Dot<V>(),
      .shrink = {&Shrink<V, TileF32<V>>, &Shrink<V, TileF16<V>>, &Shrink<V, TileBF16<V>>, &Shrink<V, TileS8<V>>},
      .expand = {&Expand<V, WeightF32<V>>, &Expand<V, WeightF16<V>>, &Expand<V, WeightBF16<V>>,
                 &Expand<V, WeightS8<V>>},
      .sum_chunks = &SumChunks<V>,
      .rms_norm = &RmsNormRow<V>,
      .rope = &RopeHead<V>,
      .gated_activation = {&GatedActivationRow<V, SiluOf<V>>, &GatedActivationRow<V, GeluTanhOf<V>>},
      .add_scaled = &AddScaledRow<V>,
      .soft_cap = &SoftCapRow<V>,
      .scale = &ScaleRow<V>,
      .attention = MakeAttentionKernels<V>(),
      .attention_dots = MakeAttentionDotKernels<V>(),
      .sample = MakeSampleKernels<V>(),
  };
}

}  // namespace
}  // namespace openlora
