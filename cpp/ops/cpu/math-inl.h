#pragma once

#include "ops/cpu/simd_common.h"

namespace openlora {
namespace {

// e^x, all f32 inputs: about 1 ulp; 0 below -104, infinity above 88.72; NaN stays NaN. Cody and Waite's reduction to
// |r| <= ln2/2, then the polynomial of Moshier's Cephes expf; 2^n in two factors, so that subnormal results come out.
template <class V>
OPENLORA_INLINE typename V::F Exp(typename V::F x) {
  using F = typename V::F;
  using I = typename V::I;
  x = V::Max(V::Set(-104.0f), V::Min(V::Set(89.0f), x));
  const F round = V::Set(0x1.8p23f);  // adding it leaves the nearest integer in the low bits
  const F shifted = V::Fma(x, V::Set(1.44269504f), round);
  const F n = V::Sub(shifted, round);
  F r = V::Fma(n, V::Set(-0.693359375f), x);
  r = V::Fma(n, V::Set(2.12194440e-4f), r);
  F p = V::Set(1.9875691500e-4f);
  p = V::Fma(p, r, V::Set(1.3981999507e-3f));
  p = V::Fma(p, r, V::Set(8.3334519073e-3f));
  p = V::Fma(p, r, V::Set(4.1665795894e-2f));
  p = V::Fma(p, r, V::Set(1.6666665459e-1f));
  p = V::Fma(p, r, V::Set(5.0000001201e-1f));
  p = V::Fma(p, V::Mul(r, r), V::Add(r, V::Set(1.0f)));
  const I exponent = V::SubInt(V::BitsOf(shifted), V::SetInt(0x4b400000));
  const I half = V::template ShiftRight<1>(exponent);
  const I rest = V::SubInt(exponent, half);
  const F scale_half = V::FromBits(V::template ShiftLeft<23>(V::AddInt(half, V::SetInt(127))));
  const F scale_rest = V::FromBits(V::template ShiftLeft<23>(V::AddInt(rest, V::SetInt(127))));
  return V::Mul(V::Mul(p, scale_half), scale_rest);
}

// e^x, but exactly 0 for x <= -86 and off by 4e-38 above: for sums of weights, where it costs less, since results that
// are subnormal or vanish take some 100 cycles each.
template <class V>
OPENLORA_INLINE typename V::F ExpOfWeight(typename V::F x) {
  const typename V::F lowest = V::Set(-86.0f);
  return V::Sub(Exp<V>(V::Max(lowest, x)), Exp<V>(lowest));
}

// x / (1 + e^-x)
template <class V>
OPENLORA_INLINE typename V::F Silu(typename V::F x) {
  const typename V::F minus_x = V::Sub(V::Zero(), x);
  return V::Div(x, V::Add(V::Set(1.0f), Exp<V>(minus_x)));
}

// x/2 · (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) · (x + 0.044715 x³): nothing cancels for x << 0.
template <class V>
OPENLORA_INLINE typename V::F GeluTanh(typename V::F x) {
  const typename V::F of_square = V::Fma(V::Mul(x, x), V::Set(-0.0713548163f), V::Set(-1.5957691216f));
  return V::Div(x, V::Add(V::Set(1.0f), Exp<V>(V::Mul(x, of_square))));
}

// cap * tanh(s / cap), tanh(x) = 1 - 2 / (e^2x + 1): the error is a few 2^-24 of cap, whatever s.
template <class V>
OPENLORA_INLINE typename V::F SoftCap(typename V::F s, float cap) {
  using F = typename V::F;
  const F e = Exp<V>(V::Mul(s, V::Set(2 / cap)));
  const F tanh = V::Sub(V::Set(1.0f), V::Div(V::Set(2.0f), V::Add(e, V::Set(1.0f))));
  return V::Mul(tanh, V::Set(cap));
}

}  // namespace
}  // namespace openlora
