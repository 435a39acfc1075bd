#pragma once

// What a product of bf16 weights by x rounded to bf16 is (compute 'bf16'), whoever computes it. Each element of x is
// rounded to the nearest bf16, ties to even; NaN stays NaN. An output is one chain of fused multiply-adds from zero,
// over pairs of k in ascending order, in each pair the odd k first; an odd K is padded with a zero on both sides. Then
// the bias, then what it accumulates onto. In all of it denormals are zeros of their sign: operands, and results whose
// magnitude is below 2^-126 when it is rounded to 24 bits. That is what vdpbf16ps does, and FMAs where MXCSR says FTZ
// and DAZ (10⁷ random tests on Zen 4, half of them at the border).

namespace openlora {

inline constexpr float kBF16DotLeast = 0x1.0p-126f;
// Rounds to less than that in 24 bits: |v| < kBF16DotTiny. The tie rounds to even, up.
inline constexpr double kBF16DotTiny = 0x1.0p-126 - 0x1.0p-151;

}  // namespace openlora
