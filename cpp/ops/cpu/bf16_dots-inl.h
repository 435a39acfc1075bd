#pragma once

#include "ops/bf16_dot.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/panels-inl.h"
#include "ops/cpu/simd_common.h"
#include "ops/cpu/weights-inl.h"

// y = x·Wᵀ with bf16 weights and x rounded to bf16 (ops/bf16_dot.h), in the kernels of panels-inl.h.

namespace openlora {
namespace {

// The high 16 bits of an f32, rounded; a denormal becomes zero.
OPENLORA_INLINE uint32_t RoundToBF16(uint32_t bits) {
  const uint32_t rounded = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
  return (rounded & 0x7f800000u) == 0 ? rounded & 0x80000000u : rounded & 0xffff0000u;
}

// x [in] into its groups, [begin, end) of them, padded with zeros: pairs of bf16, or f32.
template <bool is_paired>
void RoundGroups(const float* x, int64_t in, int64_t begin, int64_t end, uint8_t* groups) {
  constexpr int kStored = is_paired ? kBF16DotGroupK / 2 : kBF16DotGroupK;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t left = in - group * kBF16DotGroupK;
    uint32_t bits[kBF16DotGroupK];
    if (left < kBF16DotGroupK) __builtin_memset(bits, 0, sizeof bits);
    __builtin_memcpy(bits, x + group * kBF16DotGroupK,
                     static_cast<size_t>(left < kBF16DotGroupK ? left : kBF16DotGroupK) * sizeof(float));
    float* const out = reinterpret_cast<float*>(groups) + group * kStored;
    for (int i = 0; i < kStored; ++i) {
      if constexpr (is_paired) {
        out[i] = __builtin_bit_cast(float, RoundToBF16(bits[2 * i]) >> 16 | RoundToBF16(bits[2 * i + 1]));
      } else {
        out[i] = __builtin_bit_cast(float, RoundToBF16(bits[i]));
      }
    }
  }
}

// A pair of k as one k of 32 bits: a bf16 panel is an f32 panel of pairs.
template <class V>
struct Pairs : V {
  using F = typename V::F;
  static OPENLORA_INLINE F Fma(F w, F x, F sum) {
    if constexpr (V::kHasBF16Dot) {
      return V::DotBF16(sum, w, x);
    } else {
      sum = V::Fma(V::OddBF16(V::BitsOf(w)), V::OddBF16(V::BitsOf(x)), sum);
      return V::Fma(V::EvenBF16(V::BitsOf(w)), V::EvenBF16(V::BitsOf(x)), sum);
    }
  }
};

// Where no mode flushes denormals: by hand.
template <class V>
struct Flushing : V {
  using F = typename V::F;
  using I = typename V::I;
  static OPENLORA_INLINE F EvenBF16(I pairs) { return Flush(V::EvenBF16(pairs)); }
  static OPENLORA_INLINE F OddBF16(I pairs) { return Flush(V::OddBF16(pairs)); }
  static OPENLORA_INLINE F Flush(F a) { return __builtin_expect(V::IsAnyTiny(a), 0) ? FlushLanes(a) : a; }
  static OPENLORA_INLINE F Add(F a, F b) { return Flush(V::Add(Flush(a), Flush(b))); }
  static OPENLORA_INLINE F Fma(F a, F b, F c) {
    const F sum = V::Fma(a, b, c);
    return __builtin_expect(V::IsAnyTiny(sum), 0) ? FlushSum(a, b, c, sum) : sum;
  }

 private:
  static float FlushOne(float a) { return __builtin_fabsf(a) < kBF16DotLeast ? __builtin_copysignf(0, a) : a; }

  static __attribute__((noinline)) F FlushLanes(F a) {
    float lanes[V::kLanes];
    V::Store(lanes, a);
    for (float& lane : lanes) lane = FlushOne(lane);
    return V::Load(lanes);
  }
  // A lane that is 2^-126 may have been less. Where it could have been, -tiny - c and tiny - c are exact: the bits of c
  // and of a·b end at 2^-151 or above them, or cancel.
  static __attribute__((noinline)) F FlushSum(F a, F b, F c, F sum) {
    float of_a[V::kLanes], of_b[V::kLanes], of_c[V::kLanes], of_sum[V::kLanes];
    V::Store(of_a, a);
    V::Store(of_b, b);
    V::Store(of_c, c);
    V::Store(of_sum, sum);
    for (int i = 0; i < V::kLanes; ++i) {
      const double product = static_cast<double>(of_a[i]) * of_b[i];
      if (-kBF16DotTiny - of_c[i] < product && product < kBF16DotTiny - of_c[i])
        of_sum[i] = __builtin_copysignf(0, of_sum[i]);
    }
    return V::Load(of_sum);
  }
};

// Not inlined, so that nothing of it is computed outside of the mode.
template <class V, class W>
__attribute__((noinline)) void PanelsInside(const PanelsArgs& args) {
  Panels<V, W>(args);
}
template <class V, class W>
void PanelsInMode(const PanelsArgs& args) {
  const uint32_t before = V::EnterFlushMode();
  PanelsInside<V, W>(args);
  V::LeaveFlushMode(before);
}

template <class V>
void BF16DotPanels(const PanelsArgs& args) {
  constexpr int kStored = V::kHasBF16Dot ? kBF16DotGroupK / 2 : kBF16DotGroupK;
  PanelsArgs rounded = args;
  rounded.x = reinterpret_cast<const float*>(args.x_quantised);
  rounded.x_stride = args.x_stride_groups * kStored;
  rounded.in = V::kHasBF16Dot ? (args.in + 1) / 2 : (args.in + 1) / 2 * 2;
  if constexpr (V::kHasBF16Dot) {
    PanelsInMode<Pairs<V>, WeightF32<Pairs<V>>>(rounded);  // the mode is for what follows the chain
  } else if constexpr (V::kHasFlushMode) {
    PanelsInMode<V, WeightBF16<V>>(rounded);
  } else {
    Panels<Flushing<V>, WeightBF16<Flushing<V>>>(rounded);
  }
}

template <class V>
constexpr QuantisedFormat MakeBF16Dot() {
  constexpr int64_t kStored = V::kHasBF16Dot ? kBF16DotGroupK / 2 : kBF16DotGroupK;
  return {kStored * static_cast<int64_t>(sizeof(float)), &RoundGroups<V::kHasBF16Dot>, &BF16DotPanels<V>};
}

}  // namespace
}  // namespace openlora
