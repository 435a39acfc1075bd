#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/prng.h"
#include "engine/engine_options.h"
#include "memory/adapter_manifest.h"
#include "ops/cpu/cpu_device.h"
#include "ops/cpu/cpu_ops.h"

namespace openlora {

// Files of one test, removed at its end.
class TestFolder {
 public:
  explicit TestFolder(const std::string& name)
      : path_(std::filesystem::temp_directory_path() /
              ("openlora-" + name + "-" +
               std::to_string(Philox(reinterpret_cast<uintptr_t>(this), static_cast<uint64_t>(NowSeed()))))) {
    std::filesystem::create_directories(path_);
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return (path_ / name).string(); }

 private:
  static int64_t NowSeed() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
  std::filesystem::path path_;
};

// Writes random f32 matrices one after another, and keeps their ranges.
class TensorFile {
 public:
  TensorFile(std::string path, uint64_t seed) : path_(std::move(path)), seed_(seed) {}
  ~TensorFile() { Flush(); }

  // Uniform in ±scale around `mean`.
  TensorRange Add(int64_t rows, int64_t cols, float scale, float mean = 0) {
    const TensorRange range{0, static_cast<int64_t>(values_.size()) * 4, rows * cols * 4, DType::kF32, rows, cols};
    for (int64_t i = 0; i < rows * cols; ++i)
      values_.push_back(mean + scale * static_cast<float>(2 * PhiloxUniform(seed_, values_.size()) - 1));
    return range;
  }
  void Flush() {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(values_.data()), static_cast<std::streamsize>(values_.size() * 4));
  }
  std::vector<float>& values() { return values_; }

 private:
  std::string path_;
  uint64_t seed_;
  std::vector<float> values_;
};

inline ModelConfig TinyConfig() {
  ModelConfig model;
  model.layers = 2;
  model.hidden = 48;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = 12;
  model.intermediate = 80;
  model.vocab = 101;
  model.context = 256;
  model.attention_scale = 0.2886751f;
  model.ropes.resize(1);
  for (int i = 0; i < 6; ++i) model.ropes[0].inv_freq.push_back(1.0f / static_cast<float>(1 << (2 * i)));
  model.layer_options.resize(2);
  return model;
}

// A random base of `model` in `folder`, ready to open on a CPU, everything kept in `dtype` (KV and adapters beside int8
// and int4: bf16). The text of token t is the two letters of t.
inline EngineOptions TinyOptions(const TestFolder& folder, int threads = 1, SimdLevel simd = SimdLevel::kAuto,
                                 WeightFormat dtype = DType::kF32, const ModelConfig& model = TinyConfig()) {
  EngineOptions options;
  options.dtype = dtype;
  options.kv_dtype = options.adapter_dtype = dtype.is_quantised() ? DType::kBF16 : dtype.dtype();
  options.model = model;
  options.files = {folder.File("base.bin")};
  {
    TensorFile file(options.files[0], 1);
    const ModelConfig& m = options.model;
    const std::vector<SiteShape> shapes = SiteShapes(m);
    const auto add = [&](WeightRole role, int32_t layer, const TensorRange& range) {
      options.tensors.push_back({role, layer, range});
    };
    add(WeightRole::kEmbed, -1, file.Add(m.vocab, m.hidden, 1.0f));
    add(WeightRole::kHead, -1, file.Add(m.vocab, m.hidden, 0.5f));
    add(WeightRole::kFinalNorm, -1, file.Add(1, m.hidden, 0.1f, 1.0f));
    for (int32_t layer = 0; layer < m.layers; ++layer) {
      if (m.has_pre_norms) {
        add(WeightRole::kAttnNorm, layer, file.Add(1, m.hidden, 0.1f, 1.0f));
        add(WeightRole::kMlpNorm, layer, file.Add(1, m.hidden, 0.1f, 1.0f));
      }
      if (m.has_post_norms) {
        add(WeightRole::kAttnPostNorm, layer, file.Add(1, m.hidden, 0.1f, 1.0f));
        add(WeightRole::kMlpPostNorm, layer, file.Add(1, m.hidden, 0.1f, 1.0f));
      }
      if (m.qk_norm != QkNorm::kNone) {
        const bool is_over_heads = m.qk_norm == QkNorm::kAll;
        add(WeightRole::kQNorm, layer, file.Add(1, is_over_heads ? m.q_dim() : m.head_dim, 0.1f, 1.0f));
        add(WeightRole::kKNorm, layer, file.Add(1, is_over_heads ? m.kv_dim() : m.head_dim, 0.1f, 1.0f));
      }
      for (int32_t site = 0; site < kLayerSites; ++site) {
        const SiteShape& shape = shapes[static_cast<size_t>(site)];
        if (shape.in == 0) continue;
        add(static_cast<WeightRole>(static_cast<int32_t>(WeightRole::kSite0) + site), layer,
            file.Add(shape.out, shape.in, 0.25f));
      }
      if (!m.is_fused) add(WeightRole::kBias0, layer, file.Add(1, m.q_dim(), 0.1f));
    }
  }
  options.read_tokens = [vocab = options.model.vocab] {
    TokenTable tokens;
    for (int32_t token = 0; token <= vocab; ++token) {
      tokens.offsets.push_back(static_cast<uint32_t>(tokens.bytes.size()));
      tokens.bytes.push_back(static_cast<uint8_t>('a' + token / 26));
      tokens.bytes.push_back(static_cast<uint8_t>('a' + token % 26));
    }
    return tokens;
  };
  options.pool_bytes = 4 << 20;
  options.max_batch_tokens = 64;
  options.poisons_freed = true;
  options.checks_invariants = true;
  options.open_backend = [threads, simd](Backend* backend) {
    backend->threads = threads;
    backend->simd = NameOf(simd);
    backend->device = std::make_unique<CpuDevice>();
    return CreateCpuOps(simd, threads, &backend->ops);
  };
  return options;
}

// A random adapter of `rank` on every third site from `first` on, in a file of its own.
inline AdapterManifest TinyAdapter(const TestFolder& folder, const std::string& name, int32_t rank, int32_t first,
                                   uint64_t seed, const ModelConfig& model = TinyConfig(), float limit = 0.3f) {
  AdapterManifest manifest;
  manifest.files = {folder.File(name)};
  manifest.canonical_config = name;
  TensorFile file(manifest.files[0], seed);
  const std::vector<SiteShape> shapes = SiteShapes(model);
  for (auto site = static_cast<size_t>(first); site < shapes.size(); site += 3) {
    if (shapes[site].in == 0) continue;
    AdapterSite added{static_cast<int32_t>(site), rank, 0.5f, {}, {}};
    added.a = file.Add(rank, shapes[site].in, limit);
    added.b = file.Add(shapes[site].out, rank, limit);
    manifest.sites.push_back(added);
  }
  return manifest;
}

}  // namespace openlora
