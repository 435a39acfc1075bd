#pragma once

#include <cstdint>
#include <vector>

#include "ops/batch_view.h"

namespace openlora {

// Entries of a batch that one launch of kernels/lora.h takes: at most kSegmentsMax segments, and no row twice, whose
// sums would race. Waves follow each other in the order of the entries.
struct LoraWave {
  int32_t entry_begin = 0;
  int32_t entry_end = 0;
  std::vector<int32_t> segment_start;  // from entry_begin on
  std::vector<int32_t> segment_slot;   // into AdapterPages::slots
};

std::vector<LoraWave> WavesOf(const EntriesView& entries, int32_t rows);

}  // namespace openlora
