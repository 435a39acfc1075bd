#include "device/device.cuh"
#include "kernels/embed.h"
#include "kernels/lora-inl.h"

namespace openlora::embed {

// Four columns a thread: 8 bytes of the table, 16 of an aligned row of out.
template <bool is_f16>
__device__ __forceinline__ void Gather(const GatherParams& params) {
  const int groups = dev::CeilDiv(params.hidden, kTableColumns), chunks = dev::CeilDiv(params.hidden, kChunk);
  const int items = *params.rows * chunks;
  for (int item = dev::BlockIndex(); item < items; item += dev::GridBlocks()) {
    const int row = item / chunks, column = item % chunks * kChunk + dev::ThreadIndex() * 4;
    if (column >= params.hidden) continue;
    const int token = params.row_token[row];
    const int64_t group = static_cast<int64_t>(token / kTableRows) * groups + column / kTableColumns;
    const int64_t at = (group * kTableRows + token % kTableRows) * kTableColumns + column % kTableColumns;
    const auto pairs = *reinterpret_cast<const dev::Vec8*>(params.table + at);
    float* const out = params.out + row * params.out_stride + column;
    dev::Vec16 scaled;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto bits = static_cast<uint16_t>(pairs.w[i / 2] >> i % 2 * 16);
      scaled.w[i] = dev::FloatToBits(params.scale * (is_f16 ? dev::F16ToFloat(bits) : dev::ToFloat(bits)));
    }
    if (params.hidden - column >= 4 && reinterpret_cast<uint64_t>(out) % 16 == 0) {
      *reinterpret_cast<dev::Vec16*>(out) = scaled;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (column + i < params.hidden) out[i] = dev::BitsToFloat(scaled.w[i]);
    }
  }
}

__global__ void __launch_bounds__(kThreads) GatherBF16(const GatherParams params) { Gather<false>(params); }
__global__ void __launch_bounds__(kThreads) GatherF16(const GatherParams params) { Gather<true>(params); }

__device__ __forceinline__ int SegmentOf(const lora::Params& lora, int segments, int entry) {
  int low = 0, high = segments - 1;  // the last segment that begins at or before the entry
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (lora.segment_start[middle] <= entry) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// A warp for each entry, a lane for each rank.
template <bool is_f16>
__device__ __forceinline__ void ShrinkAll(const ShrinkParams& params) {
  const lora::Params& lora = params.lora;
  const int segments = *lora.segment_count;
  if (segments == 0) return;
  const int entries = lora.segment_start[segments], warps = kThreads / 32;
  for (int entry = dev::BlockIndex() * warps + dev::Warp(); entry < entries; entry += dev::GridBlocks() * warps) {
    const lora::Slot& slot = lora.slots[lora.segment_slot[SegmentOf(lora, segments, entry)]];
    const lora::Site site = slot.sites[lora.products[0].site];
    const int token = params.row_token[lora.entry_row[entry]];
    const int ranks = dev::CeilDiv(site.rank, lora::kTileRanks) * lora::kTileRanks;
#pragma unroll 1
    for (int rank = dev::Lane(); rank < ranks; rank += 32) {
      uint16_t bits = 0;
      if (rank < site.rank) bits = lora::ElementOf(lora, slot, site.a, site.rank, rank, token);
      const float a = is_f16 ? dev::F16ToFloat(bits) : dev::ToFloat(bits);
      lora.h[static_cast<int64_t>(entry) * lora::kRankMax + rank] = a * params.scale;
    }
  }
}
__global__ void __launch_bounds__(kThreads) ShrinkBF16(const ShrinkParams params) { ShrinkAll<false>(params); }
__global__ void __launch_bounds__(kThreads) ShrinkF16(const ShrinkParams params) { ShrinkAll<true>(params); }

}  // namespace openlora::embed
