#pragma once

#include <cstdint>

// What int8 weights and activations mean, whoever computes them. A row of either is cut along K into groups of 128,
// padded with zeros, and each group g is rotated:
//   1. g[k] = -g[k] where bit k % 32 of kInt8Signs[k / 32] is set
//   2. for d = 1, 2, 4, …, 64: (g[k], g[k + d]) = (g[k] + g[k + d], g[k] - g[k + d]) for each k with k & d == 0
//   3. g[k] = g[k] * kInt8RotationScale
// each step rounded to f32. That is an orthogonal matrix, so products stay what they are, and it spreads a strong
// channel over all 128 (QuaRot: arXiv:2404.00456). Then
//   weights      scale = largest |g| / 127 as f16, rounded up; q = g / scale, to the nearest integer, ties to even
//   activations  scale = largest |g| / 127 as f32; q = g * (127 / largest |g|), likewise; all 0 below kInt8Least
// A group with a NaN or an infinity, or weights too large for an f16 scale, have the scale NaN.
// The signs, the order of the stages and the rounding are part of the layout: who changes them makes a new version.

namespace openlora {

inline constexpr int kInt8LayoutVersion = 1;
inline constexpr int kInt8GroupK = 128;
inline constexpr float kInt8RotationScale = 0x1.6a09e6p-4f;  // 1 / sqrt(128)
inline constexpr float kInt8Least = 0x1.0p-120f;             // 127 / it is still finite

// The first 128 bits of the fraction of pi.
static constexpr uint32_t kInt8Signs[kInt8GroupK / 32] = {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u};

constexpr bool IsInt8SignFlipped(int k) { return (kInt8Signs[k / 32] >> (k % 32) & 1) != 0; }

}  // namespace openlora
