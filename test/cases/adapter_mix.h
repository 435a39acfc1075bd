#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "cases/buffers.h"

namespace openlora::cases {

// Which rows use which adapters.
enum class AdapterMix : uint8_t {
  kNone,       // every row uses the base alone
  kOneRow,     // one row in the middle
  kIdentical,  // every row the same
  kDistinct,   // every row its own
  kUniform,    // one of four adapters or none
  kZipf,       // Zipf 1.0 over sixteen adapters
  kSkewed,     // half of the rows one adapter, a quarter none, a quarter their own
};

inline const char* NameOf(AdapterMix mix) {
  static constexpr const char* kNames[] = {"none", "one row", "identical", "distinct", "uniform", "zipf", "skewed"};
  return kNames[static_cast<int>(mix)];
}

struct RowAdapter {
  int32_t adapter;
  float weight;
};

// The adapters of each row, in the order of its request's list.
using Assignment = std::vector<std::vector<RowAdapter>>;

// Index of row's first adapter, or -1.
inline int32_t PickAdapter(AdapterMix mix, int32_t row, int32_t rows, Random& random) {
  switch (mix) {
    case AdapterMix::kNone:
      return -1;
    case AdapterMix::kOneRow:
      return row == rows / 2 ? 0 : -1;
    case AdapterMix::kIdentical:
      return 0;
    case AdapterMix::kDistinct:
      return row;
    case AdapterMix::kUniform:
      return random.Below(5) - 1;
    case AdapterMix::kZipf: {
      double sum = 0, u = random.Uniform() * 3.380728993228993;  // H(16)
      for (int32_t adapter = 0; adapter < 15; ++adapter)
        if (u < (sum += 1.0 / (adapter + 1))) return adapter;
      return 15;
    }
    case AdapterMix::kSkewed:
      return row % 4 < 2 ? 0 : row % 4 == 2 ? -1 : 1 + row / 4;
  }
  return -1;
}

inline Assignment Assign(AdapterMix mix, int32_t rows, int32_t adapters_per_row, Random& random) {
  Assignment assignment(rows);
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t first = PickAdapter(mix, row, rows, random);
    if (first < 0) continue;
    for (int32_t place = 0; place < adapters_per_row; ++place)
      assignment[row].push_back({first + place, adapters_per_row == 1 ? 1.0f : random.Symmetric()});
  }
  return assignment;
}

inline int32_t AdapterCount(const Assignment& assignment) {
  int32_t count = 0;
  for (const auto& list : assignment)
    for (const RowAdapter& entry : list) count = std::max(count, entry.adapter + 1);
  return count;
}

}  // namespace openlora::cases
