// What quantised weights lose of a whole model: the mean Kullback-Leibler divergence of the next token's distribution
// from that of f32, beside the rules of llama.cpp's Q8_0 and Q4_0, on trained models as they are and with outliers put
// in.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
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

// Rows [rows, cols], the last group padded with zeros.
void RoundRows(std::vector<float>& values, int64_t cols, void (*round)(float* group)) {
  for (size_t row = 0; row < values.size(); row += static_cast<size_t>(cols))
    for (int64_t begin = 0; begin < cols; begin += 32) {
      float group[32] = {};
      const auto bytes = static_cast<size_t>(std::min<int64_t>(32, cols - begin)) * sizeof(float);
      std::memcpy(group, &values[row + static_cast<size_t>(begin)], bytes);
      round(group);
      std::memcpy(&values[row + static_cast<size_t>(begin)], group, bytes);
    }
}

// f32 arithmetic on what a rule leaves of weights and activations.
class RuleOps : public ScoringOps {
 public:
  // `round_weights` of the layers' matrices; embedding and head are Q8_0's. `round_kv` of K and V. Null: nothing is
  // rounded. `has_bf16_dots`: attention by them, whatever the weights are in.
  RuleOps(std::unique_ptr<Ops> ops, int64_t vocab, void (*round_weights)(float*), void (*round_kv)(float*),
          bool has_bf16_dots, Distributions* scored)
      : ScoringOps(std::move(ops), scored),
        vocab_(vocab),
        round_weights_(round_weights),
        round_kv_(round_kv),
        has_bf16_dots_(has_bf16_dots) {}

  void Pack(const SourceView& source, WeightFormat format, int64_t out, int64_t out_begin, void* packed) override {
    if (round_weights_ == nullptr) return ForwardingOps::Pack(source, format, out, out_begin, packed);
    std::vector<float> values;
    for (int64_t i = 0; i < source.rows * source.cols; ++i) values.push_back(LoadUnaligned(source, i));
    RoundRows(values, source.cols, out == vocab_ ? RoundQ8 : round_weights_);
    ForwardingOps::Pack({values.data(), DType::kF32, source.rows, source.cols}, format, out, out_begin, packed);
  }
  void Project(const ProjectArgs& args) override {
    if (round_weights_ == nullptr) return ForwardingOps::Project(args);
    std::vector<float> x;
    if (args.gate != nullptr) GatedActivation(args.gate->activation, args.x, args.gate->up);
    for (int64_t row = 0; row < args.x.rows; ++row) x.insert(x.end(), args.x.f32(row), args.x.f32(row) + args.x.cols);
    RoundRows(x, args.x.cols, RoundQ8);
    ProjectArgs rounded = args;
    rounded.gate = nullptr;
    rounded.x = F32View(x.data(), args.x.rows, args.x.cols);
    ForwardingOps::Project(rounded);
  }
  void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv,
                int32_t layer) override {
    if (round_kv_ == nullptr) return ForwardingOps::KvAppend(k, v, rows, Adapted(kv), layer);
    std::vector<float> rounded[2];
    for (int which = 0; which < 2; ++which) {
      const TensorView& from = which == 0 ? k : v;
      for (int64_t row = 0; row < rows.rows; ++row)
        rounded[which].insert(rounded[which].end(), from.f32(row), from.f32(row) + from.cols);
      RoundRows(rounded[which], from.cols, round_kv_);
    }
    ForwardingOps::KvAppend(F32View(rounded[0].data(), rows.rows, k.cols),
                            F32View(rounded[1].data(), rows.rows, k.cols), rows, kv, layer);
  }
  void Attention(const AttentionArgs& args) override {
    AttentionArgs adapted = args;
    adapted.kv = Adapted(args.kv);
    ForwardingOps::Attention(adapted);
  }

 private:
  KvView Adapted(KvView kv) const {
    kv.has_bf16_dots = kv.has_bf16_dots || has_bf16_dots_;
    return kv;
  }

  int64_t vocab_;
  void (*round_weights_)(float*);
  void (*round_kv_)(float*);
  bool has_bf16_dots_;
};

struct Rule {
  WeightFormat format = DType::kF32;
  void (*round_weights)(float*) = nullptr;
  DType kv = DType::kF32;
  void (*round_kv)(float*) = nullptr;
  bool has_bf16_dots = false;
};

std::unique_ptr<CoreDriver> Open(const TestFolder& folder, const TrainedModel& model, const Rule& rule,
                                 Distributions* scored) {
  EngineOptions options;
  options.model = model.config();
  options.model.is_tied = false;
  options.files = {folder.File("model.bin")};
  options.tensors = model.Write(options.files[0]);
  options.dtype = rule.format;
  options.kv_dtype = rule.kv;
  options.pool_bytes = 64 << 20;
  options.max_batch_tokens = 64;
  options.read_tokens = [vocab = options.model.vocab] {
    return TokenTable{{}, std::vector<uint32_t>(static_cast<size_t>(vocab) + 1)};
  };
  options.open_backend = [vocab = options.model.vocab, rule, scored](Backend* backend) {
    std::unique_ptr<Ops> ops;
    backend->device = std::make_unique<CpuDevice>();
    OPENLORA_RETURN_IF_ERROR(CreateCpuOps(SimdLevel::kAuto, 1, &ops));
    backend->ops =
        std::make_unique<RuleOps>(std::move(ops), vocab, rule.round_weights, rule.round_kv, rule.has_bf16_dots, scored);
    return Ok();
  };
  auto driver = std::make_unique<CoreDriver>(std::move(options));
  EXPECT_TRUE(driver->opened().ok()) << driver->opened().message();
  return driver;
}

// Texts that the model in f32 tells from its first token on.
std::vector<std::vector<int32_t>> Texts(const TestFolder& folder, const TrainedModel& model, int32_t first,
                                        int32_t tokens) {
  Distributions none;
  const auto driver = Open(folder, model, {}, &none);
  std::vector<std::vector<int32_t>> texts;
  for (int64_t id = 1; id <= BySize<int64_t>(1, 6, 20); ++id) {
    Request request;
    request.id = id;
    request.tokens = {first};
    request.max_tokens = tokens;
    request.temperature = 1;
    request.seed = static_cast<uint64_t>(id);
    driver->core().Submit(request);
    driver->Run();
    texts.push_back({first});
    const std::vector<int32_t>& drawn = driver->answer(id).tokens;
    texts.back().insert(texts.back().end(), drawn.begin(), drawn.end());
  }
  return texts;
}

// Of every position of the texts but the last.
Distributions Score(const TestFolder& folder, const TrainedModel& model, const Rule& rule,
                    const std::vector<std::vector<int32_t>>& texts) {
  Distributions scored;
  const auto driver = Open(folder, model, rule, &scored);
  int64_t id = 0;
  for (const std::vector<int32_t>& text : texts) {
    Request request;
    request.id = ++id;
    request.tokens = text;
    request.max_tokens = 1;
    request.prompt_logprobs = 0;
    driver->core().Submit(request);
    driver->Run();
    EXPECT_EQ(driver->answer(id).prompt_logprobs.size(), text.size() - 1);
  }
  return scored;
}

// K and V in int8 beside llama.cpp's Q8_0, whose groups of 32 are as long as a head of these models or longer. Its
// steps are ours but for scales that are rounded up to bf16, by 1/128 at the most: errors of 1.016 times the energy,
// and the divergence goes with the energy. The rest of the bound is chance: the two round differently, and a mean of
// squares of few strong tokens varies. Outliers (AddOutliers) leave K and V as they are.
void CompareKv(const std::function<Loss(const Rule&)>& loss, bool has_outliers) {
  if (has_outliers) return;
  const Loss int8 = loss({.kv = DType::kI8}), q8 = loss({.round_kv = RoundQ8}), bf16 = loss({.kv = DType::kBF16});
  std::printf("  KV: int8 %.3e, Q8_0 %.3e, bf16 %.3e\n", int8.divergence, q8.divergence, bf16.divergence);
  EXPECT_GT(int8.divergence, 0);
  if (IsSmall()) return;
  EXPECT_LE(int8.divergence, 1.016 * 1.25 * q8.divergence);
}

// Attention by bf16 dots rounds q as K is rounded, beside which it stands in a product, and the weights as V: twice the
// energy of errors, and the rest of the bound is chance, as in CompareKv.
void CompareDots(const std::function<Loss(const Rule&)>& loss, bool has_outliers) {
  if (has_outliers) return;
  const Loss kv = loss({.kv = DType::kBF16}), dots = loss({.kv = DType::kBF16, .has_bf16_dots = true});
  std::printf("  KV in bf16: %.3e, by dots %.3e\n", kv.divergence, dots.divergence);
  EXPECT_GT(dots.divergence, kv.divergence);
  if (IsSmall()) return;
  EXPECT_LE(dots.divergence, 2 * 1.25 * kv.divergence);
}

void Compare(const TrainedModel& trained, const std::string& name, int32_t first) {
  const TestFolder folder("quality");
  const auto texts = Texts(folder, trained, first, BySize(20, 200, 240));
  for (const float outliers : {1.0f, 20.0f, 100.0f}) {
    TrainedModel model = trained;
    if (outliers > 1) model.AddOutliers(outliers);
    const Distributions of_f32 = Score(folder, model, {}, texts);
    const auto loss = [&](const Rule& rule) { return LossOf(of_f32, Score(folder, model, rule, texts), texts); };
    const Loss none = loss({}), int8 = loss({WeightFormat::kInt8}), int4 = loss({WeightFormat::kInt4});
    const Loss q8 = loss({DType::kF32, RoundQ8}), q4 = loss({DType::kF32, RoundQ4});
    SCOPED_TRACE(testing::Message() << name << ", outliers x " << outliers);
    std::printf("%s, outliers x %g: perplexity f32 %.4f\n", name.c_str(), double{outliers}, none.perplexity);
    for (const auto& [what, of] : {std::pair{"int8", int8}, {"Q8_0", q8}, {"int4", int4}, {"Q4_0", q4}})
      std::printf("  %s: KL %.3e, perplexity %.4f\n", what, of.divergence, of.perplexity);
    EXPECT_EQ(none.divergence, 0);
    EXPECT_GT(q8.divergence, 0);
    CompareKv(loss, outliers > 1);
    CompareDots(loss, outliers > 1);
    const Loss by_dots = loss({.format = WeightFormat::kInt8, .kv = DType::kBF16});  // as int8 is by default
    std::printf("  int8 over KV in bf16: KL %.3e\n", by_dots.divergence);
    EXPECT_EQ(by_dots.divergence,
              loss({.format = WeightFormat::kInt8, .kv = DType::kBF16, .has_bf16_dots = true}).divergence);
    if (IsSmall()) continue;  // a score of tokens says little
    EXPECT_LE(int8.divergence, (outliers > 1 ? 0.6 : 1.35) * q8.divergence);
    EXPECT_LE(by_dots.divergence, (outliers > 1 ? 0.6 : 1.35) * q8.divergence);
    EXPECT_LE(int4.divergence, (outliers > 1 ? 1.0 : 0.8) * q4.divergence);
  }
}

TEST(Quality, OfTheDemosBaseIsThatOfQ8AndQ4OrBetter) {
  Compare(TrainedModel(DemoConfig(), 1000, RepositoryRoot() / "demo/base/model.safetensors"), "demo", 0);
}

TEST(Quality, OfATrainedModelIsThatOfQ8AndQ4OrBetter) {
  const auto file = RepositoryRoot() / "../shared/models/stories260K/hf/model.safetensors";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << file << " is not here";
  ModelConfig config;
  config.layers = 5;
  config.hidden = 64;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_dim = 8;
  config.intermediate = 172;
  config.vocab = 512;
  config.context = 512;
  Compare(TrainedModel(config, 10000, file), "stories260K", 1);
}

}  // namespace
}  // namespace openlora
