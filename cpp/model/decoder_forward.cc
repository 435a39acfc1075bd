#include "model/decoder_forward.h"

#include <algorithm>
#include <array>

namespace openlora {
namespace {

// Columns [begin, begin + cols) of a view.
TensorView Columns(TensorView view, int64_t begin, int64_t cols) {
  view.data = view.f32() + begin;
  view.cols = cols;
  return view;
}

// The buffers cut to the rows of one batch, and what every op of a layer needs.
class Decoder {
 public:
  Decoder(const ModelConfig& config, const ModelWeights& weights, const BatchView& batch, const DecoderBuffers& buffers,
          Ops* ops)
      : config_(config), weights_(weights), batch_(batch), ops_(*ops), b_(buffers) {
    for (TensorView* view :
         {&b_.x, &b_.normed, &b_.added, &b_.qkv, &b_.context, &b_.gate_up, &b_.cos_sin[0], &b_.cos_sin[1]})
      view->rows = batch.rows.rows;
    b_.last.rows = b_.logits.rows = static_cast<int64_t>(batch.logit_rows.size());
    q_ = Columns(b_.qkv, 0, config.q_dim());
    k_ = Columns(b_.qkv, config.q_dim(), config.kv_dim());
    v_ = Columns(b_.qkv, config.q_dim() + config.kv_dim(), config.kv_dim());
    gate_ = Columns(b_.gate_up, 0, config.intermediate);
    up_ = Columns(b_.gate_up, config.intermediate, config.intermediate);
  }

  void Begin() {
    ops_.Embed({batch_.rows.row_token, batch_.rows.rows, &weights_.embed(), config_.embedding_scale, b_.x,
                EmbedSite(config_), &batch_.entries, &batch_.pages});
    for (size_t i = 0; i < config_.ropes.size(); ++i) {
      const RopeOptions& rope = config_.ropes[i];
      ops_.RopeTable(batch_.rows, {rope.inv_freq, rope.long_inv_freq, rope.factor}, b_.cos_sin[i]);
    }
  }

  void Layer(int32_t layer) {
    const LayerWeights& w = weights_.layers()[static_cast<size_t>(layer)];
    const LayerOptions& o = config_.layer_options[static_cast<size_t>(layer)];
    const auto product = [&](LayerSite site, const TensorView& out) {
      return Product{&w.sites[site], out, SiteOf(layer, site), false};
    };

    const TensorView attended = Normed(w.attn_norm);
    if (config_.is_fused) {
      Project(attended, std::array{product(kQkv, b_.qkv)});
    } else {
      Project(attended, std::array{product(kQ, q_), product(kK, k_), product(kV, v_)});
    }
    NormAndRotate(q_, config_.heads, w.q_norm, o.rope);
    NormAndRotate(k_, config_.kv_heads, w.k_norm, o.rope);
    ops_.KvAppend(k_, v_, batch_.rows, batch_.kv, layer);
    ops_.Attention({q_, b_.context, batch_.rows, batch_.kv, layer, config_.heads, config_.attention_scale, o.window,
                    config_.attention_soft_cap});
    AddToResidual(b_.context, product(kO, b_.x), w.attn_post_norm);

    const TensorView read = Normed(w.mlp_norm);
    if (config_.is_fused) {
      Project(read, std::array{product(kGateUp, b_.gate_up)});
    } else {
      Project(read, std::array{product(kGate, gate_), product(kUp, up_)});
    }
    const Gate gate{config_.activation, up_};
    AddToResidual(gate_, product(kDown, b_.x), w.mlp_post_norm, &gate);
  }

  // Only the rows whose logits are wanted.
  void Head() {
    if (batch_.logit_rows.empty()) return;
    ops_.GatherRows(b_.x, batch_.logit_rows, b_.last);
    TensorView normed = b_.normed;
    normed.rows = b_.last.rows;
    ops_.RmsNorm(b_.last, weights_.final_norm(), config_.hidden, config_.norm_eps, normed);
    const std::array products{Product{&weights_.head(), b_.logits, HeadSite(config_), false}};
    ops_.Project({normed, products, &batch_.logit_entries, &batch_.pages});
    if (config_.logit_soft_cap > 0) ops_.SoftCap(b_.logits, config_.logit_soft_cap);
  }

 private:
  template <size_t kCount>
  void Project(const TensorView& x, const std::array<Product, kCount>& products, const Gate* gate = nullptr) {
    ops_.Project({x, products, &batch_.entries, &batch_.pages, gate});
  }

  // The residual stream as attention or the MLP reads it.
  TensorView Normed(const float* gain) {
    if (gain == nullptr) return b_.x;
    ops_.RmsNorm(b_.x, gain, config_.hidden, config_.norm_eps, b_.normed);
    return b_.normed;
  }

  // q or k, [T, heads * head_dim].
  void NormAndRotate(const TensorView& x, int32_t heads, const float* gain, int32_t rope) {
    const int64_t dim = config_.qk_norm == QkNorm::kAll ? x.cols : config_.head_dim;
    if (gain != nullptr) ops_.RmsNorm(x, gain, dim, config_.norm_eps, x);
    if (rope >= 0) ops_.Rope(x, heads, config_.head_dim, b_.cos_sin[rope]);
  }

  // b_.x += scale * norm(product of x).
  void AddToResidual(const TensorView& x, Product product, const float* gain, const Gate* gate = nullptr) {
    const bool is_plain = gain == nullptr && config_.residual_scale == 1;
    product.out = is_plain ? b_.x : b_.added;
    product.accumulates = is_plain;
    Project(x, std::array{product}, gate);
    if (gain != nullptr) ops_.RmsNorm(b_.added, gain, config_.hidden, config_.norm_eps, b_.added);
    if (!is_plain) ops_.AddScaled(b_.added, config_.residual_scale, b_.x);
  }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const BatchView& batch_;
  Ops& ops_;
  DecoderBuffers b_;
  TensorView q_, k_, v_, gate_, up_;  // columns of b_.qkv and b_.gate_up
};

// Each(view, dtype, rows, cols) for every buffer of its own.
template <typename Each>
void ForEachBuffer(const ModelConfig& config, DType input, int64_t rows, int64_t logit_rows, DecoderBuffers* buffers,
                   const Each& each) {
  constexpr DType kF32 = DType::kF32;
  each(&buffers->x, kF32, rows, config.hidden);
  each(&buffers->normed, input, rows, config.hidden);
  if (input != kF32 && (config.has_post_norms || config.residual_scale != 1))
    each(&buffers->added, kF32, rows, config.hidden);
  each(&buffers->qkv, kF32, rows, config.q_dim() + 2 * config.kv_dim());
  each(&buffers->context, input, rows, config.q_dim());
  each(&buffers->gate_up, kF32, rows, 2 * config.intermediate);
  for (size_t i = 0; i < config.ropes.size(); ++i) each(&buffers->cos_sin[i], kF32, rows, config.rotary_dim());
  each(&buffers->last, kF32, logit_rows, config.hidden);
  each(&buffers->logits, kF32, logit_rows, config.vocab);
}

// Rows and buffers begin at multiples of 64 bytes. A stride that is a multiple of 4 KiB puts the same column of all
// rows into one set of the L1 cache, so such strides get one line more.
int64_t StrideOf(DType dtype, int64_t cols) {
  const auto line = static_cast<int64_t>(64 / SizeOf(dtype));
  const int64_t stride = (cols + line - 1) / line * line;
  return stride % (64 * line) == 0 && stride > 0 ? stride + line : stride;
}

}  // namespace

int64_t DecoderBufferBytes(const ModelConfig& config, DType input, int32_t rows, int32_t logit_rows) {
  DecoderBuffers unused;
  int64_t bytes = 0;
  ForEachBuffer(config, input, rows, logit_rows, &unused, [&](TensorView*, DType dtype, int64_t count, int64_t cols) {
    bytes += count * StrideOf(dtype, cols) * static_cast<int64_t>(SizeOf(dtype));
  });
  return bytes;
}

DecoderBuffers MakeDecoderBuffers(const ModelConfig& config, DType input, int32_t rows, int32_t logit_rows,
                                  void* memory) {
  DecoderBuffers buffers;
  auto* next = static_cast<uint8_t*>(memory);
  ForEachBuffer(config, input, rows, logit_rows, &buffers,
                [&](TensorView* view, DType dtype, int64_t count, int64_t cols) {
                  const int64_t stride = StrideOf(dtype, cols);
                  *view = {next, dtype, count, cols, stride};
                  next += count * stride * static_cast<int64_t>(SizeOf(dtype));
                });
  if (input == DType::kF32) buffers.added = buffers.normed;
  return buffers;
}

StepLimits LimitsOf(const ModelConfig& config, int32_t rows, int32_t logit_rows, int32_t context) {
  StepLimits limits;
  limits.rows = rows;
  limits.logit_rows = logit_rows;
  limits.context = context;
  limits.hidden = config.hidden;
  limits.project_in = std::max({config.hidden, config.q_dim(), config.intermediate});
  limits.vocab = config.vocab;
  limits.sites = EmbedSite(config) + 1;
  limits.heads = config.heads;
  limits.kv_heads = config.kv_heads;
  limits.head_dim = config.head_dim;
  return limits;
}

void DecoderForward(const ModelConfig& config, const ModelWeights& weights, const BatchView& batch,
                    const DecoderBuffers& buffers, Ops* ops, const std::atomic<bool>& is_aborted) {
  if (ops->BeginStep(batch)) return;
  Decoder decoder(config, weights, batch, buffers, ops);
  decoder.Begin();
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    if (is_aborted.load(std::memory_order_relaxed)) return;
    decoder.Layer(layer);
  }
  decoder.Head();
  ops->EndStep();
}

}  // namespace openlora
