#include <algorithm>
#include <bit>

#include "base/check.h"
#include "kernels/elementwise.h"
#include "kernels/embed.h"
#include "kernels/linear.h"
#include "ops/cuda_ops.h"
#include "ops/weight_packing.h"

// The ops of a step: each fills the structs of its kernels and launches them.

namespace openlora {
namespace {

// Rows up to which weights are streamed; both ways give the same bits.
constexpr int32_t kStreamRowsMax = 2 * linear::kStreamRows;
constexpr int kElementwiseBlocksOfSm = 4;

uint16_t* Bits(const TensorView& view) { return static_cast<uint16_t*>(view.data); }

int64_t ChunksOf(const TensorView& view) { return (view.cols + elementwise::kChunk - 1) / elementwise::kChunk; }

}  // namespace

void CudaOps::AwaitTiles(int32_t site) {
  for (Awaited& awaited : landings_) {
    const int32_t part = awaited.landing->part_of_site[static_cast<size_t>(site)];
    if (part <= awaited.part) continue;
    awaited.landing->HoldBack(part);
    awaited.part = part;
  }
}

void CudaOps::Embed(const EmbedArgs& args) {
  if (!error_.ok()) return;
  const Weight& table = *args.table;  // [V, H]
  counted_.weight_bytes_of_row = static_cast<uint64_t>(table.in * 2);
  const embed::GatherParams gather{.rows = step_.row_count(),
                                   .row_token = step_.row_token(),
                                   .hidden = static_cast<int32_t>(table.in),
                                   .scale = args.scale,
                                   .table = static_cast<const uint16_t*>(table.data),
                                   .out = args.out.f32(),
                                   .out_stride = args.out.stride};
  const int64_t chunks = Rows() * ((table.in + embed::kChunk - 1) / embed::kChunk);
  context_->Launch(is_f16() ? embed::GatherF16 : embed::GatherBF16,
                   {Blocks(chunks, kElementwiseBlocksOfSm), embed::kThreads}, gather);
  AwaitTiles(args.site);
  for (const LoraOnDevice& wave : step_.waves(false)) {
    embed::ShrinkParams shrink{LoraParams(wave, *args.pages), step_.row_token(), args.scale};
    shrink.lora.in = 1;
    shrink.lora.product_count = 1;
    shrink.lora.products[0] = {args.site, static_cast<int32_t>(table.in), args.out.stride, args.out.f32()};
    const int blocks = Blocks(Rows(), lora::kBlocksOfSm);
    context_->Launch(is_f16() ? embed::ShrinkF16 : embed::ShrinkBF16, {blocks, embed::kThreads}, shrink);
    const int64_t items = Rows() * ((table.in + lora::kChunkOuts - 1) / lora::kChunkOuts);
    context_->Launch(is_f16() ? lora::ExpandF16 : lora::ExpandBF16,
                     {Blocks(items, lora::kBlocksOfSm), lora::kThreads, lora::kExpandSharedBytes}, shrink.lora);
  }
  counted_.sites.push_back({false, args.site, 1, table.in});
}

void CudaOps::RmsNorm(const TensorView& x, const float* gain, int64_t dim, float eps, const TensorView& out) {
  if (!error_.ok() || x.rows == 0) return;
  if (dim != x.cols) {
    OPENLORA_CHECK(out.data == x.data);
    const auto groups = static_cast<int32_t>(x.cols / dim);
    const int64_t warps = elementwise::kThreads / 32;
    context_->Launch(elementwise::HeadNorm,
                     {Blocks((Rows() * groups + warps - 1) / warps, kElementwiseBlocksOfSm), elementwise::kThreads},
                     {.rows = RowCount(),
                      .dim = static_cast<int32_t>(dim),
                      .eps = eps,
                      .groups = {groups, 0},
                      .gains = {gain, gain},
                      .x = x.f32(),
                      .x_stride = x.stride});
    return;
  }
  const dev::Kernel<elementwise::RmsNormParams> kernel = out.dtype == DType::kF32 ? elementwise::RmsNormF32
                                                         : is_f16()               ? elementwise::RmsNormF16
                                                                                  : elementwise::RmsNormBF16;
  const int threads = elementwise::NormThreads(static_cast<int>(dim));
  context_->Launch(kernel, {Blocks(Rows(), kElementwiseBlocksOfSm), threads, elementwise::kNormSharedBytes},
                   {.rows = RowCount(),
                    .dim = static_cast<int32_t>(dim),
                    .eps = eps,
                    .x = nullptr,
                    .x_stride = 0,
                    .scale = 1,
                    .residual = x.f32(),
                    .residual_stride = x.stride,
                    .gain = gain,
                    .out = out.data,
                    .out_stride = out.stride});
}

TensorView CudaOps::InputOf(const ProjectArgs& args) {
  const TensorView& x = args.x;
  if (args.gate == nullptr && x.dtype == dtype_) return x;
  OPENLORA_CHECK(x.dtype == DType::kF32 && x.cols <= limits_.project_in);
  const TensorView input{input_, dtype_, x.rows, x.cols, input_stride_};
  const dev::Shape shape{Blocks(Rows() * ChunksOf(x), kElementwiseBlocksOfSm), elementwise::kThreads};
  if (args.gate == nullptr) {
    context_->Launch(is_f16() ? elementwise::CopyRowsF16 : elementwise::CopyRowsBF16, shape,
                     {.rows = RowCount(),
                      .index = nullptr,
                      .columns = static_cast<int32_t>(x.cols),
                      .x = x.f32(),
                      .x_stride = x.stride,
                      .out = input.data,
                      .out_stride = input.stride});
    return input;
  }
  static_assert(static_cast<int32_t>(elementwise::Activation::kSilu) == static_cast<int32_t>(Activation::kSilu) &&
                static_cast<int32_t>(elementwise::Activation::kGeluTanh) ==
                    static_cast<int32_t>(Activation::kGeluTanh));
  context_->Launch(is_f16() ? elementwise::GatedActivationF16 : elementwise::GatedActivationBF16, shape,
                   {.rows = RowCount(),
                    .columns = static_cast<int32_t>(x.cols),
                    .activation = static_cast<elementwise::Activation>(args.gate->activation),
                    .gate = x.f32(),
                    .gate_stride = x.stride,
                    .up = args.gate->up.f32(),
                    .up_stride = args.gate->up.stride,
                    .out = input.data,
                    .out_stride = input.stride});
  return input;
}

lora::Params CudaOps::LoraParams(const LoraOnDevice& wave, const AdapterPages& pages) const {
  return {.x = nullptr,
          .x_stride = 0,
          .in = 0,
          .product_count = 0,
          .products = {},
          .pool = pages.pool,
          .frame_bytes = pages.frame_bytes,
          .slots = step_.slots(),
          .segment_count = wave.segment_count,
          .segment_start = wave.segment_start,
          .segment_slot = wave.segment_slot,
          .entry_row = wave.entry_row,
          .entry_weight = wave.entry_weight,
          .entries_max = limits_.rows,
          .h = static_cast<float*>(lora_)};
}

void CudaOps::Project(const ProjectArgs& args) {
  if (!error_.ok() || args.x.rows == 0) return;
  const TensorView x = InputOf(args);
  MultiplyWeights(args, x);
  AddAdapters(args, x);
}

void CudaOps::MultiplyWeights(const ProjectArgs& args, const TensorView& x) {
  if (!error_.ok()) return;
  const auto in = static_cast<int32_t>(x.cols);
  linear::Params linear{.x = Bits(x),
                        .x_stride = x.stride,
                        .rows = RowCount(),
                        .rows_max = Rows(),
                        .in = in,
                        .product_count = static_cast<int32_t>(args.products.size()),
                        .tiles_each = 1,
                        .products = {}};
  int64_t outs = 0;
  for (size_t p = 0; p < args.products.size(); ++p) {
    const Product& product = args.products[p];
    const Weight& weight = *product.weight;
    linear.products[p] = {static_cast<const uint16_t*>(weight.data),
                          weight.bias,
                          product.out.f32(),
                          product.out.stride,
                          static_cast<int32_t>(weight.out),
                          product.accumulates ? 1 : 0};
    counted_.weight_bytes += static_cast<uint64_t>(PackedBytes(weight.format, weight.out, in));
    outs += weight.out;
  }
  if (Rows() <= kStreamRowsMax) {
    linear.tiles_each = StreamTilesEach(linear, linear.rows_max, context_->multiprocessors());
    const int64_t items = outs / (linear.tiles_each * linear::kTileOuts) + linear.product_count;
    context_->Launch(is_f16() ? linear::StreamF16 : linear::StreamBF16,
                     {Blocks(items, linear::kStreamBlocksOfSm), linear::kStreamThreads, linear::kStreamSharedBytes},
                     linear);
  } else {
    const int64_t tiles = outs / (linear::kGemmTiles * linear::kTileOuts) + linear.product_count;
    const int64_t items = tiles * ((Rows() + linear::kGemmRows - 1) / linear::kGemmRows);
    context_->Launch(is_f16() ? linear::GemmF16 : linear::GemmBF16,
                     {Blocks(items, linear::kGemmBlocksOfSm), linear::kGemmThreads, linear::kGemmSharedBytes}, linear);
  }
}

void CudaOps::AddAdapters(const ProjectArgs& args, const TensorView& x) {
  if (!error_.ok()) return;
  const auto in = static_cast<int32_t>(x.cols);
  int64_t outs = 0;
  for (const Product& product : args.products) {
    AwaitTiles(product.site);
    counted_.sites.push_back({is_head_, product.site, in, product.weight->out});
    outs += product.weight->out;
  }
  for (const LoraOnDevice& wave : step_.waves(is_head_)) {
    lora::Params lora = LoraParams(wave, *args.pages);
    lora.x = Bits(x);
    lora.x_stride = x.stride;
    lora.in = in;
    lora.product_count = static_cast<int32_t>(args.products.size());
    for (size_t p = 0; p < args.products.size(); ++p) {
      const Product& product = args.products[p];
      lora.products[p] = {product.site, static_cast<int32_t>(product.weight->out), product.out.stride,
                          product.out.f32()};
    }
    // Of ranks up to 16; others take their blocks several times.
    const int64_t shrinks = int64_t{Rows()} * lora.product_count * ((in + lora::kPart - 1) / lora::kPart);
    context_->Launch(is_f16() ? lora::ShrinkF16 : lora::ShrinkBF16,
                     {Blocks(shrinks, lora::kBlocksOfSm), lora::kThreads, lora::kShrinkSharedBytes}, lora);
    const int64_t expands = Rows() * (outs / lora::kChunkOuts + lora.product_count);
    context_->Launch(is_f16() ? lora::ExpandF16 : lora::ExpandBF16,
                     {Blocks(expands, lora::kBlocksOfSm), lora::kThreads, lora::kExpandSharedBytes}, lora);
  }
}

void CudaOps::RopeTable(const RowsView&, const RopeFrequencies& rope, const TensorView& cos_sin) {
  const elementwise::RopeTableParams params{.rows = RowCount(),
                                            .row_pos = step_.row_pos(),
                                            .row_is_long = step_.row_is_long(),
                                            .inv_freq = OnDevice(rope.inv_freq),
                                            .long_inv_freq = OnDevice(rope.long_inv_freq),
                                            .half = static_cast<int32_t>(rope.inv_freq.size()),
                                            .factor = rope.factor,
                                            .cos_sin = cos_sin.f32(),
                                            .cos_sin_stride = cos_sin.stride};
  if (!error_.ok()) return;
  const int64_t angles = Rows() * static_cast<int64_t>(rope.inv_freq.size());
  context_->Launch(elementwise::RopeTable,
                   {Blocks(angles / elementwise::kThreads + 1, kElementwiseBlocksOfSm), elementwise::kThreads}, params);
}

void CudaOps::Rope(const TensorView& x, int32_t heads, int32_t head_dim, const TensorView& cos_sin) {
  if (!error_.ok()) return;
  context_->Launch(elementwise::Rope, {Blocks(Rows() * ChunksOf(x), kElementwiseBlocksOfSm), elementwise::kThreads},
                   {.rows = RowCount(),
                    .heads = heads,
                    .head_dim = head_dim,
                    .half = static_cast<int32_t>(cos_sin.cols / 2),
                    .cos_sin = cos_sin.f32(),
                    .cos_sin_stride = cos_sin.stride,
                    .x = x.f32(),
                    .x_stride = x.stride});
}

attention::Cache CudaOps::CacheOf(const KvView& kv, int32_t layer) const {
  return {.pool = kv.pool,
          .frame_bytes = kv.frame_bytes,
          .table = step_.table(),
          .table_begin = step_.table_begin(),
          .frame_tokens_log2 = std::countr_zero(static_cast<uint32_t>(kv.frame_tokens)),
          .layers = kv.layers,
          .layer = layer,
          .kv_heads = kv.kv_heads,
          .head_dim = kv.head_dim};
}

void CudaOps::KvAppend(const TensorView& k, const TensorView& v, const RowsView&, const KvView& kv, int32_t layer) {
  if (!error_.ok()) return;
  context_->Launch(
      attention_->append, {Blocks(int64_t{Rows()} * kv.kv_heads, kElementwiseBlocksOfSm), attention::kThreads},
      {k.f32(), v.f32(), k.stride, v.stride, RowCount(), step_.row_pos(), step_.row_sequence(), CacheOf(kv, layer)});
}

void CudaOps::Attention(const AttentionArgs& args) {
  if (!error_.ok()) return;
  const StepShape& shape = step_.shape();
  const int64_t of_heads = int64_t{attention_shape_.places} * args.heads;
  attention::Params params{.q = args.q.f32(),
                           .out = Bits(args.out),
                           .q_stride = args.q.stride,
                           .out_stride = args.out.stride,
                           .row_pos = step_.row_pos(),
                           .row_sequence = step_.row_sequence(),
                           .cache = CacheOf(args.kv, args.layer),
                           .heads = args.heads,
                           .scale = args.scale,
                           .window = args.window,
                           .soft_cap = args.soft_cap,
                           .item_count = step_.prefill_count(),
                           .items = step_.prefill(),
                           .row_place = step_.row_place(),
                           .merge_count = step_.merge_count(),
                           .merge_row = step_.merge_row(),
                           .partial_sums = static_cast<float*>(partials_),
                           .partial_out = static_cast<float*>(partials_) + 2 * of_heads};
  const auto blocks_for = [&](int32_t items) {
    return Blocks(int64_t{items} * args.kv.kv_heads, kElementwiseBlocksOfSm);
  };
  if (shape.prefill_items > 0)
    context_->Launch(
        attention_->prefill,
        {blocks_for(shape.prefill_items), attention_->prefill_warps * 32, attention_->prefill_shared_bytes}, params);
  if (shape.decode_items == 0) return;
  params.item_count = step_.decode_count();
  params.items = step_.decode();
  context_->Launch(attention_->decode,
                   {blocks_for(shape.decode_items), attention::kDecodeWarps * 32, attention_->decode_shared_bytes},
                   params);
  context_->Launch(attention_->merge,
                   {Blocks(int64_t{Rows()} * args.heads, kElementwiseBlocksOfSm), attention::kThreads}, params);
}

void CudaOps::GatedActivation(Activation, const TensorView&, const TensorView&) {
  Note(Status(kErrInternal, "on a GPU a gate stands before a product: ProjectArgs::gate"));
}

void CudaOps::AddScaled(const TensorView& x, float scale, const TensorView& out) {
  if (!error_.ok()) return;
  context_->Launch(elementwise::AddScaled,
                   {Blocks(Rows() * ChunksOf(x), kElementwiseBlocksOfSm), elementwise::kThreads},
                   {.rows = RowCount(),
                    .columns = static_cast<int32_t>(x.cols),
                    .scale = scale,
                    .x = x.f32(),
                    .x_stride = x.stride,
                    .out = out.f32(),
                    .out_stride = out.stride});
}

void CudaOps::SoftCap(const TensorView& x, float cap) {
  if (!error_.ok()) return;
  context_->Launch(
      elementwise::SoftCap, {Blocks(Rows() * ChunksOf(x), kElementwiseBlocksOfSm), elementwise::kThreads},
      {.rows = RowCount(), .columns = static_cast<int32_t>(x.cols), .cap = cap, .x = x.f32(), .x_stride = x.stride});
}

void CudaOps::GatherRows(const TensorView& x, std::span<const int32_t>, const TensorView& out) {
  is_head_ = true;
  if (!error_.ok()) return;
  context_->Launch(elementwise::CopyRowsF32,
                   {Blocks(Rows() * ChunksOf(out), kElementwiseBlocksOfSm), elementwise::kThreads},
                   {.rows = RowCount(),
                    .index = step_.logit_row(),
                    .columns = static_cast<int32_t>(x.cols),
                    .x = x.f32(),
                    .x_stride = x.stride,
                    .out = out.data,
                    .out_stride = out.stride});
}

void CudaOps::Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) {
  if (error_.ok()) Note(sampler_.Launch(logits, rows, results));
}

}  // namespace openlora
