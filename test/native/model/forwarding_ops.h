#pragma once

#include <memory>
#include <utility>

#include "ops/ops.h"

namespace openlora {

// Ops that hand everything on; tests change a few of them.
class ForwardingOps : public Ops {
 public:
  explicit ForwardingOps(std::unique_ptr<Ops> to) : to_(std::move(to)) {}

  const char* name() const override { return to_->name(); }
  const char* packed_layout() const override { return to_->packed_layout(); }
  int64_t PackedBytes(WeightFormat format, int64_t out, int64_t in) const override {
    return to_->PackedBytes(format, out, in);
  }
  void Pack(const SourceView& source, WeightFormat format, int64_t out, int64_t out_begin, void* packed) override {
    to_->Pack(source, format, out, out_begin, packed);
  }
  void PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override {
    to_->PackTileA(values, stride, ranks, columns, dtype, tile);
  }
  void PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override {
    to_->PackTileB(values, stride, ranks, columns, dtype, tile);
  }
  void Embed(const EmbedArgs& args) override { to_->Embed(args); }
  void RmsNorm(const TensorView& x, const float* gain, int64_t dim, float eps, const TensorView& out) override {
    to_->RmsNorm(x, gain, dim, eps, out);
  }
  void Project(const ProjectArgs& args) override { to_->Project(args); }
  void RopeTable(const RowsView& rows, const RopeFrequencies& rope, const TensorView& cos_sin) override {
    to_->RopeTable(rows, rope, cos_sin);
  }
  void Rope(const TensorView& x, int32_t heads, int32_t head_dim, const TensorView& cos_sin) override {
    to_->Rope(x, heads, head_dim, cos_sin);
  }
  void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv,
                int32_t layer) override {
    to_->KvAppend(k, v, rows, kv, layer);
  }
  int64_t KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) const override {
    return to_->KvBytes(dtype, kv_heads, head_dim, tokens);
  }
  void Attention(const AttentionArgs& args) override { to_->Attention(args); }
  void GatedActivation(Activation activation, const TensorView& gate, const TensorView& up) override {
    to_->GatedActivation(activation, gate, up);
  }
  void AddScaled(const TensorView& x, float scale, const TensorView& out) override { to_->AddScaled(x, scale, out); }
  void SoftCap(const TensorView& x, float cap) override { to_->SoftCap(x, cap); }
  void GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) override {
    to_->GatherRows(x, rows, out);
  }
  void Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) override {
    to_->Sample(logits, rows, results);
  }
  Status Synchronize() override { return to_->Synchronize(); }

 private:
  std::unique_ptr<Ops> to_;
};

}  // namespace openlora
