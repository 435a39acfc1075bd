#include "model/model_config.h"

#include <array>
#include <cmath>

namespace openlora {
namespace {

Status CheckSize(const char* name, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return Ok();
  return Error(kErrModelConfig, "%s is %lld, supported are 1 to %lld", name, static_cast<long long>(value),
               static_cast<long long>(most));
}

Status CheckRopes(const ModelConfig& config) {
  if (config.ropes.size() > kRopesMax)
    return Error(kErrModelConfig, "the model has %zu rotary tables, supported are %zu", config.ropes.size(), kRopesMax);
  if (config.rotary_dim() > config.head_dim)
    return Error(kErrModelConfig, "the rotary dimension %d exceeds head_dim %d", config.rotary_dim(), config.head_dim);
  for (const RopeOptions& rope : config.ropes) {
    const size_t long_size = config.rope_switch > 0 ? rope.inv_freq.size() : 0;
    if (rope.inv_freq.empty() || rope.inv_freq.size() != config.ropes[0].inv_freq.size() ||
        rope.long_inv_freq.size() != long_size || !std::isfinite(rope.factor))
      return Status(kErrModelConfig,
                    "a rotary table is empty, of another size than the others, or its factor isn't finite");
  }
  return Ok();
}

Status CheckLayers(const ModelConfig& config) {
  if (config.layer_options.size() != static_cast<size_t>(config.layers))
    return Error(kErrModelConfig, "%zu layers have options, the model has %d", config.layer_options.size(),
                 config.layers);
  for (const LayerOptions& layer : config.layer_options) {
    if (layer.window < 0 || layer.rope < -1 || layer.rope >= static_cast<int32_t>(config.ropes.size()))
      return Error(kErrModelConfig, "a layer has window %d and rotary table %d of %zu", layer.window, layer.rope,
                   config.ropes.size());
  }
  return Ok();
}

}  // namespace

Status CheckConfig(const ModelConfig& config) {
  OPENLORA_RETURN_IF_ERROR(CheckSize("layers", config.layers, 1024));
  OPENLORA_RETURN_IF_ERROR(CheckSize("hidden", config.hidden, 1 << 17));
  OPENLORA_RETURN_IF_ERROR(CheckSize("heads", config.heads, 1024));
  OPENLORA_RETURN_IF_ERROR(CheckSize("kv_heads", config.kv_heads, config.heads));
  OPENLORA_RETURN_IF_ERROR(CheckSize("head_dim", config.head_dim, 1024));
  OPENLORA_RETURN_IF_ERROR(CheckSize("intermediate", config.intermediate, 1 << 19));
  OPENLORA_RETURN_IF_ERROR(CheckSize("vocab", config.vocab, 1 << 20));
  OPENLORA_RETURN_IF_ERROR(CheckSize("context", config.context, 1 << 24));
  if (config.heads % config.kv_heads != 0)
    return Error(kErrModelConfig, "%d heads can't share %d KV heads evenly", config.heads, config.kv_heads);
  for (const float value : {config.norm_eps, config.attention_scale, config.embedding_scale, config.residual_scale,
                            config.logit_scale, config.norm_offset}) {
    if (!std::isfinite(value)) return Status(kErrModelConfig, "a scale of the model isn't finite");
  }
  for (const float cap : {config.attention_soft_cap, config.logit_soft_cap}) {
    if (!(cap >= 0 && std::isfinite(cap)))
      return Status(kErrModelConfig, "a soft cap is neither 0 nor a number over 0");
  }
  OPENLORA_RETURN_IF_ERROR(CheckRopes(config));
  return CheckLayers(config);
}

std::vector<SiteShape> SiteShapes(const ModelConfig& config) {
  std::vector<SiteShape> shapes;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    std::array<SiteShape, kLayerSites> sites = {};
    if (config.is_fused) {
      sites[kQkv] = {config.hidden, config.q_dim() + 2 * config.kv_dim()};
      sites[kGateUp] = {config.hidden, 2 * config.intermediate};
    } else {
      sites[kQ] = {config.hidden, config.q_dim()};
      sites[kK] = sites[kV] = {config.hidden, config.kv_dim()};
      sites[kGate] = sites[kUp] = {config.hidden, config.intermediate};
    }
    sites[kO] = {config.q_dim(), config.hidden};
    sites[kDown] = {config.intermediate, config.hidden};
    shapes.insert(shapes.end(), sites.begin(), sites.end());
  }
  shapes.push_back({config.hidden, config.vocab});  // lm_head
  shapes.push_back({config.vocab, config.hidden});  // embed_tokens
  return shapes;
}

}  // namespace openlora
