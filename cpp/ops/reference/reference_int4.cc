#include "ops/reference/reference_int4.h"

#include <algorithm>
#include <cmath>

#include "ops/int8_format.h"
#include "tensor/dtype.h"

namespace openlora::reference {
namespace {

bool IsFinite(const Int4Values& values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

float Largest(const Int4Values& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// The table's values that w are nearest to at 1 / inverse.
std::array<int32_t, kInt4GroupK> Assign(const Int4Values& w, float inverse) {
  std::array<int32_t, kInt4GroupK> values;
  for (size_t k = 0; k < w.size(); ++k) {
    int index = 0;
    for (int i = 0; i + 1 < kInt4Values; ++i)
      if (w[k] * inverse > Int4Midpoint(i)) ++index;
    values[k] = kInt4Table[index];
  }
  return values;
}

struct Fit {
  float products = 0;  // Σ w·t
  float squares = 0;   // Σ t²
};

Fit FitOf(const Int4Values& w, float inverse) {
  const auto t = Assign(w, inverse);
  Fit fit;
  std::array<float, kInt4GroupK / 2> c;
  for (size_t j = 0; j < c.size(); ++j) {
    const float low = w[j] * static_cast<float>(t[j]), high = w[j + 16] * static_cast<float>(t[j + 16]);
    c[j] = low + high;
  }
  for (size_t d = 8; d > 0; d /= 2)
    for (size_t j = 0; j < d; ++j) c[j] += c[j + d];
  fit.products = c[0];
  for (const int32_t value : t) fit.squares += static_cast<float>(value * value);
  return fit;
}

}  // namespace

Int4Group Int4QuantiseActivations(const Int4Values& x) {
  Int4Group group;
  const float largest = Largest(x);
  if (!IsFinite(x)) group.scale = NAN;
  if (!IsFinite(x) || largest < kInt8Least) return group;
  group.scale = largest / 127;
  const float inverse = 127 / largest;
  for (size_t k = 0; k < x.size(); ++k) group.q[k] = static_cast<int32_t>(std::nearbyint(x[k] * inverse));
  return group;
}

Int4Group Int4QuantiseWeights(const Int4Values& w) {
  Int4Group group;
  group.q.fill(kInt4Table[kInt4Nought]);
  const float largest = Largest(w);
  if (!IsFinite(w)) group.scale = NAN;
  if (!IsFinite(w) || largest < kInt4Least) return group;
  Fit best;
  float best_gain = 0;
  for (const float start : kInt4Starts) {
    const Fit fit = FitOf(w, start / largest);
    const float gain = fit.products * fit.products / fit.squares;
    if (best.squares != 0 && !(gain > best_gain)) continue;
    best = fit;
    best_gain = gain;
  }
  const Fit refined = FitOf(w, 1 / (best.products / best.squares));
  const float scale = F16ToFloat(FloatToF16(refined.products / refined.squares));
  group.scale = std::isfinite(scale) ? scale : NAN;
  if (std::isfinite(scale) && scale != 0) group.q = Assign(w, 1 / scale);
  return group;
}

std::vector<Int4Group> Int4QuantiseRow(std::span<const float> row, Int4Group (*quantise)(const Int4Values& values)) {
  std::vector<Int4Group> groups;
  for (size_t begin = 0; begin < row.size(); begin += kInt4GroupK) {
    Int4Values values = {};
    std::copy_n(row.begin() + static_cast<int64_t>(begin), std::min<size_t>(kInt4GroupK, row.size() - begin),
                values.begin());
    groups.push_back(quantise(values));
  }
  return groups;
}

int32_t Int4Dot(const Int4Group& x, const Int4Group& w) {
  int32_t sum = 0;
  for (size_t k = 0; k < x.q.size(); ++k) sum += x.q[k] * w.q[k];
  return sum;
}

std::vector<float> Int4Dequantise(std::span<const Int4Group> groups, int64_t count) {
  std::vector<float> row;
  for (const Int4Group& group : groups)
    for (const int32_t value : group.q) row.push_back(static_cast<float>(value) * group.scale);
  row.resize(static_cast<size_t>(count));
  return row;
}

}  // namespace openlora::reference
