#include "ops/attention_plan.h"

#include <algorithm>

namespace openlora {

void AttentionPlan::Build(const RowsView& rows, const AttentionShape& shape) {
  decode.clear();
  prefill.clear();
  merge_row.clear();
  row_place.assign(static_cast<size_t>(rows.rows), 0);
  int32_t places = 0;
  for (int32_t row = 0, end = 0; row < rows.rows; row = end) {
    while (end < rows.rows && rows.row_sequence[end] == rows.row_sequence[row]) ++end;
    const int32_t pairs = (end - row) * shape.group;
    const int32_t splits = rows.row_pos[end - 1] / attention::kSplit + 1;
    const int32_t places_needed = (end - row) * splits;
    if (pairs <= attention::kTileRows && places_needed <= shape.places - places) {
      // A row has a place for all splits of its sequence: one that sees fewer leaves some of them alone.
      for (int32_t split = 0; split < splits; ++split) decode.push_back({row, 0, pairs, split});
      for (int32_t r = row; r < end; ++r) {
        row_place[static_cast<size_t>(r)] = places;
        merge_row.push_back(r);
        places += splits;
      }
      continue;
    }
    const int32_t room = shape.prefill_warps * attention::kTileRows;
    for (int32_t pair = 0; pair < pairs; pair += room)
      prefill.push_back({row, pair, std::min(room, pairs - pair), attention::kAllSplits});
  }
}

}  // namespace openlora
