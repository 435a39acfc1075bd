#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "bench/entries_by_turns.h"
#include "memory/frame_pool.h"
#include "memory/tile_layout.h"
#include "model/decoder_forward.h"
#include "ops/cuda_device.h"
#include "ops/cuda_ops.h"

namespace openlora {

struct DecodeShape {
  ModelConfig model;
  int32_t rows = 1;      // sequences, a row of each
  int32_t context = 64;  // tokens before it
  int32_t adapters = 0;  // distinct ones, by turns; 0: the base alone
  int32_t rank = 16;     // on all seven modules of each layer
};

// Steps that decode, on random weights, KV and adapters made in device memory: what a batch of an engine computes when
// all its sequences are at one length. Values are between 2^-7 and 2^-6, of either sign, but for norms, which are what
// pairs of such values are as f32.
class DecodeLoad {
 public:
  static Status Open(const DecodeShape& shape, std::shared_ptr<CudaContext> context,
                     std::unique_ptr<DecodeLoad>* opened) {
    auto load = std::unique_ptr<DecodeLoad>(new DecodeLoad(shape, std::move(context)));
    OPENLORA_RETURN_IF_ERROR(load->Prepare());
    *opened = std::move(load);
    return Ok();
  }
  ~DecodeLoad() {
    for (const auto& [memory, bytes] : memory_) device_.Free(memory, bytes);
  }

  // The most likely tokens.
  Status Step() {
    const std::atomic<bool> is_aborted{false};
    const BatchView batch{rows_view_,  entries_.view(),
                          kv_,         {pool_.memory(), slots_.data(), DType::kBF16, pool_.frame_bytes()},
                          logit_rows_, entries_.view()};
    DecoderForward(shape_.model, weights_, batch, buffers_, &ops_, is_aborted);
    TensorView logits = buffers_.logits;
    logits.rows = shape_.rows;
    ops_.Sample(logits, sample_rows_, results_);
    return ops_.Synchronize();
  }

  const std::vector<SampleResult>& results() const { return results_; }
  const CudaOps& ops() const { return ops_; }
  int64_t weight_bytes() const { return weights_.bytes(); }
  int64_t adapter_bytes() const { return adapter_bytes_; }  // of one

 private:
  static constexpr int32_t kFrameTokens = 16;

  DecodeLoad(const DecodeShape& shape, std::shared_ptr<CudaContext> context)
      : shape_(shape), device_(context), ops_(context, DType::kBF16), entries_(shape.rows, shape.adapters) {}

  Status Prepare() {
    const ModelConfig& m = shape_.model;
    OPENLORA_RETURN_IF_ERROR(weights_.OpenShape(m, DType::kBF16, ops_));
    void* memory = nullptr;
    OPENLORA_RETURN_IF_ERROR(Allocate(weights_.bytes(), &memory));
    OPENLORA_RETURN_IF_ERROR(FillRandom(memory, weights_.bytes()));
    OPENLORA_RETURN_IF_ERROR(weights_.Assume(memory));
    const int64_t bytes = DecoderBufferBytes(m, DType::kBF16, shape_.rows, shape_.rows);
    OPENLORA_RETURN_IF_ERROR(Allocate(bytes, &memory));
    buffers_ = MakeDecoderBuffers(m, DType::kBF16, shape_.rows, shape_.rows, memory);
    StepLimits limits = LimitsOf(m, shape_.rows, shape_.rows, shape_.context + 1);
    limits.weights = limits.kv = limits.adapters = DType::kBF16;
    OPENLORA_RETURN_IF_ERROR(ops_.Reserve(limits));
    OPENLORA_RETURN_IF_ERROR(MakePool());
    MakeBatch();
    return Ok();
  }

  Status Allocate(int64_t bytes, void** memory) {
    OPENLORA_RETURN_IF_ERROR(device_.Allocate(static_cast<size_t>(bytes), memory));
    memory_.emplace_back(*memory, static_cast<size_t>(bytes));
    return Ok();
  }

  Status FillRandom(void* memory, int64_t bytes) {
    constexpr size_t kBlock = 32 << 20;
    if (random_.empty()) {
      random_.resize(kBlock / sizeof(uint16_t));
      uint64_t state = 1;
      for (uint16_t& value : random_) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        value = static_cast<uint16_t>((state >> 33 & 0x807fu) | 0x3c00u);
      }
    }
    auto* const to = static_cast<uint8_t*>(memory);
    for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(kBlock)) {
      const auto count = static_cast<size_t>(std::min<int64_t>(bytes - at, static_cast<int64_t>(kBlock)));
      OPENLORA_RETURN_IF_ERROR(device_.Upload(to + at, random_.data(), count));
    }
    return Ok();
  }

  // KV of every sequence, and the adapters, in one pool.
  Status MakePool() {
    const ModelConfig& m = shape_.model;
    const int64_t kv_bytes = ops_.KvBytes(DType::kBF16, m.kv_heads, m.head_dim, kFrameTokens);
    const int64_t frame_bytes =
        std::max<int64_t>(4096, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(kv_bytes))));
    const int64_t blocks = shape_.context / kFrameTokens + 1;
    const std::vector<SiteShape> sites = SiteShapes(m);
    AdapterManifest manifest;
    for (int32_t site = 0; site < m.layers * kLayerSites; ++site)
      if (sites[static_cast<size_t>(site)].in > 0) manifest.sites.push_back({site, shape_.rank, 0.25f, {}, {}});
    const TileLayout layout = PlanTiles(manifest, sites, {nullptr, DType::kBF16, frame_bytes});
    adapter_bytes_ = layout.bytes;
    const int64_t frames = shape_.rows * blocks * m.layers + shape_.adapters * layout.frames;
    OPENLORA_RETURN_IF_ERROR(pool_.Open(&device_, frame_bytes, 0, frames, false));
    pool_.LeaveKv();
    OPENLORA_RETURN_IF_ERROR(FillRandom(pool_.memory(), frames * frame_bytes));
    for (int32_t i = 0; i < shape_.adapters; ++i) {
      layouts_.push_back(layout);
      frames_.emplace_back();
      pool_.Take(layout.frames, FrameUse::kAdapter, &frames_.back());
    }
    for (size_t i = 0; i < layouts_.size(); ++i)
      slots_.push_back({layouts_[i].sites.data(), layouts_[i].runs.data(), frames_[i].data(),
                        static_cast<uint32_t>(layouts_[i].runs.size()), static_cast<uint32_t>(frames_[i].size()),
                        i + 1});
    for (int32_t row = 0; row < shape_.rows; ++row) {
      table_begin_.push_back(static_cast<int64_t>(table_.size()));
      pool_.Take(blocks * m.layers, FrameUse::kKv, &table_);
    }
    kv_ = {pool_.memory(), frame_bytes, kFrameTokens, DType::kBF16, m.layers, m.kv_heads, m.head_dim};
    kv_.table = table_.data();
    kv_.table_begin = table_begin_.data();
    return Ok();
  }

  void MakeBatch() {
    const auto rows = static_cast<size_t>(shape_.rows);
    tokens_.resize(rows);
    sequences_.resize(rows);
    std::iota(sequences_.begin(), sequences_.end(), 0);
    for (size_t row = 0; row < rows; ++row)
      tokens_[row] = static_cast<int32_t>(row * 7919 % static_cast<size_t>(shape_.model.vocab));
    positions_.assign(rows, shape_.context);
    logit_rows_ = sequences_;
    rows_view_ = {shape_.rows, tokens_.data(), positions_.data(), sequences_.data(), nullptr};
    sample_rows_.resize(rows);
    results_.resize(rows);
  }

  DecodeShape shape_;
  CudaDevice device_;
  CudaOps ops_;
  ModelWeights weights_;
  DecoderBuffers buffers_;
  FramePool pool_;
  std::vector<std::pair<void*, size_t>> memory_;
  std::vector<uint16_t> random_;
  int64_t adapter_bytes_ = 0;
  std::vector<TileLayout> layouts_;
  std::vector<std::vector<uint32_t>> frames_;
  std::vector<SlotPages> slots_;
  std::vector<uint32_t> table_;
  std::vector<int64_t> table_begin_;
  KvView kv_;
  std::vector<int32_t> tokens_, positions_, sequences_, logit_rows_;
  RowsView rows_view_;
  const EntriesByTurns entries_;
  std::vector<SampleRow> sample_rows_;
  std::vector<SampleResult> results_;
};

}  // namespace openlora
