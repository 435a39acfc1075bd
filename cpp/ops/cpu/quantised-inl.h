#pragma once

#include "ops/cpu/dots-inl.h"
#include "ops/cpu/int4_fit-inl.h"
#include "ops/cpu/kernels.h"

namespace openlora {
namespace {

template <class V, class Q>
constexpr QuantisedFormat MakeQuantisedFormat() {
  return {sizeof(Activations<V, Q::kGroupK>), &Quantise<V, Q::kGroupK, Q::kIsRotated>, &DotPanels<V, Q>};
}

template <class V>
constexpr QuantisedKernels MakeQuantisedKernels() {
  return {{MakeQuantisedFormat<V, Int8Weights>(), MakeQuantisedFormat<V, Int4Weights>()},
          &Int8Rotate<V>,
          &Int8RotateBack<V>,
          &Int4Scale<V>,
          &Int4Assign<V>};
}

}  // namespace
}  // namespace openlora
