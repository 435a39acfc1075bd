#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/load_progress.h"
#include "model/model_config.h"
#include "model/weight_cache.h"
#include "ops/ops.h"
#include "tensor/mapped_file.h"
#include "tensor/tensor_range.h"

namespace openlora {

// What a base tensor is. The linear modules of a layer stand in the order of LayerSite, then their biases.
enum class WeightRole : int32_t {
  kEmbed,
  kHead,
  kFinalNorm,
  kAttnNorm,
  kMlpNorm,
  kAttnPostNorm,
  kMlpPostNorm,
  kQNorm,
  kKNorm,
  kSite0,
  kBias0 = kSite0 + kLayerSites,
  kEnd = kBias0 + kLayerSites
};

struct BaseTensor {
  WeightRole role = WeightRole::kEmbed;
  int32_t layer = -1;
  TensorRange range;
};

struct LayerWeights {
  // Null where the model has none.
  const float* attn_norm = nullptr;       // [H] of what attention reads
  const float* mlp_norm = nullptr;        // [H] of what the MLP reads
  const float* attn_post_norm = nullptr;  // [H] of what attention adds
  const float* mlp_post_norm = nullptr;   // [H] of what the MLP adds
  const float* q_norm = nullptr;          // [head_dim], or [heads * head_dim]
  const float* k_norm = nullptr;          // [head_dim], or [kv_heads * head_dim]
  std::array<Weight, kLayerSites> sites;
};

inline constexpr char kErrModelTensor[] = "ERR_MODEL_TENSOR";

// The base's weights, packed once for the ops that read them. Constant after Load or Adopt.
class ModelWeights {
 public:
  // Maps the files and checks every range and shape; bytes() then says how much memory Load needs.
  Status Open(const ModelConfig& config, const std::vector<std::string>& files, const std::vector<BaseTensor>& tensors,
              WeightFormat format, const Ops& ops);
  // Packs into `memory` of the ops' device, which must outlive this. Reports progress in bytes of the files.
  Status Load(void* memory, Ops* ops, const OnLoadProgress& on_progress, const std::atomic<bool>& is_cancelled);
  // In place of Load: the file that ReadWeightCache gave for Packed(), whose payload is used where it is.
  Status Adopt(MappedFile file);
  // In place of Open and Load, for measurements: weights of such a model in `memory` as it is, bytes() long; biases
  // none.
  Status OpenShape(const ModelConfig& config, WeightFormat format, const Ops& ops);
  Status Assume(const void* memory) { return Attach(memory); }
  // What Load would leave in memory; until loaded.
  PackedWeights Packed(const Ops& ops) const;

  const Weight& embed() const { return embed_; }
  const Weight& head() const { return head_; }
  const float* final_norm() const { return final_norm_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  int64_t bytes() const { return bytes_; }
  // Of the tensors in their files, until loaded.
  int64_t file_bytes() const;
  // SHA-256 over the shape, the tensor table and the first 4 KiB of every tensor: tells checkpoints apart, proves
  // nothing about the rest of their content.
  const std::string& digest() const { return digest_; }

 private:
  // One tensor to pack, and where it goes.
  struct Item {
    const MappedFile* file = nullptr;
    BaseTensor tensor;
    SiteShape shape;
    int64_t offset = 0;  // in the memory that Load is given
  };

  // Of a matrix. Where matrices are int4, embedding and head are int8: their errors go straight into the logits.
  WeightFormat FormatOf(WeightRole role) const;
  Status MakeItems(const std::vector<BaseTensor>& tensors, const Ops& ops);
  Status CheckComplete() const;
  Weight* WeightOf(WeightRole role, int32_t layer);
  const float** VectorOf(WeightRole role, int32_t layer);
  Status PackMatrix(const Item& item, void* target, Ops* ops, LoadProgress* progress, const OnLoadProgress& on_progress,
                    const std::atomic<bool>& is_cancelled);
  Status Attach(const void* memory);
  void MakeDigest();

  ModelConfig config_;
  WeightFormat format_ = DType::kF32;
  int64_t bytes_ = 0;
  std::vector<Item> items_;        // until loaded
  std::vector<MappedFile> files_;  // likewise
  MappedFile cache_;               // empty unless adopted
  std::vector<LayerWeights> layers_;
  Weight embed_;
  Weight head_;
  const float* final_norm_ = nullptr;
  std::string digest_;
};

}  // namespace openlora
