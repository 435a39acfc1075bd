#pragma once

#include <algorithm>
#include <cmath>

#include "tensor/dtype.h"

// How llama.cpp's formats round, for comparison: what is left of a group of 32 values.

namespace openlora {

// Q8_0: the scale is largest / 127 as f16.
inline void RoundQ8(float* x) {
  float largest = 0;
  for (int k = 0; k < 32; ++k) largest = std::max(largest, std::abs(x[k]));
  const float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0, stored = F16ToFloat(FloatToF16(scale));
  for (int k = 0; k < 32; ++k) x[k] = std::round(x[k] * inverse) * stored;
}

// Q4_0: the largest becomes -8.
inline void RoundQ4(float* x) {
  float largest = 0;
  for (int k = 0; k < 32; ++k)
    if (std::abs(x[k]) > std::abs(largest)) largest = x[k];
  const float scale = largest / -8, inverse = scale != 0 ? 1 / scale : 0, stored = F16ToFloat(FloatToF16(scale));
  for (int k = 0; k < 32; ++k) x[k] = (std::min(15.0f, std::floor(x[k] * inverse + 8.5f)) - 8) * stored;
}

}  // namespace openlora
