#include "ops/cuda_ops.h"

#include <algorithm>

#include "base/check.h"
#include "base/clock.h"
#include "kernels/elementwise.h"
#include "kernels/embed.h"
#include "kernels/linear.h"
#include "ops/attention_kernels.h"
#include "ops/tile_packing.h"
#include "ops/weight_packing.h"

// Loading, and what a step begins and ends with. The ops themselves: cuda_ops_launch.cc.

namespace openlora {
namespace {

// Of partial results of attention: what doesn't fit is attended by Prefill, row after row.
constexpr int64_t kPartialBytesMax = 64 << 20;
// Shapes of steps of which graphs are kept.
constexpr size_t kRecordsMax = 256;

}  // namespace

CudaOps::CudaOps(std::shared_ptr<CudaContext> context, DType dtype) : context_(std::move(context)), dtype_(dtype) {}

CudaOps::~CudaOps() {
  (void)context_->Synchronize();
  for (void* const memory : {input_, lora_, partials_})
    if (memory != nullptr) context_->Free(memory);
  for (const auto& [host, memory] : constants_) context_->Free(memory);
}

int64_t CudaOps::PackedBytes(WeightFormat, int64_t out, int64_t in) const { return CudaWeightElements(out, in) * 2; }

void CudaOps::Pack(const SourceView& source, WeightFormat, int64_t, int64_t out_begin, void* packed) {
  packing_.resize(static_cast<size_t>(CudaWeightElements(source.rows, source.cols)));
  values_.resize(static_cast<size_t>(linear::kTileOuts * source.cols));
  for (int64_t row = 0; row < source.rows; row += linear::kTileOuts) {
    const int64_t rows = std::min<int64_t>(linear::kTileOuts, source.rows - row);
    for (int64_t i = 0; i < rows * source.cols; ++i)
      values_[static_cast<size_t>(i)] = LoadUnaligned(source, row * source.cols + i);
    PackCudaWeight(values_.data(), rows, source.cols, row, dtype_, packing_.data());
  }
  auto* const target = static_cast<uint16_t*>(packed) + CudaWeightElements(out_begin, source.cols);
  Note(context_->Upload(target, packing_.data(), packing_.size() * sizeof(uint16_t)));
}

void CudaOps::PackVector(const SourceView& source, float offset, float scale, float* packed) {
  values_.resize(static_cast<size_t>(source.cols));
  Ops::PackVector(source, offset, scale, values_.data());
  Note(context_->Upload(packed, values_.data(), values_.size() * sizeof(float)));
}

void CudaOps::PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                        void* tile) const {
  PackCudaTile(values, stride, 1, ranks, columns, dtype, static_cast<uint16_t*>(tile));
}

void CudaOps::PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                        void* tile) const {
  PackCudaTile(values, 1, stride, ranks, columns, dtype, static_cast<uint16_t*>(tile));
}

int64_t CudaOps::KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) const {
  return int64_t{2} * kv_heads * head_dim * tokens * static_cast<int64_t>(SizeOf(dtype));
}

Status CudaOps::CheckLimits(const StepLimits& limits) const {
  if (limits.weights != WeightFormat(dtype_) || limits.kv != dtype_ || limits.adapters != dtype_)
    return Error(kErrCudaUnsupported, "weights in %s, KV in %s and adapters in %s: on a GPU all three are in %s",
                 NameOf(limits.weights), NameOf(limits.kv), NameOf(limits.adapters), NameOf(dtype_));
  if (limits.head_dim % 8 != 0 || limits.head_dim > attention::kHeadDimMax)
    return Error(kErrCudaUnsupported, "heads of %d columns: on a GPU they are a multiple of 8 up to %d",
                 limits.head_dim, attention::kHeadDimMax);
  const int32_t norm_dim = std::max(limits.hidden, limits.heads * limits.head_dim);
  if (norm_dim > elementwise::kNormDimMax)
    return Error(kErrCudaUnsupported, "vectors of %d columns: on a GPU they have up to %d", norm_dim,
                 elementwise::kNormDimMax);
  if (limits.vocab > sample::kVocabularyMax)
    return Error(kErrCudaUnsupported, "a vocabulary of %d: on a GPU it has up to %d tokens", limits.vocab,
                 sample::kVocabularyMax);
  return Ok();
}

Status CudaOps::Reserve(const StepLimits& limits) {
  OPENLORA_RETURN_IF_ERROR(CheckLimits(limits));
  limits_ = limits;
  attention_ = std::make_unique<AttentionKernels>(AttentionKernelsFor(limits.head_dim, is_f16()));
  step_.Reserve(limits.rows, limits.sites);
  OPENLORA_RETURN_IF_ERROR(sampler_.Reserve(limits.logit_rows, limits.vocab));
  input_stride_ = (int64_t{limits.project_in} + 7) / 8 * 8;
  const auto rows = static_cast<size_t>(limits.rows);
  OPENLORA_RETURN_IF_ERROR(
      context_->Allocate("inputs of products", rows * static_cast<size_t>(input_stride_) * sizeof(uint16_t), &input_));
  const auto parts = static_cast<size_t>((limits.project_in + lora::kPart - 1) / lora::kPart);
  OPENLORA_RETURN_IF_ERROR(context_->Allocate(
      "products of x and A", lora::kProductsMax * rows * parts * lora::kRankMax * sizeof(float), &lora_));
  const int64_t splits = limits.context / attention::kSplit + 1;
  const int64_t place_floats = int64_t{limits.heads} * (limits.head_dim + 2);
  const int64_t places = std::min(limits.rows * splits, kPartialBytesMax / (place_floats * 4));
  attention_shape_ = {limits.heads / limits.kv_heads, attention_->prefill_warps, static_cast<int32_t>(places)};
  return context_->Allocate("partial results of attention", static_cast<size_t>(places * place_floats * 4), &partials_);
}

void CudaOps::FindLandings(const BatchView& batch) {
  landings_.clear();
  for (int32_t s = 0; s < batch.entries.segments; ++s) {
    auto* const landing = static_cast<CudaLanding*>(batch.pages.slots[batch.entries.segment_slot[s]].landing);
    if (landing == nullptr || landing->IsDone()) continue;
    const auto is_same = [landing](const Awaited& awaited) { return awaited.landing == landing; };
    if (std::none_of(landings_.begin(), landings_.end(), is_same)) landings_.push_back({landing});
  }
}

// The second step of a shape is recorded: shapes that come once aren't worth it, and all that has to be there before
// has been made in the first. No graph waits for what is on its way.
bool CudaOps::BeginStep(const BatchView& batch) {
  is_head_ = false;
  counted_ = {};
  batch_ = &batch;
  if (!error_.ok()) return false;
  Note(step_.Upload(batch, attention_shape_));
  FindLandings(batch);
  if (!landings_.empty()) {
    ++steps_held_back_;
    return false;
  }
  const auto found = records_.find(step_.shape());
  if (!error_.ok() || (found == records_.end() && records_.size() >= kRecordsMax)) return false;
  Record& record = found == records_.end() ? records_[step_.shape()] : found->second;
  if (record.graph >= 0) {
    context_->LaunchGraph(record.graph);
    ++graphs_.replays;
    Count(record);
    return true;
  }
  if (record.was_seen) {
    captured_ = &record;
    free_bytes_ = context_->FreeBytes();
    capture_began_ms_ = NowMs();
    context_->BeginCapture();
  }
  record.was_seen = true;
  return false;
}

void CudaOps::EndStep() {
  Count(counted_);
  EndCapture(true);
}

void CudaOps::EndCapture(bool is_whole) {
  if (captured_ == nullptr) return;
  const int graph = context_->EndCapture();
  if (is_whole) {
    *captured_ = counted_;
    captured_->graph = graph;
    ++graphs_.captures;
    graphs_.capture_ms += NowMs() - capture_began_ms_;
    context_->LaunchGraph(graph);
    // What others take meanwhile would count as well.
    graphs_.bytes += std::max<int64_t>(0, free_bytes_ - context_->FreeBytes());
  }
  captured_ = nullptr;
}

Status CudaOps::Synchronize() {
  EndCapture(false);  // the step was given up
  Note(context_->Synchronize());
  if (error_.ok()) sampler_.Finish();
  return error_;
}

int CudaOps::Blocks(int64_t items, int blocks_of_sm) const {
  const int64_t most = int64_t{context_->multiprocessors()} * blocks_of_sm;
  return static_cast<int>(std::clamp<int64_t>(items, 1, most));
}

const float* CudaOps::OnDevice(std::span<const float> constants) {
  if (constants.empty()) return nullptr;
  void*& memory = constants_[constants.data()];
  if (memory == nullptr) {
    Note(context_->Allocate("constants", constants.size_bytes(), &memory));
    if (memory != nullptr) Note(context_->Upload(memory, constants.data(), constants.size_bytes()));
  }
  return static_cast<const float*>(memory);
}

// An adapter's tiles once for each segment; of an embedding's A a column for each entry.
void CudaOps::Count(const Record& record) {
  counters_.weight_bytes_read +=
      record.weight_bytes + record.weight_bytes_of_row * static_cast<uint64_t>(batch_->rows.rows);
  for (const Record::Site& site : record.sites) {
    const EntriesView& entries = site.is_of_logits ? batch_->logit_entries : batch_->entries;
    for (int32_t s = 0; s < entries.segments; ++s) {
      const SitePages& pages = batch_->pages.slots[entries.segment_slot[s]].sites[site.site];
      ++counters_.page_table_reads;
      if (pages.rank == 0) continue;
      ++counters_.lora_ops;
      const int64_t count = entries.segment_start[s + 1] - entries.segment_start[s];
      const int64_t a_bytes = site.in > 1 ? TileBytes(dtype_, pages.rank, site.in) : count * pages.rank * 2;
      counters_.lora_bytes_read += static_cast<uint64_t>(a_bytes + TileBytes(dtype_, pages.rank, site.out));
    }
  }
}

}  // namespace openlora
