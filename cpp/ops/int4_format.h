#pragma once

#include <cstdint>

// What int4 weights and the activations beside them mean, whoever computes them. A row of either is cut along K into
// groups of 32, padded with zeros.
//   weights      scale · kInt4Table[index], scale in f16
//   activations  as int8 ones (int8_format.h), of a group of 32 and not rotated: rotation doesn't help so few bits
// The table was found by Lloyd's method on groups of normal weights, fitted as below, with 0 held: without it, a
// channel that is strong in x and weak in w would be drowned in its weights' own errors. It errs by 0.074, 0.085 and
// 0.084 of normal, Student's (5 degrees of freedom) and Laplace's weights, where Q4_0's sixteen even steps err by
// 0.086, 0.108 and 0.107 (test/native/cpu/int4_error_test.cc). A group's scale is fitted by least squares, all steps in
// f32:
//   assign(inverse)  index[k] = how many of the 15 midpoints between the table's values are below w[k] * inverse
//   fit              Σ w·t / Σ t² over the assigned values t; Σ w·t: c[j] = w[j]·t[j] + w[j+16]·t[j+16], then
//                    c[j] += c[j + d] for d = 8, 4, 2, 1
//   1. for each start s of kInt4Starts: assign(s / largest |w|), fit; the first with the largest (Σ w·t)² / Σ t² wins
//   2. assign(1 / its fit), fit; that, rounded to f16 (ties to even), is the scale
//   3. assign(1 / scale)
// A group whose largest |w| is below kInt4Least, or whose scale is 0 in f16, has the scale 0 and indices kInt4Nought;
// one with a NaN or an infinity, or with a scale beyond f16, the scale NaN.
// The table, the starts and the rounding are part of the layout: who changes them makes a new version.

namespace openlora {

inline constexpr int kInt4LayoutVersion = 1;
inline constexpr int kInt4GroupK = 32;
inline constexpr int kInt4Values = 16;
inline constexpr float kInt4Least = 0x1.0p-100f;
inline constexpr uint8_t kInt4Nought = 7;  // the table's 0

static constexpr int32_t kInt4Table[kInt4Values] = {-123, -92, -71, -54, -39, -26, -13, 0,
                                                    10,   21,  34,  47,  62,  80,  101, 127};
// The largest weight on the table's end, beyond it, and within; of either sign.
inline constexpr int kInt4StartCount = 6;
static constexpr float kInt4Starts[kInt4StartCount] = {127.0f,         -127.0f,       127.0f / 0.9f,
                                                       127.0f / -0.9f, 127.0f / 1.1f, 127.0f / -1.1f};

// Between values i and i + 1; exact.
constexpr float Int4Midpoint(int i) { return static_cast<float>(kInt4Table[i] + kInt4Table[i + 1]) * 0.5f; }

}  // namespace openlora
