#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "ops/batch_view.h"

namespace openlora {

// A decoder's shape: one decoder with options rather than a class per family. TypeScript fills it from config.json.
struct ModelConfig {
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate = 0;
  int32_t vocab = 0;
  int32_t context = 0;  // positions that the checkpoint is made for
  float norm_eps = 1e-5f;
  float attention_scale = 1;  // of q·k
  float embedding_scale = 1;
  std::vector<float> rope_inv_freq;  // rotary_dim / 2, scaling applied
  float rope_factor = 1;             // on cos and sin
  bool is_tied = false;              // the head reads the embedding's matrix

  int32_t q_dim() const { return heads * head_dim; }
  int32_t kv_dim() const { return kv_heads * head_dim; }
};

inline constexpr char kErrModelConfig[] = "ERR_MODEL_CONFIG";

// Every size within what the engine can index; ERR_MODEL_CONFIG says which isn't.
Status CheckConfig(const ModelConfig& config);

// Linear modules that adapters may act on; src/native/binding.ts numbers them the same way.
enum LayerSite : int32_t { kQ, kK, kV, kO, kGate, kUp, kDown, kLayerSites };
inline int32_t SiteOf(int32_t layer, LayerSite site) { return layer * kLayerSites + site; }
inline int32_t HeadSite(const ModelConfig& config) { return config.layers * kLayerSites; }
inline int32_t EmbedSite(const ModelConfig& config) { return config.layers * kLayerSites + 1; }

// [in, out] of every site, by site number.
std::vector<SiteShape> SiteShapes(const ModelConfig& config);

}  // namespace openlora
