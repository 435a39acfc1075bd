#include "model/model_weights.h"

#include <algorithm>

#include "base/sha256.h"

namespace openlora {
namespace {

constexpr int64_t kAlignment = 4096;
// Source bytes packed between two looks at `is_cancelled` and two progress reports.
constexpr int64_t kSliceBytes = 16 << 20;

int64_t AlignUp(int64_t value) { return (value + kAlignment - 1) / kAlignment * kAlignment; }

bool IsMatrix(WeightRole role) {
  return role == WeightRole::kEmbed || role == WeightRole::kHead ||
         (role >= WeightRole::kSite0 && role < WeightRole::kBias0);
}

bool IsOfLayer(WeightRole role) { return role >= WeightRole::kAttnNorm; }

using RoleShapes = std::array<SiteShape, static_cast<size_t>(WeightRole::kEnd)>;

// Of the tensor of each role, vectors with out = 1; in = 0: a model of this config has no such tensor. Biases: any may
// be there.
RoleShapes ShapesOf(const ModelConfig& config) {
  RoleShapes shapes{};
  const auto put = [&](WeightRole role, bool is_there, SiteShape shape) {
    if (is_there) shapes[static_cast<size_t>(role)] = shape;
  };
  put(WeightRole::kEmbed, true, {config.hidden, config.vocab});
  put(WeightRole::kHead, !config.is_tied, {config.hidden, config.vocab});
  put(WeightRole::kFinalNorm, true, {config.hidden, 1});
  for (const WeightRole role : {WeightRole::kAttnNorm, WeightRole::kMlpNorm})
    put(role, config.has_pre_norms, {config.hidden, 1});
  for (const WeightRole role : {WeightRole::kAttnPostNorm, WeightRole::kMlpPostNorm})
    put(role, config.has_post_norms, {config.hidden, 1});
  const bool is_over_heads = config.qk_norm == QkNorm::kAll;
  const bool has_qk_norm = config.qk_norm != QkNorm::kNone;
  put(WeightRole::kQNorm, has_qk_norm, {is_over_heads ? config.q_dim() : config.head_dim, 1});
  put(WeightRole::kKNorm, has_qk_norm, {is_over_heads ? config.kv_dim() : config.head_dim, 1});
  const std::vector<SiteShape> sites = SiteShapes(config);
  for (size_t site = 0; site < kLayerSites; ++site) {
    shapes[static_cast<size_t>(WeightRole::kSite0) + site] = sites[site];
    shapes[static_cast<size_t>(WeightRole::kBias0) + site] = {sites[site].out, 1};
  }
  return shapes;
}

}  // namespace

Status ModelWeights::Open(const ModelConfig& config, const std::vector<std::string>& files,
                          const std::vector<BaseTensor>& tensors, WeightFormat format, const Ops& ops) {
  OPENLORA_RETURN_IF_ERROR(CheckConfig(config));
  config_ = config;
  format_ = format;
  files_.resize(files.size());
  for (size_t i = 0; i < files.size(); ++i) OPENLORA_RETURN_IF_ERROR(MappedFile::Open(files[i], &files_[i]));
  layers_.resize(static_cast<size_t>(config.layers));
  OPENLORA_RETURN_IF_ERROR(MakeItems(tensors, ops));
  MakeDigest();
  return Ok();
}

Status ModelWeights::MakeItems(const std::vector<BaseTensor>& tensors, const Ops& ops) {
  const RoleShapes shapes = ShapesOf(config_);
  for (const BaseTensor& tensor : tensors) {
    const TensorRange& range = tensor.range;
    if (range.file < 0 || range.file >= static_cast<int32_t>(files_.size()))
      return Error(kErrTensorRange, "a tensor names file %d of %zu", range.file, files_.size());
    const MappedFile& file = files_[static_cast<size_t>(range.file)];
    OPENLORA_RETURN_IF_ERROR(CheckRange(range, file.size(), file.path()));
    if (tensor.role < WeightRole::kEmbed || tensor.role >= WeightRole::kEnd ||
        IsOfLayer(tensor.role) != (tensor.layer >= 0) || tensor.layer >= config_.layers)
      return Error(kErrModelTensor, "role %d in layer %d doesn't exist", static_cast<int>(tensor.role), tensor.layer);
    const SiteShape shape = shapes[static_cast<size_t>(tensor.role)];
    if (shape.in == 0)
      return Error(kErrModelTensor, "role %d in layer %d isn't part of this model", static_cast<int>(tensor.role),
                   tensor.layer);
    const bool is_matrix = IsMatrix(tensor.role);
    const bool fits =
        is_matrix ? range.rows == shape.out && range.cols == shape.in : range.rows * range.cols == shape.in;
    if (!fits)
      return Error(kErrModelTensor, "role %d in layer %d is [%lld, %lld], the config needs [%lld, %lld]",
                   static_cast<int>(tensor.role), tensor.layer, static_cast<long long>(range.rows),
                   static_cast<long long>(range.cols), static_cast<long long>(shape.out),
                   static_cast<long long>(shape.in));
    items_.push_back({&file, tensor, shape, bytes_});
    bytes_ += AlignUp(is_matrix ? ops.PackedBytes(FormatOf(tensor.role), shape.out, shape.in) : shape.in * 4);
  }
  return Ok();
}

Status ModelWeights::OpenShape(const ModelConfig& config, WeightFormat format, const Ops& ops) {
  OPENLORA_RETURN_IF_ERROR(CheckConfig(config));
  config_ = config;
  format_ = format;
  layers_.resize(static_cast<size_t>(config.layers));
  const RoleShapes shapes = ShapesOf(config_);
  for (int32_t layer = -1; layer < config.layers; ++layer) {
    for (int32_t role = 0; role < static_cast<int32_t>(WeightRole::kBias0); ++role) {
      const auto which = static_cast<WeightRole>(role);
      const SiteShape shape = shapes[static_cast<size_t>(role)];
      if (shape.in == 0 || IsOfLayer(which) != (layer >= 0)) continue;
      items_.push_back({nullptr, {which, layer, {}}, shape, bytes_});
      bytes_ += AlignUp(IsMatrix(which) ? ops.PackedBytes(FormatOf(which), shape.out, shape.in) : shape.in * 4);
    }
  }
  return Ok();
}

WeightFormat ModelWeights::FormatOf(WeightRole role) const {
  const bool is_of_tokens = role == WeightRole::kEmbed || role == WeightRole::kHead;
  return format_ == WeightFormat::kInt4 && is_of_tokens ? WeightFormat(WeightFormat::kInt8) : format_;
}

int64_t ModelWeights::file_bytes() const {
  int64_t bytes = 0;
  for (const Item& item : items_) bytes += item.tensor.range.bytes;
  return bytes;
}

Weight* ModelWeights::WeightOf(WeightRole role, int32_t layer) {
  if (role == WeightRole::kEmbed) return &embed_;
  if (role == WeightRole::kHead) return &head_;
  const auto first = role < WeightRole::kBias0 ? WeightRole::kSite0 : WeightRole::kBias0;
  return &layers_[static_cast<size_t>(layer)].sites[static_cast<size_t>(role) - static_cast<size_t>(first)];
}

const float** ModelWeights::VectorOf(WeightRole role, int32_t layer) {
  if (role == WeightRole::kFinalNorm) return &final_norm_;
  LayerWeights& of_layer = layers_[static_cast<size_t>(layer)];
  switch (role) {
    case WeightRole::kAttnNorm:
      return &of_layer.attn_norm;
    case WeightRole::kMlpNorm:
      return &of_layer.mlp_norm;
    case WeightRole::kAttnPostNorm:
      return &of_layer.attn_post_norm;
    case WeightRole::kMlpPostNorm:
      return &of_layer.mlp_post_norm;
    case WeightRole::kQNorm:
      return &of_layer.q_norm;
    case WeightRole::kKNorm:
      return &of_layer.k_norm;
    default:
      return &WeightOf(role, layer)->bias;
  }
}

Status ModelWeights::Load(void* memory, Ops* ops, const OnLoadProgress& on_progress,
                          const std::atomic<bool>& is_cancelled) {
  LoadProgress progress{0, file_bytes()};
  for (const Item& item : items_) {
    void* target = static_cast<uint8_t*>(memory) + item.offset;
    if (IsMatrix(item.tensor.role)) {
      OPENLORA_RETURN_IF_ERROR(PackMatrix(item, target, ops, &progress, on_progress, is_cancelled));
      continue;
    }
    const TensorRange& range = item.tensor.range;
    const bool is_norm = item.tensor.role < WeightRole::kSite0;
    // The head's product is linear in what the final norm gives it, adapters included.
    const float scale = item.tensor.role == WeightRole::kFinalNorm ? config_.logit_scale : 1;
    ops->PackVector({item.file->data() + range.offset, range.dtype, 1, item.shape.in},
                    is_norm ? config_.norm_offset : 0, scale, static_cast<float*>(target));
    progress.bytes_done += range.bytes;
  }
  on_progress(progress);  // the last tensor may be a vector
  return Attach(memory);
}

Status ModelWeights::PackMatrix(const Item& item, void* target, Ops* ops, LoadProgress* progress,
                                const OnLoadProgress& on_progress, const std::atomic<bool>& is_cancelled) {
  const TensorRange& range = item.tensor.range;
  const uint8_t* source = item.file->data() + range.offset;
  const int64_t row_bytes = range.cols * static_cast<int64_t>(SizeOf(range.dtype));
  const int64_t step = std::max<int64_t>(kSliceBytes / row_bytes / Ops::kPackRows, 1) * Ops::kPackRows;
  const WeightFormat format = FormatOf(item.tensor.role);
  item.file->WillNeed(range.offset, range.bytes);
  for (int64_t row = 0; row < range.rows; row += step) {
    if (is_cancelled) return Status(kErrAborted, "loading was aborted");
    const int64_t rows = std::min(step, range.rows - row);
    ops->Pack({source + row * row_bytes, range.dtype, rows, range.cols}, format, item.shape.out, row, target);
    item.file->DoneWith(range.offset + row * row_bytes, rows * row_bytes);
    progress->bytes_done += rows * row_bytes;
    on_progress(*progress);
  }
  return Ok();
}

Status ModelWeights::Adopt(MappedFile file) {
  cache_ = std::move(file);
  return Attach(cache_.data() + kWeightCacheHeaderBytes);
}

// `memory` holds every item at its offset.
Status ModelWeights::Attach(const void* memory) {
  for (const Item& item : items_) {
    const WeightRole role = item.tensor.role;
    const void* const data = static_cast<const uint8_t*>(memory) + item.offset;
    if (!IsMatrix(role)) {
      *VectorOf(role, item.tensor.layer) = static_cast<const float*>(data);
      continue;
    }
    Weight* weight = WeightOf(role, item.tensor.layer);
    weight->format = FormatOf(role);
    weight->out = item.shape.out;
    weight->in = item.shape.in;
    weight->data = data;
  }
  items_.clear();
  files_.clear();
  if (config_.is_tied) head_ = embed_;
  return CheckComplete();
}

PackedWeights ModelWeights::Packed(const Ops& ops) const {
  PackedWeights packed;
  packed.bytes = bytes_;
  Sha256 hash;
  // What bf16 is multiplied by is no matter of how it is stored.
  const char* const stored = format_.is_quantised() ? NameOf(format_) : NameOf(format_.dtype());
  const std::string names = std::string(ops.packed_layout()) + " " + stored + " " + digest_;
  hash.Update(names.data(), names.size());
  for (const Item& item : items_) {
    const TensorRange& range = item.tensor.range;
    const int64_t place[] = {
        static_cast<int64_t>(item.tensor.role), item.tensor.layer, range.file, range.offset, range.bytes, item.offset};
    hash.Update(place, sizeof(place));
    packed.items.push_back(item.offset);
  }
  // The digest knows the beginnings of tensors alone.
  for (const MappedFile& file : files_) {
    const int64_t identity[] = {file.size(), file.identity().modified_ns};
    hash.Update(identity, sizeof(identity));
  }
  packed.key = hash.Finish();
  return packed;
}

Status ModelWeights::CheckComplete() const {
  bool is_complete = embed_.data != nullptr && head_.data != nullptr && final_norm_ != nullptr;
  const std::vector<SiteShape> shapes = SiteShapes(config_);
  const bool has_qk_norm = config_.qk_norm != QkNorm::kNone;
  for (const LayerWeights& layer : layers_) {
    is_complete &= !config_.has_pre_norms || (layer.attn_norm != nullptr && layer.mlp_norm != nullptr);
    is_complete &= !config_.has_post_norms || (layer.attn_post_norm != nullptr && layer.mlp_post_norm != nullptr);
    is_complete &= !has_qk_norm || (layer.q_norm != nullptr && layer.k_norm != nullptr);
    for (size_t site = 0; site < kLayerSites; ++site)
      is_complete &= layer.sites[site].data != nullptr || shapes[site].in == 0;
  }
  if (is_complete) return Ok();
  return Error(kErrModelTensor, "a tensor of the %d layers, the embedding, the head or the final norm is missing",
               config_.layers);
}

void ModelWeights::MakeDigest() {
  Sha256 hash;
  const int32_t shape[] = {config_.layers,
                           config_.hidden,
                           config_.heads,
                           config_.kv_heads,
                           config_.head_dim,
                           config_.intermediate,
                           config_.vocab,
                           config_.is_tied,
                           config_.is_fused,
                           config_.has_pre_norms,
                           config_.has_post_norms,
                           static_cast<int32_t>(config_.activation),
                           static_cast<int32_t>(config_.qk_norm),
                           config_.rope_switch};
  hash.Update(shape, sizeof(shape));
  const float scales[] = {config_.norm_eps,        config_.attention_scale, config_.attention_soft_cap,
                          config_.embedding_scale, config_.residual_scale,  config_.logit_scale,
                          config_.logit_soft_cap,  config_.norm_offset};
  hash.Update(scales, sizeof(scales));
  for (const RopeOptions& rope : config_.ropes) {
    hash.Update(rope.inv_freq.data(), rope.inv_freq.size() * sizeof(float));
    hash.Update(rope.long_inv_freq.data(), rope.long_inv_freq.size() * sizeof(float));
    hash.Update(&rope.factor, sizeof(float));
  }
  hash.Update(config_.layer_options.data(), config_.layer_options.size() * sizeof(LayerOptions));
  for (const Item& item : items_) {
    const TensorRange& range = item.tensor.range;
    const int64_t table[] = {static_cast<int64_t>(item.tensor.role), item.tensor.layer,
                             static_cast<int64_t>(range.dtype), range.rows, range.cols};
    hash.Update(table, sizeof(table));
    hash.Update(item.file->data() + range.offset, static_cast<size_t>(std::min<int64_t>(range.bytes, 4096)));
  }
  digest_ = ToHex(hash.Finish());
}

}  // namespace openlora
