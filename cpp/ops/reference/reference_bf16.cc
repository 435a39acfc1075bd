#include "ops/reference/reference_bf16.h"

#include <cmath>
#include <limits>

#include "tensor/dtype.h"

namespace openlora::reference {

float Flush(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }

float RoundToBF16(float value) { return Flush(BF16ToFloat(FloatToBF16(value))); }

float FlushingFma(float a, float b, float c) {
  a = Flush(a);
  b = Flush(b);
  c = Flush(c);
  const float sum = Flush(std::fma(a, b, c));
  if (std::abs(sum) != std::numeric_limits<float>::min() || a == 0 || b == 0) return sum;
  // f32 rounds to multiples of 2^-149 here. With all bits of a fraction it may still be less than 2^-126: the same sum,
  // 2^60 times as large, where f32 has them.
  const bool is_a_larger = std::abs(a) > std::abs(b);
  const float larger = is_a_larger ? a : b, smaller = is_a_larger ? b : a;
  const float scaled = std::fma(larger, smaller * 0x1p60f, c * 0x1p60f);
  return std::abs(scaled) < 0x1p-66f ? std::copysign(0.0f, sum) : sum;
}

float BF16Dot(std::span<const float> x, std::span<const float> w) {
  float sum = 0;
  for (size_t k = 0; k < x.size(); k += 2) {
    const bool has_odd = k + 1 < x.size();
    sum = FlushingFma(has_odd ? w[k + 1] : 0, has_odd ? RoundToBF16(x[k + 1]) : 0, sum);
    sum = FlushingFma(w[k], RoundToBF16(x[k]), sum);
  }
  return sum;
}

}  // namespace openlora::reference
