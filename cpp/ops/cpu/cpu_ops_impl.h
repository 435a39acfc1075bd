#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/pages.h"
#include "base/thread_pool.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/lora_plan.h"
#include "ops/ops.h"

namespace openlora {

// A buffer that only grows; what it held is lost when it does. For temporaries of one op.
class Workspace {
 public:
  template <typename T>
  T* Get(size_t count) {
    return static_cast<T*>(Grow(count * sizeof(T)));
  }

 private:
  void* Grow(size_t bytes);
  PageBuffer pages_;
};

// Ops by SIMD kernels. Methods are spread over the files of this folder: project.cc, embed.cc, pack.cc, attention.cc,
// sample.cc, cpu_ops.cc (the rest).
class CpuOps final : public Ops {
 public:
  CpuOps(const KernelTable& kernels, int threads);
  const char* name() const override { return name_.c_str(); }
  int threads() const { return pool_.size(); }

  const char* packed_layout() const override;
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
  // body(begin, end) over pieces of [0, count), on the pool if `work` (elements touched, about 1 ns each) pays for
  // waking it, else on the caller alone.
  template <typename Body>
  void Parallel(int64_t count, int64_t work, const Body& body) {
    if (pool_.size() == 1 || count < 2 || work < kParallelWork) return body(int64_t{0}, count);
    pool_.Run([&](int member, int members) {
      const Piece piece = Split(count, 1, member, members);
      if (piece.begin < piece.end) body(piece.begin, piece.end);
    });
  }
  // body(row, column, count) over pieces of the rows of `x`, of which a core does about `per_ns` elements a nanosecond.
  template <typename Body>
  void ParallelElements(const TensorView& x, int64_t per_ns, const Body& body) {
    constexpr int64_t kPiece = 1024;  // columns
    const int64_t pieces = (x.cols + kPiece - 1) / kPiece;
    Parallel(x.rows * pieces, x.rows * x.cols / per_ns, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t column = i % pieces * kPiece;
        body(i / pieces, column, std::min(kPiece, x.cols - column));
      }
    });
  }
  static constexpr int64_t kParallelWork = 8192;
  static constexpr int64_t kParallelProducts = 1 << 18;  // multiply-adds of a Project that pay for waking the pool
  void ShrinkShare(const ProjectArgs& args, int member, int members, float* partial);
  struct QuantisedX {
    uint8_t* of[kOwnXFormats] = {};  // null: no product wants it
    bool is_used() const { return of[0] != nullptr || of[1] != nullptr || of[2] != nullptr; }
  };
  // Of a format that has its own x.
  const QuantisedFormat& KernelsOf(WeightFormat format) const {
    if (!format.is_quantised()) return kernels_.bf16_dot;
    return kernels_.quantised.formats[format.kind - WeightFormat::kInt8];
  }
  QuantisedX RoomForX(const ProjectArgs& args);
  bool IsGatedAsQuantised(const ProjectArgs& args) const;
  void QuantiseGroups(const ProjectArgs& args, WeightFormat format, int64_t row, Piece groups, uint8_t* to) const;
  void QuantiseShare(const ProjectArgs& args, int member, int members, const QuantisedX& x);
  void Multiply(const ProjectArgs& args);
  void BasePanels(const ProjectArgs& args, Piece panels, const QuantisedX& x, float* scratch);
  void SumChunks(const ProjectArgs& args, const float* partial, float* coefficients);
  void ExpandPanels(const ProjectArgs& args, int member, Piece panels, const float* coefficients);

  const KernelTable kernels_;
  const std::string name_;
  ThreadPool pool_;
  TeamBarrier shrunk_;
  TeamBarrier quantised_;
  WorkShares panels_;                      // Project
  std::vector<std::vector<Piece>> taken_;  // Project: by member
  LoraPlan plan_;
  std::vector<TileOrder> tile_order_;    // by member
  Workspace panel_scratch_;              // Project: [threads][PanelScratchFloats(T)]
  Workspace x_quantised_[kOwnXFormats];  // Project
  Workspace partial_;                    // Project: the chunks' sums of h
  Workspace coefficients_;               // Project, Embed: h times weight
  Workspace attention_scratch_;
  Workspace sample_scratch_;
};

}  // namespace openlora
