#pragma once

#include <cstdint>

// What adapters held in int8 mean, whoever computes with them. A rank's row of A [in], and its column of B [out], is
// cut into groups of 32; the last one may be shorter. Of each group w
//   scale = largest |w| / 127 in f32, rounded up to bf16; 0 where that is below 2^-126
//   q = w / scale in f32, to the nearest integer, ties to even; 0 where the scale is 0
// so |q| <= 127, and q · scale is off by half a scale at most: 0.4 % of the largest of its group. bf16, because it has
// the range of f32: trained adapters hold values of 1e-4, whose scales would be subnormal in f16. Why 32: eight ranks
// with their scales take 272 bytes a group, 4080 for 480 columns, 0.4 % less than a frame; and normal weights lose 0.53
// %, in groups of 64 0.59 %.

namespace openlora {

inline constexpr int kInt8AdapterGroup = 32;

}  // namespace openlora
