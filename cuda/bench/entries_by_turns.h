#pragma once

#include <cstdint>
#include <vector>

#include "ops/batch_view.h"

namespace openlora {

// The entries of rows that take adapters, one of each slot, by turns; no entries without adapters.
class EntriesByTurns {
 public:
  EntriesByTurns(int32_t rows, int32_t adapters) {
    if (adapters == 0) return;
    weight_.assign(static_cast<size_t>(rows), 1.0f);
    for (int32_t slot = 0; slot < adapters; ++slot) {
      for (int32_t row = slot; row < rows; row += adapters) row_.push_back(row);
      segment_start_.push_back(static_cast<int32_t>(row_.size()));
      segment_slot_.push_back(slot);
    }
    view_ = {rows, row_.data(), weight_.data(), adapters, segment_start_.data(), segment_slot_.data()};
  }
  EntriesByTurns(const EntriesByTurns&) = delete;  // view_ points into it
  EntriesByTurns& operator=(const EntriesByTurns&) = delete;

  const EntriesView& view() const { return view_; }

 private:
  std::vector<int32_t> row_, segment_start_ = {0}, segment_slot_;
  std::vector<float> weight_;
  EntriesView view_;
};

}  // namespace openlora
