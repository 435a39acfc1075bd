#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/int4_format.h"

// ops/int4_format.h step by step, for any x and w.

namespace openlora::reference {

// Of weights `q` holds the table's values, of activations integers in ±127.
struct Int4Group {
  std::array<int32_t, kInt4GroupK> q = {};
  float scale = 0;
};

using Int4Values = std::array<float, kInt4GroupK>;

Int4Group Int4QuantiseActivations(const Int4Values& x);
Int4Group Int4QuantiseWeights(const Int4Values& w);

// A row cut into groups, padded and quantised by one of the two.
std::vector<Int4Group> Int4QuantiseRow(std::span<const float> row, Int4Group (*quantise)(const Int4Values& values));

// Σ over a group, exactly.
int32_t Int4Dot(const Int4Group& x, const Int4Group& w);

// The row that quantised weights stand for.
std::vector<float> Int4Dequantise(std::span<const Int4Group> groups, int64_t count);

}  // namespace openlora::reference
