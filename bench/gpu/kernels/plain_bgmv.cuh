#include "device/device.cuh"
#include "kernels/lora-inl.h"
#include "kernels/plain_bgmv.h"

namespace openlora::plain_bgmv {

struct Shared {
  float h[lora::kRankMax];  // of x·Aᵀ, times scale and weight
};
static_assert(sizeof(Shared) == kSharedBytes);

__device__ __forceinline__ float ValueOf(const lora::Params& params, const lora::Slot& slot, uint32_t first,
                                         int site_rank, int rank, int column) {
  return dev::ToFloat(lora::ElementOf(params, slot, first, site_rank, rank, column));
}

__global__ void Run(const lora::Params params) {
  float (&h)[lora::kRankMax] = dev::Shared<Shared>().h;
  const int segments = *params.segment_count;
  const int items = params.segment_start[segments] * params.product_count;
  for (int item = dev::BlockIndex(); item < items; item += dev::GridBlocks()) {
    const int entry = item / params.product_count;
    const lora::Product& product = params.products[item % params.product_count];
    int segment = 0;
    while (params.segment_start[segment + 1] <= entry) ++segment;
    const lora::Slot& slot = params.slots[params.segment_slot[segment]];
    const lora::Site site = slot.sites[product.site];
    const int row = params.entry_row[entry];
    const dev::BF16* const x = params.x + row * params.x_stride;
    for (int rank = dev::Warp(); rank < site.rank; rank += kThreads / 32) {
      float sum = 0;
      for (int column = dev::Lane(); column < params.in; column += 32)
        sum += dev::ToFloat(x[column]) * ValueOf(params, slot, site.a, site.rank, rank, column);
      for (int lanes = 16; lanes > 0; lanes /= 2) sum += dev::ShuffleXor(sum, lanes);
      if (dev::Lane() == 0) h[rank] = sum * site.scale * params.entry_weight[entry];
    }
    dev::SyncBlock();
    for (int out = dev::ThreadIndex(); out < product.out; out += kThreads) {
      float sum = 0;
      for (int rank = 0; rank < site.rank; ++rank) sum += h[rank] * ValueOf(params, slot, site.b, site.rank, rank, out);
      product.y[row * product.y_stride + out] += sum;
    }
    dev::SyncBlock();
  }
}

}  // namespace openlora::plain_bgmv
