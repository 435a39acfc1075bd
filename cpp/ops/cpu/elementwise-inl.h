#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/math-inl.h"
#include "ops/cpu/simd_common.h"

namespace openlora {
namespace {

// body(offset, lanes) for vectors over [0, count); the last may be partial.
template <class V, class Body>
OPENLORA_INLINE void ForVectors(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) body(i, V::kLanes);
  if (i < count) body(i, static_cast<int>(count - i));
}

template <class V>
OPENLORA_INLINE typename V::F LoadLanes(const float* p, int lanes) {
  return lanes == V::kLanes ? V::Load(p) : V::LoadPart(p, lanes);
}

template <class V>
OPENLORA_INLINE void StoreLanes(float* p, typename V::F v, int lanes) {
  if (lanes == V::kLanes) {
    V::Store(p, v);
  } else {
    V::StorePart(p, v, lanes);
  }
}

// Σ x²: sixteen chains by column mod 16, then pairs at distance 8, 4, 2, 1.
template <class V>
OPENLORA_INLINE float SumOfSquares(const float* x, int64_t count) {
  constexpr int kChains = 16;
  constexpr int kVectors = kChains / V::kLanes;
  typename V::F sums[kVectors];
  OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[v] = V::Zero();
  int64_t i = 0;
  for (; i + kChains <= count; i += kChains) OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const typename V::F values = V::Load(x + i + v * V::kLanes);
    sums[v] = V::Fma(values, values, sums[v]);
  }
  OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const int64_t left = count - i - v * V::kLanes;
    if (left <= 0) continue;
    const typename V::F values =
        V::LoadPart(x + i + v * V::kLanes, left < V::kLanes ? static_cast<int>(left) : V::kLanes);
    sums[v] = V::Fma(values, values, sums[v]);
  }
  float chains[kChains];
  OPENLORA_UNROLL
  for (int v = 0; v < kVectors; ++v) V::Store(chains + v * V::kLanes, sums[v]);
  for (int distance = kChains / 2; distance > 0; distance /= 2)
    for (int c = 0; c < distance; ++c) chains[c] += chains[c + distance];
  return chains[0];
}

template <class V>
void RmsNormRow(const float* x, const float* gain, int64_t dim, float eps, float* out) {
  const float mean = SumOfSquares<V>(x, dim) / static_cast<float>(dim);
  const typename V::F factor = V::Div(V::Set(1.0f), V::Sqrt(V::Set(mean + eps)));
  ForVectors<V>(dim, [&](int64_t i, int lanes) OPENLORA_INLINE_LAMBDA {
    const typename V::F scaled = V::Mul(LoadLanes<V>(x + i, lanes), factor);
    StoreLanes<V>(out + i, V::Mul(scaled, LoadLanes<V>(gain + i, lanes)), lanes);
  });
}

template <class V>
void RopeHead(float* x, const float* cos_sin, int64_t half) {
  ForVectors<V>(half, [&](int64_t i, int lanes) OPENLORA_INLINE_LAMBDA {
    const typename V::F low = LoadLanes<V>(x + i, lanes), high = LoadLanes<V>(x + half + i, lanes);
    const typename V::F cos = LoadLanes<V>(cos_sin + i, lanes), sin = LoadLanes<V>(cos_sin + half + i, lanes);
    StoreLanes<V>(x + i, V::Sub(V::Mul(low, cos), V::Mul(high, sin)), lanes);
    StoreLanes<V>(x + half + i, V::Add(V::Mul(high, cos), V::Mul(low, sin)), lanes);
  });
}

template <class V>
struct SiluOf {
  static OPENLORA_INLINE typename V::F Apply(typename V::F x) { return Silu<V>(x); }
};

template <class V>
struct GeluTanhOf {
  static OPENLORA_INLINE typename V::F Apply(typename V::F x) { return GeluTanh<V>(x); }
};

template <class V, class Function>
void GatedActivationRow(const float* gate, const float* up, int64_t count, float* out) {
  ForVectors<V>(count, [&](int64_t i, int lanes) OPENLORA_INLINE_LAMBDA {
    const typename V::F activated = Function::Apply(LoadLanes<V>(gate + i, lanes));
    StoreLanes<V>(out + i, V::Mul(activated, LoadLanes<V>(up + i, lanes)), lanes);
  });
}

template <class V>
void AddScaledRow(const float* x, float scale, float* out, int64_t count) {
  ForVectors<V>(count, [&](int64_t i, int lanes) OPENLORA_INLINE_LAMBDA {
    StoreLanes<V>(out + i, V::Fma(LoadLanes<V>(x + i, lanes), V::Set(scale), LoadLanes<V>(out + i, lanes)), lanes);
  });
}

template <class V>
void SoftCapRow(float* x, float cap, int64_t count) {
  ForVectors<V>(count, [&](int64_t i, int lanes) OPENLORA_INLINE_LAMBDA {
    StoreLanes<V>(x + i, SoftCap<V>(LoadLanes<V>(x + i, lanes), cap), lanes);
  });
}

template <class V>
void ScaleRow(float* x, float scale, int64_t count) {
  ForVectors<V>(count, [&](int64_t i, int lanes) OPENLORA_INLINE_LAMBDA {
    StoreLanes<V>(x + i, V::Mul(LoadLanes<V>(x + i, lanes), V::Set(scale)), lanes);
  });
}

}  // namespace
}  // namespace openlora
