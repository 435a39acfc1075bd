#include "ops/sampler.h"

#include <algorithm>

#include "kernels/sample_finish.h"

namespace openlora {
namespace {

static_assert(sizeof(sample::Result) == sizeof(SampleResult) && sizeof(sample::Bias) == sizeof(TokenBias) &&
              sizeof(sample::Seen) == sizeof(SeenToken) && sample::kTop == kTopLogprobsMax);

// Of the scratch of one view of one row.
constexpr int64_t kBinBytes = sample::kBins * static_cast<int64_t>(sizeof(sample::Bin));
constexpr int64_t kChunkBytes = static_cast<int64_t>(sizeof(uint64_t) + sizeof(sample::Mass)) + kBinBytes;

// Results don't depend on these; the simulator's time does.
constexpr int kThreads = kIsSimulated ? 64 : sample::kThreads;
constexpr int kFinishThreads = kIsSimulated ? 64 : sample::kFinishThreads;
constexpr int32_t kListMax = kIsSimulated ? 2 * sample::kListMin : sample::kListMax;

}  // namespace

CudaSampler::~CudaSampler() {
  for (void* const memory : {scratch_, results_memory_, saved_memory_})
    if (memory != nullptr) context_.Free(memory);
  if (host_results_ != nullptr) context_.FreeHost(host_results_);
}

Status CudaSampler::Reserve(int32_t rows, int32_t vocabulary) {
  rows_max_ = rows;
  chunks_ = (vocabulary + sample::kChunk - 1) / sample::kChunk;
  const int64_t partials = int64_t{sample::kViews} * rows * chunks_;
  OPENLORA_RETURN_IF_ERROR(
      context_.Allocate("scratch of the sampler", static_cast<size_t>(partials * kChunkBytes), &scratch_));
  const size_t bytes = static_cast<size_t>(rows) * sizeof(sample::Result);
  OPENLORA_RETURN_IF_ERROR(context_.AllocateHost(bytes, &host_results_));
  return context_.Allocate("results of the sampler", bytes, &results_memory_);
}

Status CudaSampler::Launch(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) {
  table_.clear();
  bias_.clear();
  seen_.clear();
  for (const SampleRow& row : rows) {
    table_.push_back({row.target, row.temperature, row.top_k, row.top_p, row.min_p, row.logprobs, row.seed,
                      row.draw_index, row.repetition_penalty, row.frequency_penalty, row.presence_penalty,
                      static_cast<int32_t>(bias_.size()), static_cast<int32_t>(row.bias.size()),
                      static_cast<int32_t>(seen_.size()), static_cast<int32_t>(row.seen.size())});
    bias_.insert(bias_.end(), row.bias.begin(), row.bias.end());
    seen_.insert(seen_.end(), row.seen.begin(), row.seen.end());
  }
  OPENLORA_RETURN_IF_ERROR(ReserveSaved());
  const auto count = static_cast<int32_t>(rows.size());
  staging_.Clear();
  const auto count_at = staging_.AddOne(count);
  const auto table_at = staging_.Add(std::span<const sample::Row>(table_), static_cast<size_t>(rows_max_));
  const auto bias_at = staging_.Add(std::span<const TokenBias>(bias_), saved_max_);
  const auto seen_at = staging_.Add(std::span<const SeenToken>(seen_));
  OPENLORA_RETURN_IF_ERROR(staging_.Upload());
  auto* const scratch = static_cast<uint8_t*>(scratch_);
  const int64_t partials = int64_t{sample::kViews} * rows_max_ * chunks_;
  auto* const bins = scratch;
  auto* const masses = bins + partials * kBinBytes;
  auto* const best = masses + partials * static_cast<int64_t>(sizeof(sample::Mass));
  const sample::Params params{.logits = logits.f32(),
                              .stride = logits.stride,
                              .vocabulary = static_cast<int32_t>(logits.cols),
                              .chunk = sample::kChunk,
                              .list_max = kListMax,
                              .rows_max = rows_max_,
                              .row_count = staging_.At(count_at),
                              .rows = staging_.At(table_at),
                              .bias = reinterpret_cast<const sample::Bias*>(staging_.At(bias_at)),
                              .seen = reinterpret_cast<const sample::Seen*>(staging_.At(seen_at)),
                              .saved_bias = static_cast<float*>(saved_memory_),
                              .saved_seen = static_cast<float*>(saved_memory_) + saved_max_,
                              .best = reinterpret_cast<uint64_t*>(best),
                              .bins = reinterpret_cast<sample::Bin*>(bins),
                              .masses = reinterpret_cast<sample::Mass*>(masses),
                              .results = static_cast<sample::Result*>(results_memory_)};
  const int pieces = static_cast<int>(count * chunks_);
  const int blocks = std::min(pieces, context_.multiprocessors() * kBlocksOfSm);
  context_.Launch(sample::Scan, {blocks, kThreads, sample::kScanSharedBytes}, params);
  context_.Launch(sample::Weigh, {blocks, kThreads, sample::kWeighSharedBytes}, params);
  context_.Launch(sample::Finish, {count, kFinishThreads, sample::kFinishSharedBytes}, params);
  results_ = results;
  context_.Copy(host_results_, results_memory_, rows.size() * sizeof(sample::Result));
  return Ok();
}

// Room for as many logits as are adjusted, of either list.
Status CudaSampler::ReserveSaved() {
  const size_t needed = std::max(bias_.size(), seen_.size());
  if (needed <= saved_max_ && saved_memory_ != nullptr) return Ok();
  if (saved_memory_ != nullptr) context_.Free(saved_memory_);
  saved_memory_ = nullptr;
  saved_max_ = std::max<size_t>(2 * needed, 1024);
  return context_.Allocate("adjusted logits", 2 * saved_max_ * sizeof(float), &saved_memory_);
}

void CudaSampler::Finish() {
  if (!results_.empty()) std::memcpy(static_cast<void*>(results_.data()), host_results_, results_.size_bytes());
  results_ = {};
}

}  // namespace openlora
