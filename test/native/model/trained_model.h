#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/prng.h"
#include "model/model_weights.h"
#include "tensor/tensor_view.h"

namespace openlora {

// The root of the repository: where its files and ../shared are.
inline std::filesystem::path RepositoryRoot() {
  return std::filesystem::path(__FILE__).parent_path().parent_path().parent_path().parent_path();
}

// The tensors of a safetensors file in F32 or BF16, whose header is JSON as safetensors writes it, without spaces.
inline std::map<std::string, TensorRange> SafetensorsHeader(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  uint64_t length = 0;
  file.read(reinterpret_cast<char*>(&length), sizeof length);
  std::string header(length, ' ');
  file.read(header.data(), static_cast<std::streamsize>(length));
  const auto numbers_at = [&](size_t at) {
    std::vector<int64_t> numbers;
    for (; header[at] != ']'; at += header[at] == ',' ? 1 : 0) {
      int64_t number = 0;
      at = static_cast<size_t>(std::from_chars(&header[at], header.data() + header.size(), number).ptr - header.data());
      numbers.push_back(number);
    }
    return numbers;
  };
  std::map<std::string, TensorRange> tensors;
  for (size_t at = header.find("{\"dtype\":\""); at != std::string::npos; at = header.find("{\"dtype\":\"", at + 1)) {
    const size_t name_end = at - 2, name_begin = header.rfind('"', name_end - 1) + 1;
    const bool is_f32 = header.compare(at + 10, 3, "F32") == 0;
    const std::vector<int64_t> shape = numbers_at(header.find("\"shape\":[", at) + 9);
    const std::vector<int64_t> offsets = numbers_at(header.find("\"data_offsets\":[", at) + 16);
    TensorRange range;
    range.offset = static_cast<int64_t>(sizeof length + length) + offsets[0];
    range.bytes = offsets[1] - offsets[0];
    range.dtype = is_f32 ? DType::kF32 : DType::kBF16;
    range.rows = shape.size() == 2 ? shape[0] : 1;
    range.cols = shape.back();
    tensors[header.substr(name_begin, name_end - name_begin)] = range;
  }
  return tensors;
}

// A small trained Llama out of a safetensors file of the repository or beside it, as f32.
class TrainedModel {
 public:
  struct Matrix {
    int64_t rows = 0;
    int64_t cols = 0;
    std::vector<float> values;
  };

  TrainedModel(ModelConfig config, float rope_theta, const std::filesystem::path& file) : config_(std::move(config)) {
    config_.attention_scale = 1 / std::sqrt(static_cast<float>(config_.head_dim));
    config_.layer_options.resize(static_cast<size_t>(config_.layers));
    config_.ropes.resize(1);
    for (int i = 0; i < config_.head_dim / 2; ++i)
      config_.ropes[0].inv_freq.push_back(
          static_cast<float>(std::pow(double{rope_theta}, -2.0 * i / config_.head_dim)));
    Read(file);
    // A head of its own, whose columns can change alone.
    if (!matrices_.contains("lm_head.weight")) matrices_["lm_head.weight"] = matrices_["model.embed_tokens.weight"];
  }

  const ModelConfig& config() const { return config_; }

  // Outliers that change no result but by rounding: in each norm 0.5 % of the gains (one at least) times `scale`, the
  // columns of the matrices that read it divided by it.
  void AddOutliers(float scale) {
    const auto strengthen = [&](const std::string& norm, const std::vector<std::string>& readers) {
      Matrix& gain = matrices_.at(norm);
      const auto hidden = static_cast<int64_t>(gain.values.size());
      const auto count = std::max<int64_t>(1, (hidden + 100) / 200);
      for (int64_t i = 0; i < count; ++i) {
        const auto column = static_cast<int64_t>(PhiloxUniform(7, draws_++) * static_cast<double>(hidden));
        gain.values[static_cast<size_t>(column)] *= scale;
        for (const std::string& reader : readers) {
          Matrix& matrix = matrices_.at(reader);
          for (int64_t row = 0; row < matrix.rows; ++row)
            matrix.values[static_cast<size_t>(row * matrix.cols + column)] /= scale;
        }
      }
    };
    for (int32_t layer = 0; layer < config_.layers; ++layer) {
      const std::string at = "model.layers." + std::to_string(layer) + ".";
      const std::string q = at + "self_attn.q_proj.weight", k = at + "self_attn.k_proj.weight",
                        v = at + "self_attn.v_proj.weight";
      strengthen(at + "input_layernorm.weight", {q, k, v});
      strengthen(at + "post_attention_layernorm.weight", {at + "mlp.gate_proj.weight", at + "mlp.up_proj.weight"});
    }
    strengthen("model.norm.weight", {"lm_head.weight"});
  }

  // Writes everything into one file of f32; what the engine is told of it.
  std::vector<BaseTensor> Write(const std::string& path) const {
    std::vector<BaseTensor> tensors;
    std::ofstream file(path, std::ios::binary);
    int64_t offset = 0;
    for (const auto& [name, matrix] : matrices_) {
      const auto bytes = static_cast<int64_t>(matrix.values.size() * sizeof(float));
      const auto [role, layer] = RoleOf(name);
      tensors.push_back({role, layer, {0, offset, bytes, DType::kF32, matrix.rows, matrix.cols}});
      file.write(reinterpret_cast<const char*>(matrix.values.data()), bytes);
      offset += bytes;
    }
    return tensors;
  }

 private:
  static std::pair<WeightRole, int32_t> RoleOf(const std::string& name) {
    static const std::map<std::string, WeightRole> kOfModel = {{"model.embed_tokens.weight", WeightRole::kEmbed},
                                                               {"lm_head.weight", WeightRole::kHead},
                                                               {"model.norm.weight", WeightRole::kFinalNorm}};
    static const std::map<std::string, WeightRole> kOfLayer = {
        {"input_layernorm", WeightRole::kAttnNorm}, {"post_attention_layernorm", WeightRole::kMlpNorm},
        {"self_attn.q_proj", SiteRole(kQ)},         {"self_attn.k_proj", SiteRole(kK)},
        {"self_attn.v_proj", SiteRole(kV)},         {"self_attn.o_proj", SiteRole(kO)},
        {"mlp.gate_proj", SiteRole(kGate)},         {"mlp.up_proj", SiteRole(kUp)},
        {"mlp.down_proj", SiteRole(kDown)}};
    if (const auto found = kOfModel.find(name); found != kOfModel.end()) return {found->second, -1};
    const size_t number = std::string("model.layers.").size(), dot = name.find('.', number);
    const std::string module = name.substr(dot + 1, name.size() - dot - 1 - std::string(".weight").size());
    return {kOfLayer.at(module), std::stoi(name.substr(number, dot - number))};
  }
  static WeightRole SiteRole(LayerSite site) {
    return static_cast<WeightRole>(static_cast<int32_t>(WeightRole::kSite0) + site);
  }

  void Read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    for (const auto& [name, range] : SafetensorsHeader(path)) {
      Matrix matrix{range.rows, range.cols, {}};
      const SourceView view{content.data() + range.offset, range.dtype, range.rows, range.cols};
      for (int64_t i = 0; i < matrix.rows * matrix.cols; ++i) matrix.values.push_back(LoadUnaligned(view, i));
      matrices_[name] = std::move(matrix);
    }
  }

  ModelConfig config_;
  std::map<std::string, Matrix> matrices_;
  uint64_t draws_ = 0;
};

// Of demo/base.
inline ModelConfig DemoConfig() {
  ModelConfig config;
  config.layers = 4;
  config.hidden = 128;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.intermediate = 384;
  config.vocab = 260;
  config.context = 256;
  return config;
}

}  // namespace openlora
