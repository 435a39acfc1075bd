#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/int8_format.h"

// ops/int8_format.h step by step, for any x and w.

namespace openlora::reference {

using Int8Values = std::array<float, kInt8GroupK>;

struct Int8Group {
  std::array<int32_t, kInt8GroupK> q = {};
  float scale = 0;
};

void Int8Rotate(Int8Values& g);
void Int8RotateBack(Int8Values& g);

Int8Group Int8QuantiseActivations(const Int8Values& rotated);
Int8Group Int8QuantiseWeights(const Int8Values& rotated);

// A row cut into groups, padded, rotated and quantised by one of the two.
std::vector<Int8Group> Int8QuantiseRow(std::span<const float> row, Int8Group (*quantise)(const Int8Values& rotated));

// Σ over a group, exactly.
int32_t Int8Dot(const Int8Group& x, const Int8Group& w);

// The row that quantised weights stand for.
std::vector<float> Int8Dequantise(std::span<const Int8Group> groups, int64_t count);

}  // namespace openlora::reference
