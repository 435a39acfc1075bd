#pragma once

#include "ops/cpu/activations-inl.h"
#include "ops/cpu/simd_common.h"
#include "ops/int4_format.h"

// The scale of a group of int4 weights, and its indices (ops/int4_format.h).

namespace openlora {
namespace {

template <class V>
inline constexpr int kInt4Vectors = kInt4GroupK / V::kLanes;

template <class V, int distance>
OPENLORA_INLINE typename V::F AddLanes(typename V::F v) {
  if constexpr (distance > 0) return AddLanes<V, distance / 2>(V::Add(v, V::template SwapLanes<distance>(v)));
  return v;
}

// c[j] = a[j] + a[j + 16], then c[j] += c[j + d] for d = 8, 4, 2, 1.
template <class V>
OPENLORA_INLINE float SumGroup(const typename V::F (&a)[kInt4Vectors<V>]) {
  typename V::F c[kInt4Vectors<V>];
  OPENLORA_UNROLL
  for (int v = 0; v < kInt4Vectors<V>; ++v) c[v] = a[v];
  OPENLORA_UNROLL
  for (int vectors = kInt4Vectors<V> / 2; vectors > 0; vectors /= 2) OPENLORA_UNROLL
  for (int v = 0; v < vectors; ++v) c[v] = V::Add(c[v], c[v + vectors]);
  float sum;
  V::StorePart(&sum, AddLanes<V, V::kLanes / 2>(c[0]), 1);
  return sum;
}

struct Int4Steps {
  float midpoint[kInt4Values - 1];
  float step[kInt4Values - 1];
};
constexpr Int4Steps MakeInt4Steps() {
  Int4Steps steps{};
  for (int i = 0; i < kInt4Values - 1; ++i) {
    steps.midpoint[i] = Int4Midpoint(i);
    steps.step[i] = static_cast<float>(kInt4Table[i + 1] - kInt4Table[i]);
  }
  return steps;
}
constexpr Int4Steps kInt4Steps = MakeInt4Steps();

// Of w assigned by `inverse`: Σ w·t and Σ t².
struct Int4Fit {
  float products;
  float squares;
};

template <class V>
OPENLORA_INLINE Int4Fit FitGroup(const typename V::F (&w)[kInt4Vectors<V>], float inverse) {
  typename V::F products[kInt4Vectors<V>], squares[kInt4Vectors<V>];
  OPENLORA_UNROLL
  for (int v = 0; v < kInt4Vectors<V>; ++v) {
    const typename V::F scaled = V::Mul(w[v], V::Set(inverse));
    typename V::F t = V::Set(kInt4Table[0]);
    for (int i = 0; i < kInt4Values - 1; ++i)
      t = V::AddWhere(t, scaled, V::Set(kInt4Steps.midpoint[i]), V::Set(kInt4Steps.step[i]));
    products[v] = V::Mul(w[v], t);
    squares[v] = V::Mul(t, t);
  }
  return {SumGroup<V>(products), SumGroup<V>(squares)};
}

// w [32], largest = max |w|, finite and at least kInt4Least: the fitted scale.
template <class V>
float Int4Scale(const float* w, float largest) {
  typename V::F group[kInt4Vectors<V>];
  LoadGroup<V>(w, kInt4GroupK, group);
  float best = 0, scale = 0;
  for (int start = 0; start < kInt4StartCount; ++start) {
    const Int4Fit fit = FitGroup<V>(group, kInt4Starts[start] / largest);
    const float gain = fit.products * fit.products / fit.squares;
    if (start > 0 && !(gain > best)) continue;
    best = gain;
    scale = fit.products / fit.squares;
  }
  const Int4Fit fit = FitGroup<V>(group, 1 / scale);
  return fit.products / fit.squares;
}

// index[k] of w [32] at `scale`.
template <class V>
void Int4Assign(const float* w, float scale, uint8_t* index) {
  typename V::F group[kInt4Vectors<V>];
  LoadGroup<V>(w, kInt4GroupK, group);
  for (int v = 0; v < kInt4Vectors<V>; ++v) {
    const typename V::F scaled = V::Mul(group[v], V::Set(1 / scale));
    typename V::F count = V::Zero();
    for (int i = 0; i < kInt4Values - 1; ++i)
      count = V::AddWhere(count, scaled, V::Set(kInt4Steps.midpoint[i]), V::Set(1));
    float lanes[V::kLanes];
    V::Store(lanes, count);
    for (int lane = 0; lane < V::kLanes; ++lane) index[v * V::kLanes + lane] = static_cast<uint8_t>(lanes[lane]);
  }
}

}  // namespace
}  // namespace openlora
