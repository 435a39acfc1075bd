#pragma once

#include <map>
#include <memory>
#include <vector>

#include "ops/adapter_tables.h"
#include "ops/attention_kernels.h"
#include "ops/attention_plan.h"
#include "ops/context.h"
#include "ops/lora_waves.h"
#include "ops/ops.h"
#include "ops/sampler.h"
#include "ops/staging.h"
#include "ops/step_arrays.h"
#include "ops/uploads.h"

namespace openlora {

// The op table over the kernels of cuda/kernels. What a step's views hold is copied to the device by BeginStep; ops
// launch and return. An error stays, and Synchronize reports it.
class CudaOps final : public Ops {
 public:
  // `dtype`: bf16 or f16, of weights, inputs, KV and adapters alike.
  CudaOps(std::shared_ptr<CudaContext> context, DType dtype);
  ~CudaOps() override;
  CudaOps(const CudaOps&) = delete;
  CudaOps& operator=(const CudaOps&) = delete;

  const char* name() const override { return "cuda"; }
  const char* packed_layout() const override { return "cuda-1"; }
  int64_t PackedBytes(WeightFormat format, int64_t out, int64_t in) const override;
  void Pack(const SourceView& source, WeightFormat format, int64_t out, int64_t out_begin, void* packed) override;
  void PackVector(const SourceView& source, float offset, float scale, float* packed) override;
  void PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override;
  void PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override;

  DType input_dtype() const override { return dtype_; }
  // ERR_CUDA_UNSUPPORTED: the kernels have no such shape or dtype.
  Status Reserve(const StepLimits& limits) override;
  bool BeginStep(const BatchView& batch) override;
  void EndStep() override;
  void Embed(const EmbedArgs& args) override;
  void RmsNorm(const TensorView& x, const float* gain, int64_t dim, float eps, const TensorView& out) override;
  void Project(const ProjectArgs& args) override;
  void RopeTable(const RowsView& rows, const RopeFrequencies& rope, const TensorView& cos_sin) override;
  void Rope(const TensorView& x, int32_t heads, int32_t head_dim, const TensorView& cos_sin) override;
  void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv,
                int32_t layer) override;
  int64_t KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) const override;
  bool needs_zeroed_kv() const override { return false; }
  void Attention(const AttentionArgs& args) override;
  void GatedActivation(Activation activation, const TensorView& gate, const TensorView& up) override;
  void AddScaled(const TensorView& x, float scale, const TensorView& out) override;
  void SoftCap(const TensorView& x, float cap) override;
  void GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) override;
  void Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) override;
  Status Synchronize() override;

  // The two parts of a Project, x in 16 bits: what the base computes, and what adapters add to it.
  void MultiplyWeights(const ProjectArgs& args, const TensorView& x);
  void AddAdapters(const ProjectArgs& args, const TensorView& x);

  // Steps that began while frames of their adapters were on their way.
  uint64_t steps_held_back() const { return steps_held_back_; }

 private:
  // A shape of steps that has come before.
  struct Record {
    int graph = -1;  // none yet
    bool was_seen = false;
    // What the counters count: adapters' sites, and weights beside the embedding's.
    struct Site {
      bool is_of_logits;
      int32_t site;
      int64_t in, out;  // in = 1: the embedding
    };
    std::vector<Site> sites;
    uint64_t weight_bytes = 0;
    uint64_t weight_bytes_of_row = 0;  // of the embedding
  };

  bool is_f16() const { return dtype_ == DType::kF16; }
  // Keeps the first error.
  void Note(const Status& status) {
    if (error_.ok()) error_ = status;
  }
  Status CheckLimits(const StepLimits& limits) const;
  // How many rows an op has, on the device and at most: those of the batch, or, from GatherRows on, its logit rows.
  const int32_t* RowCount() const { return is_head_ ? step_.logit_count() : step_.row_count(); }
  int32_t Rows() const { return is_head_ ? step_.shape().logit_rows : step_.shape().rows; }
  // Of a persistent grid over so many items.
  int Blocks(int64_t items, int blocks_of_sm) const;
  const float* OnDevice(std::span<const float> constants);
  // x of a Project in 16 bits.
  TensorView InputOf(const ProjectArgs& args);
  lora::Params LoraParams(const LoraOnDevice& wave, const AdapterPages& pages) const;
  // Adapters of the batch whose frames are on their way.
  void FindLandings(const BatchView& batch);
  // What is launched from now on finds the tiles of a site there.
  void AwaitTiles(int32_t site);
  void Count(const Record& record);
  void EndCapture(bool is_whole);
  attention::Cache CacheOf(const KvView& kv, int32_t layer) const;

  std::shared_ptr<CudaContext> context_;
  DType dtype_;
  StepLimits limits_;
  Status error_;
  AdapterTables tables_{*context_};
  CudaSampler sampler_{*context_};
  StepArrays step_{*context_, &tables_};
  std::map<const float*, void*> constants_;  // by where they are in host memory
  void* input_ = nullptr;                    // [T, input_stride_] 16 bits
  int64_t input_stride_ = 0;
  void* lora_ = nullptr;      // lora::Params::h
  void* partials_ = nullptr;  // of attention
  AttentionShape attention_shape_;
  std::unique_ptr<AttentionKernels> attention_;
  bool is_head_ = false;
  std::map<StepShape, Record> records_;
  struct Awaited {
    CudaLanding* landing;
    int32_t part = -1;  // the last one that the step has waited for
  };
  std::vector<Awaited> landings_;
  Record counted_;              // of the step whose ops are called
  Record* captured_ = nullptr;  // the record that is being made
  double capture_began_ms_ = 0;
  int64_t free_bytes_ = 0;  // of the device, before it was begun
  uint64_t steps_held_back_ = 0;
  const BatchView* batch_ = nullptr;
  std::vector<uint16_t> packing_;  // host, of Pack
  std::vector<float> values_;      // host, of Pack and PackVector
};

}  // namespace openlora
