#include "model/decoder_forward.h"

#include <array>

namespace openlora {
namespace {

// The buffers cut to the rows of one batch, and what every op of a layer needs.
class Decoder {
 public:
  Decoder(const ModelConfig& config, const ModelWeights& weights, const BatchView& batch, const DecoderBuffers& buffers,
          Ops* ops)
      : config_(config), weights_(weights), batch_(batch), ops_(*ops), b_(buffers) {
    const int64_t rows = batch.rows.rows;
    for (TensorView* view : {&b_.x, &b_.normed, &b_.q, &b_.k, &b_.v, &b_.context, &b_.gate, &b_.up, &b_.cos_sin})
      view->rows = rows;
    b_.last.rows = b_.logits.rows = static_cast<int64_t>(batch.logit_rows.size());
  }

  void Begin() {
    ops_.Embed({batch_.rows.row_token, batch_.rows.rows, &weights_.embed(), config_.embedding_scale, b_.x,
                EmbedSite(config_), &batch_.entries, &batch_.pages});
    ops_.RopeTable(batch_.rows.row_pos, batch_.rows.rows, config_.rope_inv_freq, config_.rope_factor, b_.cos_sin);
  }

  void Layer(int32_t layer) {
    const LayerWeights& w = weights_.layers()[static_cast<size_t>(layer)];
    const auto product = [&](LayerSite site, const TensorView& out) {
      return Product{&w.sites[site], out, SiteOf(layer, site), false};
    };
    const auto added = [&](LayerSite site) { return Product{&w.sites[site], b_.x, SiteOf(layer, site), true}; };

    ops_.RmsNorm(b_.x, w.attn_norm, config_.hidden, config_.norm_eps, b_.normed);
    Project(b_.normed, std::array{product(kQ, b_.q), product(kK, b_.k), product(kV, b_.v)});
    ops_.Rope(b_.q, config_.heads, config_.head_dim, b_.cos_sin);
    ops_.Rope(b_.k, config_.kv_heads, config_.head_dim, b_.cos_sin);
    ops_.KvAppend(b_.k, b_.v, batch_.rows, batch_.kv, layer);
    ops_.Attention({b_.q, b_.context, batch_.rows, batch_.kv, layer, config_.heads, config_.attention_scale, 0, 0});
    Project(b_.context, std::array{added(kO)});

    ops_.RmsNorm(b_.x, w.mlp_norm, config_.hidden, config_.norm_eps, b_.normed);
    Project(b_.normed, std::array{product(kGate, b_.gate), product(kUp, b_.up)});
    ops_.SiluMul(b_.gate, b_.up);
    Project(b_.gate, std::array{added(kDown)});
  }

  // Only the rows whose logits are wanted.
  void Head() {
    if (batch_.logit_rows.empty()) return;
    ops_.GatherRows(b_.x, batch_.logit_rows, b_.last);
    ops_.RmsNorm(b_.last, weights_.final_norm(), config_.hidden, config_.norm_eps, b_.last);
    const std::array products{Product{&weights_.head(), b_.logits, HeadSite(config_), false}};
    ops_.Project({b_.last, products, &batch_.logit_entries, &batch_.pages});
  }

 private:
  template <size_t kCount>
  void Project(const TensorView& x, const std::array<Product, kCount>& products) {
    ops_.Project({x, products, &batch_.entries, &batch_.pages});
  }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const BatchView& batch_;
  Ops& ops_;
  DecoderBuffers b_;
};

struct BufferShape {
  TensorView DecoderBuffers::* view;
  int64_t rows;
  int64_t cols;
};

std::array<BufferShape, 11> BufferShapes(const ModelConfig& config, int64_t rows, int64_t logit_rows) {
  const auto rotary = 2 * static_cast<int64_t>(config.rope_inv_freq.size());
  return {{{&DecoderBuffers::x, rows, config.hidden},
           {&DecoderBuffers::normed, rows, config.hidden},
           {&DecoderBuffers::q, rows, config.q_dim()},
           {&DecoderBuffers::k, rows, config.kv_dim()},
           {&DecoderBuffers::v, rows, config.kv_dim()},
           {&DecoderBuffers::context, rows, config.q_dim()},
           {&DecoderBuffers::gate, rows, config.intermediate},
           {&DecoderBuffers::up, rows, config.intermediate},
           {&DecoderBuffers::cos_sin, rows, rotary},
           {&DecoderBuffers::last, logit_rows, config.hidden},
           {&DecoderBuffers::logits, logit_rows, config.vocab}}};
}

// Rows and buffers begin at multiples of 64 bytes. A stride that is a multiple of 4 KiB puts the same column of all
// rows into one set of the L1 cache, so such strides get one line more.
int64_t StrideOf(int64_t cols) {
  const int64_t stride = (cols + 15) / 16 * 16;
  return stride % 1024 == 0 && stride > 0 ? stride + 16 : stride;
}

}  // namespace

int64_t DecoderBufferBytes(const ModelConfig& config, int32_t rows, int32_t logit_rows) {
  int64_t bytes = 0;
  for (const BufferShape& shape : BufferShapes(config, rows, logit_rows))
    bytes += shape.rows * StrideOf(shape.cols) * 4;
  return bytes;
}

DecoderBuffers MakeDecoderBuffers(const ModelConfig& config, int32_t rows, int32_t logit_rows, void* memory) {
  DecoderBuffers buffers;
  float* next = static_cast<float*>(memory);
  for (const BufferShape& shape : BufferShapes(config, rows, logit_rows)) {
    const int64_t stride = StrideOf(shape.cols);
    buffers.*shape.view = {next, DType::kF32, shape.rows, shape.cols, stride};
    next += shape.rows * stride;
  }
  return buffers;
}

void DecoderForward(const ModelConfig& config, const ModelWeights& weights, const BatchView& batch,
                    const DecoderBuffers& buffers, Ops* ops, const std::atomic<bool>& is_aborted) {
  Decoder decoder(config, weights, batch, buffers, ops);
  decoder.Begin();
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    if (is_aborted.load(std::memory_order_relaxed)) return;
    decoder.Layer(layer);
  }
  decoder.Head();
}

}  // namespace openlora
