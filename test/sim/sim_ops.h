#pragma once

#include <vector>

#include "ops/device.h"
#include "ops/ops.h"

namespace openlora::sim {

class SimDevice final : public Device {
 public:
  bool is_host() const override { return true; }
  Status Allocate(size_t bytes, void** data) override;
  void Free(void* data, size_t bytes) override;
  Status Upload(void* destination, const void* source, size_t bytes) override;
};

// What stands in the pool for one position of one layer's KV; positions are kSlotBytes apart, so a tile written
// over them spoils them.
inline constexpr int64_t kSlotBytes = 256;
struct KvSlot {
  uint64_t digest;
  int32_t position;
  int32_t layer;
};

// Ops that compute digests (digest.h) in place of numbers. A row's digest stands in the first eight bytes of its row.
// What is found wrong in the pool ends the run: "memory".
class SimOps final : public Ops {
 public:
  uint64_t rows_computed() const { return rows_computed_; }

  const char* name() const override { return "sim"; }
  const char* packed_layout() const override { return "sim"; }
  int64_t PackedBytes(WeightFormat format, int64_t out, int64_t in) const override;
  void Pack(const SourceView& source, WeightFormat format, int64_t out, int64_t out_begin, void* packed) override;
  void PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override;
  void PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override;
  void Embed(const EmbedArgs& args) override;
  void RmsNorm(const TensorView& x, const float* gain, int64_t dim, float eps, const TensorView& out) override;
  void Project(const ProjectArgs& args) override;
  void RopeTable(const RowsView& rows, const RopeFrequencies& rope, const TensorView& cos_sin) override;
  void Rope(const TensorView& x, int32_t heads, int32_t head_dim, const TensorView& cos_sin) override;
  void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv,
                int32_t layer) override;
  int64_t KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) const override;
  void Attention(const AttentionArgs& args) override;
  void GatedActivation(Activation activation, const TensorView& gate, const TensorView& up) override;
  void AddScaled(const TensorView& x, float scale, const TensorView& out) override;
  void SoftCap(const TensorView& x, float cap) override;
  void GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) override;
  void Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) override;
  Status Synchronize() override { return Ok(); }

 private:
  // Mixes the adapters' deltas into y, a digest for each row.
  void Adapt(const EntriesView& entries, const AdapterPages& pages, int32_t site, SiteShape shape);
  uint64_t DeltaOf(const AdapterPages& pages, int32_t slot, int32_t site, SiteShape shape);
  uint64_t Attended(const KvView& kv, int32_t sequence, int32_t position, int32_t layer);

  std::vector<uint64_t> y_;
  uint64_t rows_computed_ = 0;
};

}  // namespace openlora::sim
