#include "bench/op_load.h"

#include <algorithm>
#include <numeric>

#include "bench/attention_load.h"
#include "bench/project_load.h"

namespace openlora {

Status CudaOpLoad::Open(const CudaOpCase& shape, const CudaOpSizes& sizes, std::shared_ptr<CudaContext> context,
                        std::unique_ptr<CudaOpLoad>* opened) {
  std::unique_ptr<CudaOpLoad> load;
  if (shape.kind == CudaOpKind::kAttention) {
    load = std::make_unique<AttentionLoad>(shape, std::move(context));
  } else {
    load = std::make_unique<ProjectLoad>(shape, std::move(context));
  }
  OPENLORA_RETURN_IF_ERROR(load->Prepare(sizes));
  *opened = std::move(load);
  return Ok();
}

CudaOpLoad::~CudaOpLoad() {
  (void)context_->Synchronize();
  for (void* const memory : memory_) context_->Free(memory);
}

Status CudaOpLoad::Prepare(const CudaOpSizes& sizes) {
  const StepLimits limits = Measure();
  const auto times = [&](int64_t bytes) { return (bytes + bytes_ - 1) / bytes_; };
  copies_ = static_cast<int32_t>(times(sizes.cold_bytes) + 1);
  const int64_t enough = std::min<int64_t>(times(sizes.run_bytes), sizes.launches_max);
  launches_ = static_cast<int32_t>(std::max<int64_t>(copies_, enough));
  MakeBatch();
  OPENLORA_RETURN_IF_ERROR(MakeData(copies_));
  StepLimits of_copies = limits;
  of_copies.sites *= copies_;
  return ops_.Reserve(of_copies);
}

// Sequences and entries; what stands in frames is the case's own.
void CudaOpLoad::MakeBatch() {
  const auto rows = static_cast<size_t>(shape_.rows);
  tokens_.assign(rows, 0);
  positions_.assign(rows, shape_.context);
  sequences_.assign(rows, 0);
  if (shape_.is_prefill) {
    std::iota(positions_.begin(), positions_.end(), shape_.context);
  } else {
    std::iota(sequences_.begin(), sequences_.end(), 0);
  }
  batch_.rows = {shape_.rows, tokens_.data(), positions_.data(), sequences_.data(), nullptr};
  // Of a product; attention has its own.
  table_.assign(rows, 0);
  table_begin_.resize(rows);
  std::iota(table_begin_.begin(), table_begin_.end(), int64_t{0});
  batch_.kv.frame_tokens = 16;
  batch_.kv.layers = 1;
  batch_.kv.table = table_.data();
  batch_.kv.table_begin = table_begin_.data();
  batch_.entries = entries_.view();
}

Status CudaOpLoad::Allocate(int64_t bytes, void** memory) {
  OPENLORA_RETURN_IF_ERROR(context_->Allocate("a bench", static_cast<size_t>(bytes), memory));
  memory_.push_back(*memory);
  return context_->Fill(*memory, 0, static_cast<size_t>(bytes));
}

Status CudaOpLoad::Download(const void* from, std::span<uint8_t> to) {
  context_->Copy(to.data(), from, to.size());
  return context_->Synchronize();
}

void CudaOpLoad::CopyFirst(void* memory, int64_t bytes, int32_t copies) {
  auto* const first = static_cast<uint8_t*>(memory);
  for (int32_t copy = 1; copy < copies; ++copy) context_->Copy(first + copy * bytes, first, static_cast<size_t>(bytes));
}

// The first step of a shape is launched as it is.
Status CudaOpLoad::Check(double* error, double* error_max) {
  if (ops_.BeginStep(batch_)) return Status(kErrInternal, "a bench's first step has been recorded");
  Launch(copies_ - 1);
  ops_.EndStep();
  OPENLORA_RETURN_IF_ERROR(ops_.Synchronize());
  return Compare(error, error_max);
}

Status CudaOpLoad::Run() {
  if (ops_.BeginStep(batch_)) return Ok();
  for (int32_t i = 0; i < launches_; ++i) Launch(i % copies_);
  ops_.EndStep();
  return Ok();
}

}  // namespace openlora
