// The table of a base's tensors, a config and limits into ModelWeights and EngineCore::Open: what doesn't fit its files
// or its config is refused by a code, and what is packed is what the files hold.

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "engine/engine_core.h"
#include "fuzz/fuzz_input.h"
#include "fuzz/memory_file.h"
#include "ops/cpu/cpu_device.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/reference/reference_ops.h"

namespace openlora::fuzz {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

// What an input describes.
struct Case {
  ModelConfig config;
  std::vector<BaseTensor> tensors;
  std::vector<std::vector<uint8_t>> contents;
  std::vector<std::unique_ptr<MemoryFile>> files;
  DType dtype = DType::kF32;

  std::vector<std::string> paths() const {
    std::vector<std::string> paths;
    for (const auto& file : files) paths.push_back(file->path());
    return paths;
  }
};

void SpoilConfig(FuzzInput* input, ModelConfig* config) {
  if (input->OneIn(4)) {
    int32_t* const sizes[] = {&config->layers,   &config->hidden,   &config->heads,
                              &config->kv_heads, &config->head_dim, &config->intermediate,
                              &config->vocab,    &config->context,  &config->rope_switch};
    *input->Pick(sizes) = input->Any<int32_t>();
  }
  if (input->OneIn(8)) {
    float* const scales[] = {&config->norm_eps,       &config->attention_scale, &config->attention_soft_cap,
                             &config->residual_scale, &config->logit_scale,     &config->logit_soft_cap};
    *input->Pick(scales) = input->Any<float>();
  }
  if (input->OneIn(8) && !config->ropes.empty())
    config->ropes.back().inv_freq.resize(input->Byte(), input->Any<float>());
  if (input->OneIn(8) && !config->layer_options.empty()) config->layer_options.back().rope = input->Range(-2, 3);
}

ModelConfig ReadConfig(FuzzInput* input) {
  ModelConfig config;
  config.layers = input->Range(1, 2);
  config.hidden = input->Range(1, 40);
  config.kv_heads = input->Range(1, 2);
  config.heads = config.kv_heads * input->Range(1, 2);
  config.head_dim = input->Range(1, 12);
  config.intermediate = input->Range(1, 40);
  config.vocab = input->Range(1, 70);
  config.context = input->Range(1, 64);
  const uint8_t options = input->Byte();
  config.is_tied = (options & 1) != 0;
  config.is_fused = (options & 2) != 0;
  config.has_pre_norms = (options & 4) == 0;
  config.has_post_norms = (options & 8) != 0;
  constexpr QkNorm kQkNorms[] = {QkNorm::kNone, QkNorm::kHead, QkNorm::kAll, QkNorm::kNone};
  config.qk_norm = kQkNorms[options >> 4 & 3];
  config.rope_switch = (options & 64) != 0 ? input->Range(0, 2) : 0;
  const std::vector<float> inv_freq(static_cast<size_t>(input->Range(0, config.head_dim / 2)), 0.5f);
  if (!inv_freq.empty())
    config.ropes.assign(static_cast<size_t>(input->Range(1, 3)),
                        {inv_freq, config.rope_switch > 0 ? inv_freq : std::vector<float>(), 1});
  for (int32_t layer = 0; layer < config.layers; ++layer)
    config.layer_options.push_back({input->OneIn(3) ? input->Range(-1, 20) : 0, config.ropes.empty() ? -1 : 0});
  SpoilConfig(input, &config);
  return config;
}

constexpr int32_t kSites = 9, kSite0 = 9, kBias0 = kSite0 + kSites, kRolesEnd = kBias0 + kSites;

bool IsMatrixRole(int32_t role) { return role < 2 || (role >= kSite0 && role < kBias0); }

// [in, out] by role, written down from the architecture once more; nothing for what such a model hasn't.
std::optional<SiteShape> WantedShape(const ModelConfig& c, int32_t role) {
  const int64_t q = int64_t{c.heads} * c.head_dim, kv = int64_t{c.kv_heads} * c.head_dim;
  if (role < 0 || role >= kRolesEnd) return std::nullopt;
  if (role == 0 || (role == 1 && !c.is_tied)) return SiteShape{c.hidden, c.vocab};
  if (role == 2 || (role < 5 && role > 2 && c.has_pre_norms) || ((role == 5 || role == 6) && c.has_post_norms))
    return SiteShape{c.hidden, 1};
  if (role == 7 && c.qk_norm != QkNorm::kNone) return SiteShape{c.qk_norm == QkNorm::kAll ? q : c.head_dim, 1};
  if (role == 8 && c.qk_norm != QkNorm::kNone) return SiteShape{c.qk_norm == QkNorm::kAll ? kv : c.head_dim, 1};
  if (role < kSite0) return std::nullopt;
  const SiteShape apart[] = {{c.hidden, q},
                             {c.hidden, kv},
                             {c.hidden, kv},
                             {q, c.hidden},
                             {c.hidden, c.intermediate},
                             {c.hidden, c.intermediate},
                             {c.intermediate, c.hidden},
                             {},
                             {}};
  const SiteShape fused[] = {{},
                             {},
                             {},
                             {q, c.hidden},
                             {},
                             {},
                             {c.intermediate, c.hidden},
                             {c.hidden, q + 2 * kv},
                             {c.hidden, int64_t{2} * c.intermediate}};
  const SiteShape& site = (c.is_fused ? fused : apart)[(role - kSite0) % kSites];
  if (site.in == 0) return std::nullopt;
  return role < kBias0 ? site : SiteShape{site.out, 1};
}

void AddTensor(FuzzInput* input, Case* test, int32_t role, int32_t layer, std::vector<int64_t>* sizes) {
  const SiteShape shape = *WantedShape(test->config, role);
  TensorRange range;
  range.file = input->Range(0, static_cast<int32_t>(sizes->size()) - 1);
  range.dtype = input->Pick(kDTypes);
  range.rows = IsMatrixRole(role) ? shape.out : 1;
  range.cols = shape.in;
  range.bytes = range.rows * range.cols * static_cast<int64_t>(SizeOf(range.dtype));
  int64_t& size = (*sizes)[static_cast<size_t>(range.file)];
  range.offset = size + (input->OneIn(8) ? 1 : 0);
  size = range.offset + range.bytes;
  test->tensors.push_back({static_cast<WeightRole>(role), layer, range});
}

void SpoilTensor(FuzzInput* input, Case* test) {
  if (test->tensors.empty()) return;
  const size_t index = input->Any<uint16_t>() % test->tensors.size();
  BaseTensor& tensor = test->tensors[index];
  int64_t* const longs[] = {&tensor.range.offset, &tensor.range.bytes, &tensor.range.rows, &tensor.range.cols};
  switch (input->Byte() % 7) {
    case 0:
      *input->Pick(longs) = input->Any<int64_t>();
      break;
    case 1:
      *input->Pick(longs) += input->Range(-4, 4);
      break;
    case 2:
      tensor.range.file = input->Range(-2, 3);
      break;
    case 3:
      tensor.role = static_cast<WeightRole>(input->Range(-3, kRolesEnd + 2));
      break;
    case 4:
      tensor.layer = input->Bool() ? input->Range(-2, 3) : input->Any<int32_t>();
      break;
    case 5:
      test->tensors.erase(test->tensors.begin() + static_cast<std::ptrdiff_t>(index));
      break;
    default:
      test->tensors.push_back(BaseTensor(tensor));
  }
}

Case ReadCase(FuzzInput* input) {
  Case test;
  test.config = ReadConfig(input);
  test.dtype = input->Pick(kDTypes);
  std::vector<FuzzInput> spoilers;
  for (int count = input->Range(0, 5) - 1; count > 0; --count) spoilers.push_back(input->Part(12));
  std::vector<int64_t> sizes(static_cast<size_t>(input->Range(1, 2)));
  const ModelConfig& c = test.config;
  // A config that was spoiled has a table for no more than two small layers: what isn't there is missing.
  const auto is_small = [&] {
    return c.layers <= 2 && c.hidden <= 40 && c.heads <= 4 && c.kv_heads <= 2 && c.head_dim <= 12 &&
           c.intermediate <= 40 && c.vocab <= 70;
  };
  if (is_small() && CheckConfig(c).ok()) {
    for (int32_t layer = -1; layer < c.layers; ++layer) {
      for (int32_t role = layer < 0 ? 0 : 3; role < (layer < 0 ? 3 : kRolesEnd); ++role) {
        const bool is_left_out = role >= kBias0 && role % 4 != 0;  // no bias is needed
        if (WantedShape(c, role) && !is_left_out) AddTensor(input, &test, role, layer, &sizes);
      }
    }
  }
  for (FuzzInput& spoiler : spoilers) SpoilTensor(&spoiler, &test);
  for (int64_t size : sizes) {
    if (input->OneIn(4)) size = std::max<int64_t>(0, size + input->Range(-3, 3));
    test.contents.push_back(FiniteBytes(static_cast<size_t>(size), input->Any<uint32_t>()));
    test.files.push_back(std::make_unique<MemoryFile>(test.contents.back()));
  }
  return test;
}

bool IsSound(const Case& test, const BaseTensor& tensor) {
  const TensorRange& r = tensor.range;
  const auto role = static_cast<int32_t>(tensor.role);
  if (r.file < 0 || static_cast<size_t>(r.file) >= test.contents.size() || r.rows < 1 || r.cols < 1) return false;
  const int64_t element = r.dtype == DType::kF32 ? 4 : 2;
  const __int128 end = __int128{r.offset} + r.bytes;
  if (__int128{r.rows} * r.cols != r.bytes / element || r.bytes % element != 0 || r.offset < 0 ||
      end > static_cast<__int128>(test.contents[static_cast<size_t>(r.file)].size()))
    return false;
  const std::optional<SiteShape> shape = WantedShape(test.config, role);
  if (!shape || (role < 3 ? tensor.layer >= 0 : tensor.layer < 0 || tensor.layer >= test.config.layers)) return false;
  if (IsMatrixRole(role)) return r.rows == shape->out && r.cols == shape->in;
  return r.rows * r.cols == shape->in;
}

bool IsCoded(const Status& status) {
  return std::string(status.code()).starts_with("ERR_") && !status.message().empty();
}

float ValueIn(const Case& test, const TensorRange& range, int64_t index) {
  const std::vector<uint8_t>& content = test.contents[static_cast<size_t>(range.file)];
  return LoadUnaligned({content.data() + range.offset, range.dtype, range.rows, range.cols}, index);
}

const float* VectorOf(const ModelWeights& weights, const LayerWeights* layer, int32_t role) {
  if (role == 2) return weights.final_norm();
  const float* const norms[] = {layer->attn_norm,     layer->mlp_norm, layer->attn_post_norm,
                                layer->mlp_post_norm, layer->q_norm,   layer->k_norm};
  return role < kSite0 ? norms[role - 3] : layer->sites[static_cast<size_t>(role - kBias0)].bias;
}

// Of two tensors with one role, the later one counts.
void CheckPacked(const Case& test, const ModelWeights& weights) {
  std::set<std::pair<int32_t, int32_t>> seen;
  for (auto tensor = test.tensors.rbegin(); tensor != test.tensors.rend(); ++tensor) {
    const auto role = static_cast<int32_t>(tensor->role);
    if (!seen.insert({role, std::max(tensor->layer, -1)}).second) continue;
    const LayerWeights* layer = role < 3 ? nullptr : &weights.layers()[static_cast<size_t>(tensor->layer)];
    const int64_t count = tensor->range.rows * tensor->range.cols;
    if (!IsMatrixRole(role)) {
      const float* packed = VectorOf(weights, layer, role);
      const float offset = role < kSite0 ? test.config.norm_offset : 0, scale = role == 2 ? test.config.logit_scale : 1;
      for (int64_t i = 0; i < count; ++i)
        FUZZ_CHECK(packed[i] == (ValueIn(test, tensor->range, i) + offset) * scale, "role %d, value %lld", role,
                   static_cast<long long>(i));
      continue;
    }
    const Weight& weight = role == 0   ? weights.embed()
                           : role == 1 ? weights.head()
                                       : layer->sites[static_cast<size_t>(role - kSite0)];
    for (int64_t i = 0; i < count; ++i) {
      float wanted = 0;
      StoreFromFloat(&wanted, test.dtype, 0, ValueIn(test, tensor->range, i));
      FUZZ_CHECK(LoadAsFloat(weight.data, test.dtype, i) == LoadAsFloat(&wanted, test.dtype, 0), "role %d, value %lld",
                 role, static_cast<long long>(i));
    }
  }
}

bool IsComplete(const Case& test) {
  std::set<std::pair<int32_t, int32_t>> found;
  for (const BaseTensor& tensor : test.tensors)
    found.insert({static_cast<int32_t>(tensor.role), std::max(tensor.layer, -1)});
  for (int32_t layer = -1; layer < test.config.layers; ++layer) {
    for (int32_t role = layer < 0 ? 0 : 3; role < (layer < 0 ? 3 : kBias0); ++role) {
      if (WantedShape(test.config, role) && !found.contains({role, layer})) return false;
    }
  }
  return true;
}

void LoadWeights(const Case& test) {
  const std::unique_ptr<Ops> ops = CreateReferenceOps();
  ModelWeights weights;
  const Status opened = weights.Open(test.config, test.paths(), test.tensors, test.dtype, *ops);
  const bool is_sound =
      CheckConfig(test.config).ok() &&
      std::all_of(test.tensors.begin(), test.tensors.end(), [&](const BaseTensor& t) { return IsSound(test, t); });
  FUZZ_CHECK(opened.ok() == is_sound, "%s", opened.message().c_str());
  FUZZ_CHECK(opened.ok() || IsCoded(opened), "%s", opened.code());
  if (!opened.ok() || weights.bytes() == 0) return;
  // Not pages but a block of exactly that size: AddressSanitizer sees its ends.
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(4096, static_cast<size_t>(weights.bytes())),
                                                      std::free);
  const std::atomic<bool> is_cancelled{false};
  LoadProgress last;
  const Status loaded =
      weights.Load(memory.get(), ops.get(), [&](LoadProgress progress) { last = progress; }, is_cancelled);
  FUZZ_CHECK(loaded.ok() == IsComplete(test), "%s", loaded.message().c_str());
  FUZZ_CHECK(last.bytes_done <= last.bytes_total, "progress beyond its end");
  if (loaded.ok()) CheckPacked(test, weights);
}

EngineOptions ReadOptions(FuzzInput* input, const Case& test) {
  EngineOptions options;
  options.model = test.config;
  options.files = test.paths();
  options.tensors = test.tensors;
  options.dtype = input->OneIn(3) ? WeightFormat(WeightFormat::kInt8) : WeightFormat(test.dtype);
  options.kv_dtype = input->OneIn(4) ? DType::kI8 : input->Pick(kDTypes);
  options.adapter_dtype = input->Pick(kDTypes);
  options.pool_bytes = input->OneIn(4) ? input->Any<int64_t>() | (int64_t{1} << 50) : input->Range(0, 255) * 4096;
  options.max_context = input->OneIn(4) ? input->Any<int32_t>() : input->Range(0, 80);
  options.max_batch_tokens = input->OneIn(8) ? input->Range(-1, 0) : input->Range(1, 64);
  options.max_queued = input->Range(0, 3);
  options.poisons_freed = options.checks_invariants = true;
  const int32_t offsets = input->OneIn(4) ? input->Range(0, 80) : std::clamp(test.config.vocab, 0, 200) + 1;
  TokenTable tokens;
  for (uint32_t i = 0; i < static_cast<uint32_t>(offsets); ++i) tokens.offsets.push_back(i);
  tokens.bytes.assign(static_cast<size_t>(std::max(0, offsets - (input->OneIn(4) ? 2 : 1))), 'a');
  if (!tokens.offsets.empty() && input->OneIn(8))
    tokens.offsets[input->Byte() % tokens.offsets.size()] = input->Any<uint32_t>();
  options.read_tokens = [tokens] { return tokens; };
  options.open_backend = [](Backend* backend) {
    backend->device = std::make_unique<CpuDevice>();
    return CreateCpuOps(SimdLevel::kScalar, 1, &backend->ops);
  };
  return options;
}

void OpenEngine(FuzzInput* input, const Case& test) {
  Outbox outbox([] {});
  EngineCore core(ReadOptions(input, test), &outbox);
  const std::atomic<bool> is_aborted{false};
  const Status opened = core.Open(is_aborted);
  FUZZ_CHECK(opened.ok() || IsCoded(opened), "%s", opened.code());
  if (!opened.ok()) return;
  Request request;
  request.id = 1;
  request.tokens = {test.config.vocab - 1};
  request.max_tokens = 3;
  core.Submit(request);
  for (int step = 0; core.requests() > 0; ++step) {
    FUZZ_CHECK(step < 10, "a request of three tokens takes more than ten steps");
    core.Step();
  }
  const Status sound = core.CheckInvariants();
  FUZZ_CHECK(sound.ok(), "%s", sound.message().c_str());
  core.Close(Status(kErrClosed, "the end"));
}

}  // namespace
}  // namespace openlora::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  openlora::fuzz::FuzzInput input(data, size);
  const openlora::fuzz::Case test = openlora::fuzz::ReadCase(&input);
  openlora::fuzz::LoadWeights(test);
  openlora::fuzz::OpenEngine(&input, test);
  return 0;
}
