#include "device/device.cuh"
#include "kernels/sample-inl.h"
#include "kernels/sample.h"

namespace openlora::sample {

// --- Scan ---

struct alignas(128) ScanShared {
  Parts parts;
};
static_assert(sizeof(ScanShared) == kScanSharedBytes);

__device__ __forceinline__ void ScanOne(ScanShared& shared, const float* logits, int begin, int end, uint64_t* best) {
  uint64_t own = kNowhere;
  ForEach(logits, begin, end, [&](float x, int id) { own = x <= kLargest ? dev::Min(own, PlaceOf(x, id)) : kInvalid; });
  const uint64_t all = BlockMin(shared.parts, own);
  if (dev::ThreadIndex() == 0) *best = all;
}

__global__ void __launch_bounds__(kThreads, 8) Scan(const Params params) {
  auto& shared = dev::Shared<ScanShared>();
  const int chunks = Chunks(params), items = *params.row_count * chunks;
  for (int item = dev::BlockIndex(); item < items; item += dev::GridBlocks()) {
    const int index = item / chunks, chunk = item % chunks;
    const Row& row = params.rows[index];
    float* const logits = params.logits + index * params.stride;
    const int begin = chunk * params.chunk, end = dev::Min(params.vocabulary, begin + params.chunk);
    ScanOne(shared, logits, begin, end, params.best + ChunkIndex(params, kRaw, index) + chunk);
    if (!IsAdjusted(row)) continue;
    Adjust(params, row, logits, begin, end);
    ScanOne(shared, logits, begin, end, params.best + ChunkIndex(params, kDrawn, index) + chunk);
    Restore(params, row, logits, begin, end);
  }
}

// --- Weigh ---

struct alignas(128) WeighShared {
  uint64_t own[kBins * kThreads];
  Bin of_warps[kBins * kThreads / 32];
  Parts parts;
};
static_assert(sizeof(WeighShared) == kWeighSharedBytes);

__device__ __forceinline__ void WeighOne(WeighShared& shared, const View& view, float min_p, int begin, int end,
                                         Bin* bins, Mass* mass) {
  ClearBins(shared.own, kBins);
  uint64_t all = 0, kept = 0;
  ForEach(view.logits, begin, end, [&](float x, int) {
    const float distance = DistanceOf(view, x);
    const int bin = BinOf(distance);
    const float weight = WeightOf(distance);
    const uint64_t of_token = bin < kBins - 1 ? MassOf(weight) : 0;
    AddToBin(shared.own, bin, of_token);
    all += of_token;
    if (weight >= min_p) kept += of_token;
  });
  SumBins(shared.own, kBins, shared.of_warps, bins);
  const uint64_t all_sum = BlockSum(shared.parts, all);
  const uint64_t kept_sum = BlockSum(shared.parts, kept);
  if (dev::ThreadIndex() == 0) *mass = {all_sum, kept_sum};
}

__global__ void __launch_bounds__(kThreads, 5) Weigh(const Params params) {
  auto& shared = dev::Shared<WeighShared>();
  const int chunks = Chunks(params), items = *params.row_count * chunks;
  for (int item = dev::BlockIndex(); item < items; item += dev::GridBlocks()) {
    const int index = item / chunks, chunk = item % chunks;
    const Row& row = params.rows[index];
    const int begin = chunk * params.chunk, end = dev::Min(params.vocabulary, begin + params.chunk);
    const uint64_t raw = BestOf(params, kRaw, index), drawn = BestDrawn(params, row, index);
    if (!IsValid(drawn)) continue;
    const auto weigh = [&](int which, uint64_t best) {
      const int64_t at = ChunkIndex(params, which, index) + chunk;
      const View view = ViewOf(params, which, index, best);
      WeighOne(shared, view, row.min_p, begin, end, params.bins + at * kBins, params.masses + at);
    };
    if (IsReported(row)) weigh(kRaw, raw);
    if (!IsDrawn(row)) continue;
    if (IsAdjusted(row)) Adjust(params, row, params.logits + index * params.stride, begin, end);
    weigh(kDrawn, drawn);
  }
}

}  // namespace openlora::sample
