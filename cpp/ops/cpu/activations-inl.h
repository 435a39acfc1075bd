#pragma once

#include "ops/cpu/simd_common.h"
#include "ops/int8_format.h"

// x as int8 and int4 weights want it (ops/int8_format.h, ops/int4_format.h): cut into groups, rotated, quantised.

namespace openlora {
namespace {

// A group of a row of x, as the level's dot product takes it.
template <class V, int group_k>
struct Activations {
  typename V::Activation x[group_k];
  float scale;
  int32_t start;  // of each sum: what the weights' offset adds, undone
};

struct SignTables {
  float flip[kInt8GroupK];  // ±1: step 1 of the rotation
  float alternate[4][16];   // [log2 d]: + for lanes with lane & d == 0
};

constexpr SignTables MakeSignTables() {
  SignTables tables{};
  for (int k = 0; k < kInt8GroupK; ++k) tables.flip[k] = IsInt8SignFlipped(k) ? -1.0f : 1.0f;
  for (int i = 0; i < 4; ++i)
    for (int lane = 0; lane < 16; ++lane) tables.alternate[i][lane] = (lane >> i & 1) != 0 ? -1.0f : 1.0f;
  return tables;
}
constexpr SignTables kSigns = MakeSignTables();

template <class V>
inline constexpr int kRotatedVectors = kInt8GroupK / V::kLanes;

// The stages of the rotation at distances below kLanes.
template <class V, int log_distance>
OPENLORA_INLINE typename V::F RotateLanes(typename V::F v) {
  if constexpr ((1 << log_distance) < V::kLanes) {
    const typename V::F signs = V::Load(kSigns.alternate[log_distance]);
    return RotateLanes<V, log_distance + 1>(
        V::Fma(v, signs, V::template SwapLanes<1 << log_distance>(v)));  // ±v: exact
  }
  return v;
}

// Steps 2 and 3, of some groups.
template <class V, int vectors>
OPENLORA_INLINE void Hadamard(typename V::F (&g)[vectors]) {
  OPENLORA_UNROLL
  for (int v = 0; v < vectors; ++v) g[v] = RotateLanes<V, 0>(g[v]);
  OPENLORA_UNROLL
  for (int distance = 1; distance < kRotatedVectors<V>; distance *= 2) OPENLORA_UNROLL
  for (int v = 0; v < vectors; ++v) {
    if ((v & distance) != 0) continue;
    const typename V::F a = g[v], b = g[v + distance];
    g[v] = V::Add(a, b);
    g[v + distance] = V::Sub(a, b);
  }
  OPENLORA_UNROLL
  for (int v = 0; v < vectors; ++v) g[v] = V::Mul(g[v], V::Set(kInt8RotationScale));
}

// x [count], padded with zeros.
template <class V, int vectors>
OPENLORA_INLINE void LoadGroup(const float* x, int32_t count, typename V::F (&g)[vectors]) {
  OPENLORA_UNROLL
  for (int v = 0; v < vectors; ++v) {
    const int left = count - v * V::kLanes;
    g[v] = left >= V::kLanes ? V::Load(x + v * V::kLanes) : left > 0 ? V::LoadPart(x + v * V::kLanes, left) : V::Zero();
  }
}

template <class V, int vectors>
OPENLORA_INLINE void RotateGroups(typename V::F (&g)[vectors]) {
  OPENLORA_UNROLL
  for (int v = 0; v < vectors; ++v) g[v] = V::Mul(g[v], V::Load(kSigns.flip + v % kRotatedVectors<V> * V::kLanes));
  Hadamard<V>(g);
}

// x [count], count <= 128, into rotated [128].
template <class V>
void Int8Rotate(const float* x, int32_t count, float* rotated) {
  typename V::F g[kRotatedVectors<V>];
  LoadGroup<V>(x, count, g);
  RotateGroups<V>(g);
  for (int v = 0; v < kRotatedVectors<V>; ++v) V::Store(rotated + v * V::kLanes, g[v]);
}

template <class V>
void Int8RotateBack(const float* rotated, int32_t count, float* x) {
  typename V::F g[kRotatedVectors<V>];
  for (int v = 0; v < kRotatedVectors<V>; ++v) g[v] = V::Load(rotated + v * V::kLanes);
  Hadamard<V>(g);  // its own inverse
  for (int v = 0; v * V::kLanes < count; ++v) {
    const int left = count - v * V::kLanes;
    V::StorePart(x + v * V::kLanes, V::Mul(g[v], V::Load(kSigns.flip + v * V::kLanes)),
                 left < V::kLanes ? left : V::kLanes);
  }
}

// Of all lanes, in each of them.
template <class V, int distance = 1>
OPENLORA_INLINE typename V::F MaxOfLanes(typename V::F v) {
  if constexpr (distance < V::kLanes) return MaxOfLanes<V, 2 * distance>(V::Max(v, V::template SwapLanes<distance>(v)));
  return v;
}
template <class V, int distance = 1>
OPENLORA_INLINE typename V::F SumOfLanes(typename V::F v) {
  if constexpr (distance < V::kLanes) return SumOfLanes<V, 2 * distance>(V::Add(v, V::template SwapLanes<distance>(v)));
  return v;
}
template <class V, int distance = 1>
OPENLORA_INLINE typename V::I SumOfLanesInt(typename V::I v) {
  if constexpr (distance < V::kLanes) {
    const typename V::I other = V::BitsOf(V::template SwapLanes<distance>(V::FromBits(v)));
    return SumOfLanesInt<V, 2 * distance>(V::AddInt(v, other));
  }
  return v;
}

// Groups of x [left] from its first on, padded with zeros. A group is a chain of a hundred cycles and more: several at
// once are under way where the registers hold them.
template <class V, int group_k, bool is_rotated, int groups>
OPENLORA_INLINE void QuantiseSome(const float* x, int64_t left, Activations<V, group_k>* out) {
  using F = typename V::F;
  using I = typename V::I;
  constexpr int kVectors = group_k / V::kLanes;
  F g[groups * kVectors];
  LoadGroup<V>(x, left < groups * group_k ? static_cast<int32_t>(left) : groups * group_k, g);
  if constexpr (is_rotated) RotateGroups<V>(g);
  float most[groups], zero[groups];
  OPENLORA_UNROLL
  for (int i = 0; i < groups; ++i) {
    F largest = V::Zero(), zeros = V::Zero();  // zeros: NaN, if a value is NaN or infinite
    OPENLORA_UNROLL
    for (int v = i * kVectors; v < (i + 1) * kVectors; ++v) {
      largest = V::Max(largest, V::Max(g[v], V::Sub(V::Zero(), g[v])));
      zeros = V::Fma(g[v], V::Zero(), zeros);
    }
    float of_lane[V::kLanes], zero_of_lane[V::kLanes];
    V::Store(of_lane, MaxOfLanes<V>(largest));
    V::Store(zero_of_lane, SumOfLanes<V>(zeros));
    most[i] = of_lane[0];
    zero[i] = zero_of_lane[0];
  }
  OPENLORA_UNROLL
  for (int i = 0; i < groups; ++i) {
    const bool is_zero = !(most[i] >= kInt8Least);
    const F inverse = V::Set(is_zero ? 0 : 127 / most[i]);
    I sum = V::SetInt(0);
    OPENLORA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      // Adding 1.5·2^23 leaves the nearest integer in the low bits.
      const F shifted = V::Add(V::Mul(g[i * kVectors + v], inverse), V::Set(0x1.8p23f));
      const I q = V::SubInt(V::BitsOf(shifted), V::SetInt(0x4b400000));
      V::StoreActivations(out[i].x + v * V::kLanes, q);
      sum = V::AddInt(sum, q);
    }
    uint32_t sum_of_lane[V::kLanes];
    V::StoreInt(sum_of_lane, SumOfLanesInt<V>(sum));
    out[i].scale = (is_zero ? 0 : most[i] / 127) + zero[i];
    out[i].start = static_cast<int32_t>(sum_of_lane[0] * static_cast<uint32_t>(V::kSumStart));
  }
}

// x [in] into its groups, [begin, end) of them, each rotated first or as it is.
template <class V, int group_k, bool is_rotated>
void Quantise(const float* x, int64_t in, int64_t begin, int64_t end, uint8_t* groups) {
  constexpr int kFitting = V::kSums * V::kLanes / group_k;
  constexpr int kAtOnce = kFitting > 4 ? 4 : kFitting > 1 ? kFitting : 1;
  auto* const out = reinterpret_cast<Activations<V, group_k>*>(groups);
  int64_t group = begin;
  for (; group + kAtOnce <= end; group += kAtOnce)
    QuantiseSome<V, group_k, is_rotated, kAtOnce>(x + group * group_k, in - group * group_k, out + group);
  for (; group < end; ++group)
    QuantiseSome<V, group_k, is_rotated, 1>(x + group * group_k, in - group * group_k, out + group);
}

}  // namespace
}  // namespace openlora
