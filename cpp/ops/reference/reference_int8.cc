#include "ops/reference/reference_int8.h"

#include <algorithm>
#include <cmath>

#include "tensor/dtype.h"

namespace openlora::reference {
namespace {

void Hadamard(Int8Values& g) {
  for (size_t d = 1; d < g.size(); d *= 2)
    for (size_t k = 0; k < g.size(); ++k) {
      if ((k & d) != 0) continue;
      const float a = g[k], b = g[k + d];
      g[k] = a + b;
      g[k + d] = a - b;
    }
  for (float& value : g) value *= kInt8RotationScale;
}

void FlipSigns(Int8Values& g) {
  for (int k = 0; k < kInt8GroupK; ++k)
    if (IsInt8SignFlipped(k)) g[static_cast<size_t>(k)] = -g[static_cast<size_t>(k)];
}

bool IsFinite(const Int8Values& g) {
  return std::all_of(g.begin(), g.end(), [](float value) { return std::isfinite(value); });
}

float Largest(const Int8Values& g) {
  float largest = 0;
  for (const float value : g) largest = std::max(largest, std::abs(value));
  return largest;
}

}  // namespace

void Int8Rotate(Int8Values& g) {
  FlipSigns(g);
  Hadamard(g);
}

void Int8RotateBack(Int8Values& g) {
  Hadamard(g);
  FlipSigns(g);
}

Int8Group Int8QuantiseActivations(const Int8Values& rotated) {
  Int8Group group;
  const float largest = Largest(rotated);
  if (!IsFinite(rotated)) group.scale = NAN;
  if (!IsFinite(rotated) || largest < kInt8Least) return group;
  group.scale = largest / 127;
  const float inverse = 127 / largest;
  for (size_t k = 0; k < rotated.size(); ++k) group.q[k] = static_cast<int32_t>(std::nearbyint(rotated[k] * inverse));
  return group;
}

Int8Group Int8QuantiseWeights(const Int8Values& rotated) {
  Int8Group group;
  const float wanted = Largest(rotated) / 127;
  uint16_t bits = FloatToF16(wanted);
  if (F16ToFloat(bits) < wanted) ++bits;
  group.scale = IsFinite(rotated) && std::isfinite(F16ToFloat(bits)) ? F16ToFloat(bits) : NAN;
  if (!(group.scale > 0)) return group;
  for (size_t k = 0; k < rotated.size(); ++k)
    group.q[k] = static_cast<int32_t>(std::nearbyint(rotated[k] / group.scale));
  return group;
}

std::vector<Int8Group> Int8QuantiseRow(std::span<const float> row, Int8Group (*quantise)(const Int8Values& rotated)) {
  std::vector<Int8Group> groups;
  for (size_t begin = 0; begin < row.size(); begin += kInt8GroupK) {
    Int8Values g = {};
    std::copy_n(row.begin() + static_cast<int64_t>(begin), std::min<size_t>(kInt8GroupK, row.size() - begin),
                g.begin());
    Int8Rotate(g);
    groups.push_back(quantise(g));
  }
  return groups;
}

int32_t Int8Dot(const Int8Group& x, const Int8Group& w) {
  int32_t sum = 0;
  for (size_t k = 0; k < x.q.size(); ++k) sum += x.q[k] * w.q[k];
  return sum;
}

std::vector<float> Int8Dequantise(std::span<const Int8Group> groups, int64_t count) {
  std::vector<float> row;
  for (const Int8Group& group : groups) {
    Int8Values g;
    for (size_t k = 0; k < g.size(); ++k) g[k] = static_cast<float>(group.q[k]) * group.scale;
    Int8RotateBack(g);
    row.insert(row.end(), g.begin(), g.end());
  }
  row.resize(static_cast<size_t>(count));
  return row;
}

}  // namespace openlora::reference
