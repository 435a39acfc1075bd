#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "ops/batch_view.h"
#include "ops/ops.h"

namespace openlora {

// What q and k are normalised over before they are rotated.
enum class QkNorm : int32_t { kNone, kHead, kAll };

// How a layer differs from its neighbours.
struct LayerOptions {
  int32_t window = 0;  // positions seen, the row's own included; 0: all
  int32_t rope = 0;    // index into ModelConfig::ropes; -1: no positions
};

// See RopeFrequencies; `long_inv_freq` is empty unless ModelConfig::rope_switch > 0.
struct RopeOptions {
  std::vector<float> inv_freq;
  std::vector<float> long_inv_freq;
  float factor = 1;
};

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
  float attention_scale = 1;     // of q·k
  float attention_soft_cap = 0;  // see AttentionArgs; 0: none
  float embedding_scale = 1;
  float residual_scale = 1;  // of what attention and MLP add to the residual stream
  float logit_scale = 1;
  float logit_soft_cap = 0;  // logits = cap * tanh(logits / cap), after the scale; 0: none
  float norm_offset = 0;     // added to the gain of every norm
  Activation activation = Activation::kSilu;
  QkNorm qk_norm = QkNorm::kNone;
  bool has_pre_norms = true;                // attention and MLP read the normed residual stream
  bool has_post_norms = false;              // what they add to it is normed
  bool is_fused = false;                    // q, k, v are one module, and so are gate and up
  bool is_tied = false;                     // the head reads the embedding's matrix
  std::vector<RopeOptions> ropes;           // at most kRopesMax, of one rotary_dim
  int32_t rope_switch = 0;                  // sequences of more tokens use long_inv_freq; 0: none does
  std::vector<LayerOptions> layer_options;  // [layers]

  int32_t q_dim() const { return heads * head_dim; }
  int32_t kv_dim() const { return kv_heads * head_dim; }
  int32_t rotary_dim() const { return ropes.empty() ? 0 : 2 * static_cast<int32_t>(ropes[0].inv_freq.size()); }
};

inline constexpr size_t kRopesMax = 2;

inline constexpr char kErrModelConfig[] = "ERR_MODEL_CONFIG";

// Every size within what the engine can index; ERR_MODEL_CONFIG says which isn't.
Status CheckConfig(const ModelConfig& config);

// Linear modules that adapters may act on; src/native/binding.ts numbers them the same way. A model has kQkv and
// kGateUp in place of the five that they fuse, or those five; [0, 0] is the shape of a site that it lacks.
enum LayerSite : int32_t { kQ, kK, kV, kO, kGate, kUp, kDown, kQkv, kGateUp, kLayerSites };
inline int32_t SiteOf(int32_t layer, LayerSite site) { return layer * kLayerSites + site; }
inline int32_t HeadSite(const ModelConfig& config) { return config.layers * kLayerSites; }
inline int32_t EmbedSite(const ModelConfig& config) { return config.layers * kLayerSites + 1; }

// [in, out] of every site, by site number.
std::vector<SiteShape> SiteShapes(const ModelConfig& config);

}  // namespace openlora
