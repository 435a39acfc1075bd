#pragma once

#include <span>

// ops/bf16_dot.h step by step, for any x and w.

namespace openlora::reference {

// A denormal becomes a zero of its sign.
float Flush(float value);

// To the nearest bf16, flushed.
float RoundToBF16(float value);

// a·b + c, rounded once, denormals flushed; a and b are bf16 numbers.
float FlushingFma(float a, float b, float c);

// x·w, x as it is before it is rounded, w of bf16 numbers.
float BF16Dot(std::span<const float> x, std::span<const float> w);

}  // namespace openlora::reference
