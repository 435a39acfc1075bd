#include "model/model_config.h"

#include <cmath>

namespace openlora {
namespace {

Status CheckSize(const char* name, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return Ok();
  return Error(kErrModelConfig, "%s is %lld, supported are 1 to %lld", name, static_cast<long long>(value),
               static_cast<long long>(most));
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
  const int64_t rotary = 2 * static_cast<int64_t>(config.rope_inv_freq.size());
  if (rotary > config.head_dim)
    return Error(kErrModelConfig, "the rotary dimension %lld exceeds head_dim %d", static_cast<long long>(rotary),
                 config.head_dim);
  for (const float value : {config.norm_eps, config.attention_scale, config.embedding_scale, config.rope_factor}) {
    if (!std::isfinite(value)) return Status(kErrModelConfig, "a scale of the model isn't finite");
  }
  return Ok();
}

std::vector<SiteShape> SiteShapes(const ModelConfig& config) {
  std::vector<SiteShape> shapes;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    shapes.push_back({config.hidden, config.q_dim()});
    shapes.push_back({config.hidden, config.kv_dim()});
    shapes.push_back({config.hidden, config.kv_dim()});
    shapes.push_back({config.q_dim(), config.hidden});
    shapes.push_back({config.hidden, config.intermediate});
    shapes.push_back({config.hidden, config.intermediate});
    shapes.push_back({config.intermediate, config.hidden});
  }
  shapes.push_back({config.hidden, config.vocab});  // lm_head
  shapes.push_back({config.vocab, config.hidden});  // embed_tokens
  return shapes;
}

}  // namespace openlora
