#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "ops/batch_view.h"

namespace openlora {

struct AttentionShape {
  int32_t group = 1;  // query heads of a KV head
  int32_t prefill_warps = 1;
  int32_t places = 0;  // partial results that there is room for
};

// Who attends the rows of a step, the same in all its layers. Sequences with so few rows that they are one tile go to
// Decode, split by split, as long as there are places; all others to Prefill.
struct AttentionPlan {
  std::vector<attention::Item> decode;
  std::vector<attention::Item> prefill;
  std::vector<int32_t> row_place;  // [T]
  std::vector<int32_t> merge_row;

  void Build(const RowsView& rows, const AttentionShape& shape);
};

}  // namespace openlora
