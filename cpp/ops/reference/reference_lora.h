#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace openlora::reference {

// ops/int8_adapter.h step by step.
struct Int8AdapterValues {
  float scale = 0;
  std::vector<int32_t> q;
};
Int8AdapterValues Int8QuantiseAdapter(std::span<const float> group);

// Stores values[i], the row of one rank of a tile, A or B: [ranks][columns]; of int8 (ops/int8_adapter.h) there stand
// [ranks][columns / 32] bf16 scales behind them.
void StoreTileRow(std::span<const float> values, int32_t ranks, int32_t rank, DType dtype, void* tile);

// The matrix [rank, columns] whose first run is `first`, gathered from its tiles. Adds the tiles' bytes to
// *bytes_read.
std::vector<double> GatherTiles(const AdapterPages& pages, const SlotPages& slot, uint32_t first, int32_t rank,
                                int64_t columns, uint64_t* bytes_read);

// delta[row] += weight · scale · (x[row]·Aᵀ)·Bᵀ for each entry, where `shrink(row, A, rank, h)` computes h = x[row]·Aᵀ.
// delta is [T, out] in double. Does nothing, and counts nothing, when there are no entries or site < 0.
template <typename Shrink>
void AddLora(const EntriesView* entries, const AdapterPages* pages, int32_t site, int64_t in, int64_t out,
             const Shrink& shrink, std::vector<double>& delta, OpCounters& counters) {
  if (entries == nullptr || pages == nullptr || site < 0) return;
  for (int32_t segment = 0; segment < entries->segments; ++segment) {
    const SlotPages& slot = pages->slots[entries->segment_slot[segment]];
    const SitePages& pages_of_site = slot.sites[site];
    ++counters.page_table_reads;
    const int32_t rank = pages_of_site.rank;
    if (rank == 0) continue;
    ++counters.lora_ops;
    const std::vector<double> a = GatherTiles(*pages, slot, pages_of_site.a, rank, in, &counters.lora_bytes_read);
    const std::vector<double> b = GatherTiles(*pages, slot, pages_of_site.b, rank, out, &counters.lora_bytes_read);
    std::vector<double> h(rank);
    for (int32_t e = entries->segment_start[segment]; e < entries->segment_start[segment + 1]; ++e) {
      const int32_t row = entries->entry_row[e];
      shrink(row, a, rank, h);
      for (int64_t o = 0; o < out; ++o) {
        double sum = 0;
        for (int32_t r = 0; r < rank; ++r) sum += h[r] * b[r * out + o];
        delta[row * out + o] += double{entries->entry_weight[e]} * pages_of_site.scale * sum;
      }
    }
  }
}

}  // namespace openlora::reference
