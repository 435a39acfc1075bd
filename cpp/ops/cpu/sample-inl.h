#pragma once

#include "ops/cpu/math-inl.h"
#include "ops/cpu/sample_kernels.h"

namespace openlora {
namespace {

// Maxima of one whole block; bad becomes NaN where an element is NaN or +inf.
template <class V>
OPENLORA_INLINE void BlockMaxima(const float* x, float* maxima, typename V::F& bad) {
  using F = typename V::F;
  constexpr int kVectors = kMaximaLanes / V::kLanes;
  const F lowest = V::Set(-__FLT_MAX__);
  F max[kVectors];
  OPENLORA_UNROLL
  for (int w = 0; w < kVectors; ++w) max[w] = V::Set(-__builtin_inff());
  for (int i = 0; i < kMaximaBlock; i += kMaximaLanes) {
    OPENLORA_UNROLL
    for (int w = 0; w < kVectors; ++w) {
      const F value = V::Load(x + i + w * V::kLanes);
      max[w] = V::Max(value, max[w]);
      bad = V::Fma(V::Max(lowest, value), V::Zero(), bad);  // -inf, a token that is forbidden, becomes 0 here
    }
  }
  OPENLORA_UNROLL
  for (int w = 0; w < kVectors; ++w) V::Store(maxima + w * V::kLanes, max[w]);
}

template <class V>
bool Maxima(const float* x, int64_t count, float* maxima) {
  typename V::F bad = V::Zero();
  int64_t i = 0;
  for (; i + kMaximaBlock <= count; i += kMaximaBlock, maxima += kMaximaLanes) BlockMaxima<V>(x + i, maxima, bad);
  if (i < count) {
    float tail[kMaximaBlock];
    for (int64_t j = 0; j < kMaximaBlock; ++j) tail[j] = i + j < count ? x[i + j] : -__builtin_inff();
    BlockMaxima<V>(tail, maxima, bad);
  }
  float lanes[V::kLanes], sum = 0;
  V::Store(lanes, bad);
  for (int lane = 0; lane < V::kLanes; ++lane) sum += lanes[lane];
  return sum == 0;
}

template <class V>
float SumExp(const float* x, int64_t count, float max, float inverse_temperature, float* p) {
  using F = typename V::F;
  constexpr int kVectors = kMaximaLanes / V::kLanes;
  F sums[kVectors];
  OPENLORA_UNROLL
  for (int w = 0; w < kVectors; ++w) sums[w] = V::Zero();
  float padded[kMaximaLanes];
  for (int64_t i = 0; i < count; i += kMaximaLanes) {
    const float* from = x + i;
    if (i + kMaximaLanes > count) {
      for (int64_t j = 0; j < kMaximaLanes; ++j) padded[j] = i + j < count ? x[i + j] : -__builtin_inff();
      from = padded;
    }
    OPENLORA_UNROLL
    for (int w = 0; w < kVectors; ++w) {
      const F scaled = V::Mul(V::Sub(V::Load(from + w * V::kLanes), V::Set(max)), V::Set(inverse_temperature));
      const F e = ExpOfWeight<V>(scaled);
      sums[w] = V::Add(sums[w], e);
      if (p != nullptr) V::Store(p + i + w * V::kLanes, e);
    }
  }
  float lanes[kMaximaLanes];
  OPENLORA_UNROLL
  for (int w = 0; w < kVectors; ++w) V::Store(lanes + w * V::kLanes, sums[w]);
  for (int half = kMaximaLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

template <class V>
constexpr SampleKernels MakeSampleKernels() {
  return {.maxima = &Maxima<V>, .sum_exp = &SumExp<V>};
}

}  // namespace
}  // namespace openlora
