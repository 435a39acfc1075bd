// What int8 adapters lose of a whole model: the mean Kullback-Leibler divergence of the next token's distribution from
// that of the same base with the same adapter in f32, for the demo's trained adapters, beside the rule of llama.cpp's
// Q8_0 (groups of 32, f16 scales) on the same matrices, and beside what the adapter itself changes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>

#include "native/engine/core_driver.h"
#include "native/engine/tiny_model.h"
#include "native/llama_rules.h"
#include "native/model/scoring.h"
#include "native/model/trained_model.h"
#include "native/test_size.h"
#include "ops/cpu/cpu_device.h"
#include "ops/cpu/cpu_ops.h"

namespace openlora {
namespace {

enum class Held { kF32, kBF16, kInt8, kQ8, kNone };  // kNone: no adapter

// Rounds A and B to what Q8_0 leaves of groups of 32 columns of a rank.
class Q8TileOps : public ScoringOps {
 public:
  using ScoringOps::ScoringOps;
  void PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override {
    const std::vector<float> rounded = Rounded(values, stride, 1, ranks, columns);
    ScoringOps::PackTileA(rounded.data(), columns, ranks, columns, dtype, tile);
  }
  void PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override {
    const std::vector<float> rounded = Rounded(values, 1, stride, ranks, columns);
    std::vector<float> turned;
    for (int32_t c = 0; c < columns; ++c)
      for (int32_t r = 0; r < ranks; ++r) turned.push_back(rounded[static_cast<size_t>(r * columns + c)]);
    ScoringOps::PackTileB(turned.data(), ranks, ranks, columns, dtype, tile);
  }

 private:
  // [ranks, columns]; (r, c) is at r * rank_step + c * column_step.
  static std::vector<float> Rounded(const float* values, int64_t rank_step, int64_t column_step, int32_t ranks,
                                    int32_t columns) {
    std::vector<float> rounded;
    for (int32_t r = 0; r < ranks; ++r)
      for (int32_t begin = 0; begin < columns; begin += 32) {
        float group[32] = {};
        const int32_t count = std::min(32, columns - begin);
        for (int32_t i = 0; i < count; ++i) group[i] = values[r * rank_step + (begin + i) * column_step];
        RoundQ8(group);
        rounded.insert(rounded.end(), group, group + count);
      }
    return rounded;
  }
};

// What stands behind "key": in a JSON file.
std::string Behind(const std::filesystem::path& file, const std::string& key) {
  std::ifstream stream(file);
  const std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  return text.substr(text.find("\"" + key + "\": ") + key.size() + 4);
}

AdapterManifest DemoAdapter(const std::filesystem::path& folder) {
  static const std::map<std::string, LayerSite> kSites = {
      {"self_attn.q_proj", kQ}, {"self_attn.k_proj", kK}, {"self_attn.v_proj", kV}, {"self_attn.o_proj", kO},
      {"mlp.gate_proj", kGate}, {"mlp.up_proj", kUp},     {"mlp.down_proj", kDown}};
  const std::filesystem::path file = folder / "adapter_model.safetensors", config = folder / "adapter_config.json";
  const float alpha = std::stof(Behind(config, "lora_alpha"));
  const bool is_rslora = Behind(config, "use_rslora").starts_with("true");
  const std::map<std::string, TensorRange> tensors = SafetensorsHeader(file);
  AdapterManifest manifest;
  manifest.files = {file.string()};
  const auto add = [&](int32_t site, const std::string& module, const std::string& a, const std::string& b) {
    const auto of_a = tensors.find("base_model.model." + module + a);
    if (of_a == tensors.end()) return;
    const auto rank = static_cast<float>(of_a->second.rows);
    manifest.sites.push_back({site, static_cast<int32_t>(rank), alpha / (is_rslora ? std::sqrt(rank) : rank),
                              of_a->second, tensors.at("base_model.model." + module + b)});
  };
  for (int32_t layer = 0; layer < DemoConfig().layers; ++layer)
    for (const auto& [module, site] : kSites)
      add(SiteOf(layer, site), "model.layers." + std::to_string(layer) + "." + module, ".lora_A.weight",
          ".lora_B.weight");
  add(HeadSite(DemoConfig()), "lm_head", ".lora_A.weight", ".lora_B.weight");
  add(EmbedSite(DemoConfig()), "model.embed_tokens", ".lora_embedding_A", ".lora_embedding_B");
  std::sort(manifest.sites.begin(), manifest.sites.end(),
            [](const AdapterSite& x, const AdapterSite& y) { return x.site < y.site; });
  EXPECT_EQ(tensors.size(), 2 * manifest.sites.size());
  return manifest;
}

std::vector<std::filesystem::path> DemoAdapters() {
  std::vector<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(RepositoryRoot() / "demo/adapters"))
    folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  if (IsSmall()) folders.resize(2);
  return folders;
}

std::unique_ptr<CoreDriver> Open(const TestFolder& folder, const TrainedModel& model, Held held,
                                 Distributions* scored) {
  EngineOptions options;
  options.model = model.config();
  options.model.is_tied = false;
  options.files = {folder.File("model.bin")};
  options.tensors = model.Write(options.files[0]);
  options.adapter_dtype = held == Held::kInt8 ? DType::kI8 : held == Held::kBF16 ? DType::kBF16 : DType::kF32;
  options.pool_bytes = 64 << 20;
  options.max_batch_tokens = 64;
  options.read_tokens = [vocab = options.model.vocab] {
    return TokenTable{{}, std::vector<uint32_t>(static_cast<size_t>(vocab) + 1)};
  };
  options.open_backend = [held, scored](Backend* backend) {
    std::unique_ptr<Ops> ops;
    backend->device = std::make_unique<CpuDevice>();
    OPENLORA_RETURN_IF_ERROR(CreateCpuOps(SimdLevel::kAuto, 1, &ops));
    if (held == Held::kQ8) {
      backend->ops = std::make_unique<Q8TileOps>(std::move(ops), scored);
    } else {
      backend->ops = std::make_unique<ScoringOps>(std::move(ops), scored);
    }
    return Ok();
  };
  auto driver = std::make_unique<CoreDriver>(std::move(options));
  EXPECT_TRUE(driver->opened().ok()) << driver->opened().message();
  int64_t handle = 0;
  for (const std::filesystem::path& path : DemoAdapters()) {
    driver->Register(++handle, DemoAdapter(path));
    EXPECT_EQ(driver->adapter_events()[handle], "ready");
  }
  return driver;
}

struct Text {
  int64_t adapter;
  std::vector<int32_t> tokens;
};

// That each adapter tells in f32.
std::vector<Text> Texts(const TestFolder& folder, const TrainedModel& model) {
  Distributions none;
  const auto driver = Open(folder, model, Held::kF32, &none);
  std::vector<Text> texts;
  for (size_t adapter = 1; adapter <= DemoAdapters().size(); ++adapter)
    for (int i = 0; i < BySize(1, 4, 20); ++i) {
      Request request;
      request.id = static_cast<int64_t>(texts.size()) + 1;
      request.tokens = {0};
      request.adapters = {{static_cast<int64_t>(adapter), 1.0f}};
      request.max_tokens = BySize(10, 100, 200);
      request.temperature = 1;
      request.seed = static_cast<uint64_t>(request.id);
      driver->core().Submit(request);
      driver->Run();
      Text text{static_cast<int64_t>(adapter), {0}};
      const std::vector<int32_t>& drawn = driver->answer(request.id).tokens;
      text.tokens.insert(text.tokens.end(), drawn.begin(), drawn.end());
      texts.push_back(std::move(text));
    }
  return texts;
}

Distributions Score(const TestFolder& folder, const TrainedModel& model, Held held, const std::vector<Text>& texts) {
  Distributions scored;
  const auto driver = Open(folder, model, held, &scored);
  int64_t id = 0;
  for (const Text& text : texts) {
    Request request;
    request.id = ++id;
    request.tokens = text.tokens;
    if (held != Held::kNone) request.adapters = {{text.adapter, 1.0f}};
    request.max_tokens = 1;
    request.prompt_logprobs = 0;
    driver->core().Submit(request);
    driver->Run();
    EXPECT_EQ(driver->answer(id).prompt_logprobs.size(), text.tokens.size() - 1);
  }
  return scored;
}

TEST(AdapterQuality, OfTheDemosAdaptersInInt8IsThatOfQ8) {
  const TestFolder folder("adapter-quality");
  const TrainedModel model(DemoConfig(), 1000, RepositoryRoot() / "demo/base/model.safetensors");
  const std::vector<Text> texts = Texts(folder, model);
  std::vector<std::vector<int32_t>> tokens;
  for (const Text& text : texts) tokens.push_back(text.tokens);
  const Distributions of_f32 = Score(folder, model, Held::kF32, texts);
  const auto divergence = [&](Held held) {
    return LossOf(of_f32, Score(folder, model, held, texts), tokens).divergence;
  };
  const double int8 = divergence(Held::kInt8), q8 = divergence(Held::kQ8), none = divergence(Held::kNone);
  std::printf("KL from f32 adapters: int8 %.3e, Q8_0 %.3e, no adapter %.3e\n", int8, q8, none);
  EXPECT_LE(std::abs(divergence(Held::kBF16)), 1e-7);  // as they were saved; pairs are added in another order
  EXPECT_GT(int8, 0);
  if (IsSmall()) return;  // a score of tokens says little
  EXPECT_LE(int8, 1.15 * q8);
  EXPECT_LE(int8, 1e-4 * none);
}

}  // namespace
}  // namespace openlora
