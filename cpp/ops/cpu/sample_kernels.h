#pragma once

#include <cstddef>
#include <cstdint>

namespace openlora {

// Logits are looked at in blocks of kMaximaBlock; maximum j of a block is that of its elements j, j + 16, j + 32, …
inline constexpr int kMaximaBlock = 256;
inline constexpr int kMaximaLanes = 16;
inline constexpr int kSumBlock = 1024;  // exponentials that one f32 sum (16 lanes, then a tree) takes

struct SampleKernels {
  // maxima[ceil(count / kMaximaBlock)][kMaximaLanes]. False if an element is NaN or +inf.
  bool (*maxima)(const float* x, int64_t count, float* maxima);
  // Σ e^((x - max) * inverse_temperature) over count <= kSumBlock elements; stores the terms where p isn't null.
  float (*sum_exp)(const float* x, int64_t count, float max, float inverse_temperature, float* p);
};

}  // namespace openlora
