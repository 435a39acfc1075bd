#include "bench/op_bench.h"

#include <algorithm>
#include <utility>

#include "kernels/probe.h"

namespace openlora {
namespace {

constexpr int kRounds = 9;
constexpr int kRoundsQuick = 2;
constexpr int kWarpsOfBlock = 8;
constexpr int kBlocksOfSm = 4;

// What the device gives: copies within its memory, and mma on registers.
class DeviceLimits {
 public:
  DeviceLimits(std::shared_ptr<CudaContext> context, bool is_quick)
      : context_(std::move(context)),
        bytes_(is_quick ? size_t{1} << 16 : size_t{1} << 30),
        turns_(is_quick ? 2 : 4096),
        blocks_(context_->multiprocessors() * kBlocksOfSm) {}
  ~DeviceLimits() {
    (void)context_->Synchronize();
    for (void* const memory : {from_, to_, sums_})
      if (memory != nullptr) context_->Free(memory);
  }
  DeviceLimits(const DeviceLimits&) = delete;
  DeviceLimits& operator=(const DeviceLimits&) = delete;

  Status Open() {
    const size_t threads = static_cast<size_t>(blocks_) * kWarpsOfBlock * 32;
    OPENLORA_RETURN_IF_ERROR(context_->Allocate("what is copied", bytes_, &from_));
    OPENLORA_RETURN_IF_ERROR(context_->Fill(from_, 1, bytes_));
    OPENLORA_RETURN_IF_ERROR(context_->Allocate("its copy", bytes_, &to_));
    return context_->Allocate("sums of mma", threads * sizeof(float), &sums_);
  }
  // GB/s, read and written.
  double CopyGbs() {
    context_->Mark(0);
    context_->Copy(to_, from_, bytes_);
    context_->Mark(1);
    return 2e-6 * static_cast<double>(bytes_) / context_->MillisecondsBetweenMarks();
  }
  // A millisecond of work, which isn't waited for: what is put there meanwhile goes on at once when its time comes.
  void Occupy() {
    context_->Launch(probe::MmaRate, {blocks_, kWarpsOfBlock * 32}, {static_cast<float*>(sums_), turns_, 1});
  }
  // GFLOP/s of mma.m16n8k16 in bf16.
  double MmaGops() {
    context_->Mark(0);
    Occupy();
    context_->Mark(1);
    const double flops = 2.0 * 16 * 8 * 16 * probe::kMmaChains * turns_ * kWarpsOfBlock * blocks_;
    return 1e-6 * flops / context_->MillisecondsBetweenMarks();
  }

 private:
  std::shared_ptr<CudaContext> context_;
  size_t bytes_;
  int turns_, blocks_;
  void* from_ = nullptr;
  void* to_ = nullptr;
  void* sums_ = nullptr;
};

Status BenchOne(const CudaOpCase& c, std::shared_ptr<CudaContext> context, const CudaBenchOptions& options,
                DeviceLimits& limits, CudaOpResult* result) {
  const CudaOpSizes sizes = options.is_quick ? CudaOpSizes{1, 1, 1} : CudaOpSizes{};
  std::unique_ptr<CudaOpLoad> load;
  OPENLORA_RETURN_IF_ERROR(CudaOpLoad::Open(c, sizes, context, &load));
  result->bytes = static_cast<double>(load->bytes());
  result->operations = load->operations();
  OPENLORA_RETURN_IF_ERROR(load->Check(&result->error, &result->error_max));
  for (int run = 0; run < 2; ++run) {  // the first makes the graph
    OPENLORA_RETURN_IF_ERROR(load->Run());
    OPENLORA_RETURN_IF_ERROR(context->Synchronize());
  }
  std::vector<double> copies, peaks;
  for (int round = 0; round < (options.is_quick ? kRoundsQuick : kRounds) && !options.IsCancelled(); ++round) {
    copies.push_back(limits.CopyGbs());
    peaks.push_back(limits.MmaGops());
    limits.Occupy();
    context->Mark(0);
    OPENLORA_RETURN_IF_ERROR(load->Run());
    context->Mark(1);
    result->us.push_back(1e3 * context->MillisecondsBetweenMarks() / load->launches());
    OPENLORA_RETURN_IF_ERROR(context->status());
  }
  if (result->us.empty()) return Ok();
  result->copy_gbs = MedianOf(copies);
  result->peak_gops = MedianOf(peaks);
  return Ok();
}

}  // namespace

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Status BenchCudaOps(std::shared_ptr<CudaContext> context, const CudaBenchOptions& options,
                    const std::function<void(const CudaOpResult&)>& report) {
  DeviceLimits limits(context, options.is_quick);
  OPENLORA_RETURN_IF_ERROR(limits.Open());
  for (const CudaOpCase& c : options.is_quick ? QuickCudaOpCases() : CudaOpCases()) {
    CudaOpResult result;
    result.op = c.kind == CudaOpKind::kBase ? "base" : c.kind == CudaOpKind::kAdapters ? "adapters" : "attention";
    result.what = Describe(c);
    if ((result.op + " " + result.what).find(options.filter) == std::string::npos) continue;
    if (options.IsCancelled()) return Ok();
    OPENLORA_RETURN_IF_ERROR(BenchOne(c, context, options, limits, &result));
    if (!result.us.empty()) report(result);
  }
  return Ok();
}

}  // namespace openlora
