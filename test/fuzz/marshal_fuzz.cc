// What JavaScript hands over, through the readers of cpp/napi/marshal.cc. A model written down once more from the wire
// types (marshal_model.h) says which objects are sound: those are read without an error, value by value, and of others
// the error names a field at fault. What a getter throws stays pending, nothing is read after it, and nothing twice.

#include "fuzz/marshal_objects.h"
#include "napi/marshal.h"

namespace openlora::fuzz {
namespace {

using Rows = std::vector<std::vector<double>>;

const Fields kRange = {
    {"file", Type::kInt32}, {"offset", Type::kLong},
    {"bytes", Type::kLong}, {"dtype", Type::kEnum, {"f32", "f16", "bf16"}},
    {"rows", Type::kLong},  {"cols", Type::kLong},
};

Fields WithRange(Fields columns) {
  columns.insert(columns.end(), kRange.begin(), kRange.end());
  return columns;
}

const std::vector<const char*> kSites = {"q_proj",  "k_proj",    "v_proj",   "o_proj",      "gate_proj",
                                         "up_proj", "down_proj", "qkv_proj", "gate_up_proj"};

std::vector<const char*> Roles() {
  std::vector<const char*> roles = {"embed_tokens",   "lm_head",       "final_norm", "attn_norm", "mlp_norm",
                                    "attn_post_norm", "mlp_post_norm", "q_norm",     "k_norm"};
  for (int twice = 0; twice < 2; ++twice) roles.insert(roles.end(), kSites.begin(), kSites.end());
  return roles;
}

const Fields kBaseTensor = WithRange({{"role", Type::kEnum, Roles()}, {"layer", Type::kInt32}});
const Fields kAdapterTensor = WithRange({{"site", Type::kInt32}, {"matrix", Type::kEnum, {"A", "B"}}});
const Fields kAdapterSite = {{"site", Type::kInt32}, {"rank", Type::kInt32}, {"scale", Type::kFloat}};

const Fields kModel = {
    {"layers", Type::kInt32},
    {"hidden", Type::kInt32},
    {"heads", Type::kInt32},
    {"kvHeads", Type::kInt32},
    {"headDim", Type::kInt32},
    {"intermediate", Type::kInt32},
    {"vocab", Type::kInt32},
    {"context", Type::kInt32},
    {"normEps", Type::kFloat},
    {"attentionScale", Type::kFloat},
    {"attentionSoftCap", Type::kFloat},
    {"embeddingScale", Type::kFloat},
    {"residualScale", Type::kFloat},
    {"logitScale", Type::kFloat},
    {"logitSoftCap", Type::kFloat},
    {"normOffset", Type::kFloat},
    {"activation", Type::kName, {"silu", "gelu_tanh"}},
    {"qkNorm", Type::kName, {"none", "head", "all"}},
    {"hasPreNorms", Type::kBool},
    {"hasPostNorms", Type::kBool},
    {"isFused", Type::kBool},
    {"ropes",
     Type::kObjects,
     {},
     {{"invFreq", Type::kFloats}, {"longInvFreq", Type::kFloats}, {"factor", Type::kFloat}}},
    {"ropeSwitch", Type::kInt32},
    {"layerOptions", Type::kObjects, {}, {{"window", Type::kInt32}, {"rope", Type::kInt32}}},
    {"isTied", Type::kBool},
};

const Fields kOpen = {
    {"model", Type::kObject, {}, kModel},
    {"files", Type::kTexts},
    {"tensors", Type::kTable, {}, kBaseTensor},
    {"cacheDir", Type::kText},
    {"adapterDir", Type::kText},
    {"tokenBytes", Type::kBytes},
    {"tokenOffsets", Type::kWords},
    {"dtype", Type::kName, {"f32", "f16", "bf16", "int8", "int4", "bf16-dot"}},
    {"kvDtype", Type::kName, {"f32", "f16", "bf16", "int8"}},
    {"adapterDtype", Type::kName, {"f32", "f16", "bf16", "int8"}},
    {"device", Type::kText},
    {"cudaImages", Type::kText},
    {"simd", Type::kText},
    {"threads", Type::kInt32},
    {"prefixCache", Type::kBool},
    {"limits",
     Type::kObject,
     {},
     {{"poolBytes", Type::kLong},
      {"adapterDiskBytes", Type::kLong},
      {"hostAdapterBytes", Type::kLong},
      {"pinnedAdapterBytes", Type::kLong},
      {"maxContext", Type::kInt32},
      {"maxBatchTokens", Type::kInt32},
      {"maxStepMs", Type::kInt32},
      {"maxQueued", Type::kInt32},
      {"maxQueuedPerTenant", Type::kInt32},
      {"batchLoraBytes", Type::kLong}}},
};

const Fields kAdapter = {
    {"handle", Type::kLong},
    {"files", Type::kTexts},
    {"headerDigests", Type::kTexts},
    {"tensors", Type::kTable, {}, kAdapterTensor},
    {"sites", Type::kTable, {}, kAdapterSite},
    {"baseTensors", Type::kTable, {}, kBaseTensor},
    {"baseTensorNames", Type::kTexts},
    {"canonicalConfig", Type::kBytes},
};

const Fields kRequest = {
    {"id", Type::kId},
    {"tokens", Type::kTokens},
    {"adapters", Type::kObjects, {}, {{"handle", Type::kLong}, {"weight", Type::kFloat}}},
    {"maxTokens", Type::kInt32},
    {"minTokens", Type::kInt32},
    {"temperature", Type::kFloat},
    {"topK", Type::kInt32},
    {"topP", Type::kFloat},
    {"minP", Type::kFloat},
    {"repetitionPenalty", Type::kFloat},
    {"presencePenalty", Type::kFloat},
    {"frequencyPenalty", Type::kFloat},
    {"biasTokens", Type::kTokens},
    {"biasValues", Type::kFloats},
    {"seed", Type::kSeed},
    {"stop", Type::kStops},
    {"stopTokens", Type::kInt32s},
    {"eosTokens", Type::kInt32s},
    {"logprobs", Type::kInt32},
    {"promptLogprobs", Type::kInt32},
    {"tenant", Type::kText},
    {"cacheSalt", Type::kText},
    {"priority", Type::kInt32},
    {"deadlineMs", Type::kNumber},
};

// ---- What the structs hold, in the order of the fields ----

void Write(const ModelConfig& m, Content* content) {
  for (const int32_t size : {m.layers, m.hidden, m.heads, m.kv_heads, m.head_dim, m.intermediate, m.vocab, m.context})
    content->Whole(size);
  for (const float number : {m.norm_eps, m.attention_scale, m.attention_soft_cap, m.embedding_scale, m.residual_scale,
                             m.logit_scale, m.logit_soft_cap, m.norm_offset})
    content->Float(number);
  content->Text(m.activation == Activation::kSilu ? "silu" : "gelu_tanh");
  content->Text(m.qk_norm == QkNorm::kNone ? "none" : m.qk_norm == QkNorm::kHead ? "head" : "all");
  for (const bool has : {m.has_pre_norms, m.has_post_norms, m.is_fused}) content->Whole(has ? 1 : 0);
  content->Whole(static_cast<int64_t>(m.ropes.size()));
  for (const RopeOptions& rope : m.ropes) {
    content->Floats(rope.inv_freq);
    content->Floats(rope.long_inv_freq);
    content->Float(rope.factor);
  }
  content->Whole(m.rope_switch);
  content->Whole(static_cast<int64_t>(m.layer_options.size()));
  for (const auto& [window, rope] : m.layer_options) {
    content->Whole(window);
    content->Whole(rope);
  }
  content->Whole(m.is_tied ? 1 : 0);
}

Content ContentOf(const OpenArguments& open) {
  Content content;
  const EngineOptions& options = open.options;
  Write(options.model, &content);
  content.Texts(options.files);
  content.Text(options.cache_dir);
  content.Text(options.adapter_dir);
  const TokenTable tokens = options.read_tokens();
  content.Wholes(tokens.bytes);
  content.Wholes(tokens.offsets);
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "int8", "int4", "bf16-dot"};
  content.Text(kNames[static_cast<size_t>(options.dtype.kind)]);
  content.Text(kNames[static_cast<size_t>(options.kv_dtype)]);
  content.Text(kNames[static_cast<size_t>(options.adapter_dtype)]);
  content.Text(open.backend.device);
  content.Text(open.backend.cuda_images);
  content.Text(open.backend.simd);
  content.Whole(open.backend.threads);
  content.Whole(options.has_prefix_cache ? 1 : 0);
  for (const int64_t bytes :
       {options.pool_bytes, options.adapter_disk_bytes, options.host_adapter_bytes, options.pinned_adapter_bytes})
    content.Whole(bytes);
  const auto step_ms = static_cast<int32_t>(options.max_step_ms);
  for (const int32_t limit :
       {options.max_context, options.max_batch_tokens, step_ms, options.max_queued, options.max_queued_per_tenant})
    content.Whole(limit);
  content.Whole(options.batch_lora_bytes);
  return content;
}

Content ContentOf(int64_t handle, const AdapterManifest& manifest) {
  Content content;
  content.Whole(handle);
  content.Texts(manifest.files);
  content.Texts(manifest.header_digests);
  content.Whole(static_cast<int64_t>(manifest.base_tensors.size()));
  for (const SavedBaseTensor& tensor : manifest.base_tensors) content.Text(tensor.name);
  const auto* config = reinterpret_cast<const uint8_t*>(manifest.canonical_config.data());
  content.Wholes(std::vector<uint8_t>(config, config + manifest.canonical_config.size()));
  return content;
}

Content ContentOf(const Request& r) {
  Content content;
  content.Whole(r.id);
  content.Wholes(r.tokens);
  content.Whole(static_cast<int64_t>(r.adapters.size()));
  for (const auto& [handle, weight] : r.adapters) {
    content.Whole(handle);
    content.Float(weight);
  }
  content.Whole(r.max_tokens);
  content.Whole(r.min_tokens);
  content.Float(r.temperature);
  content.Whole(r.top_k);
  for (const float number : {r.top_p, r.min_p, r.repetition_penalty, r.presence_penalty, r.frequency_penalty})
    content.Float(number);
  std::vector<int32_t> tokens;
  std::vector<float> values;
  for (const auto& [token, bias] : r.logit_bias) {
    tokens.push_back(token);
    values.push_back(bias);
  }
  content.Wholes(tokens);
  content.Floats(values);
  content.Whole(static_cast<int64_t>(r.seed));
  content.Texts(r.stop);
  content.Wholes(r.stop_tokens);
  content.Wholes(r.eos_tokens);
  for (const int32_t number : {r.logprobs, r.prompt_logprobs}) content.Whole(number);
  content.Text(r.tenant);
  content.Text(r.cache_salt);
  content.Whole(r.priority);
  content.Real(r.deadline_ms);
  return content;
}

// Columns 2 to 7 of a row of tensors; null: none.
void CheckRange(const TensorRange& range, const std::vector<double>* row) {
  const TensorRange none{-1, 0, 0, DType::kF32, 0, 0};
  Content expected, got;
  for (size_t i = 2; row != nullptr && i < 8; ++i) expected.Whole(static_cast<int64_t>((*row)[i]));
  for (const TensorRange* r : {&range, &none}) {
    if (r == &none && row != nullptr) continue;
    Content* content = r == &none ? &expected : &got;
    for (const int64_t value :
         {int64_t{r->file}, r->offset, r->bytes, int64_t{static_cast<uint8_t>(r->dtype)}, r->rows, r->cols})
      content->Whole(value);
  }
  got.CheckEqual(expected);
}

// ---- Each kind of object: built, spoilt, read, compared ----

class Test {
 public:
  explicit Test(FuzzInput input) : input_(input), objects_(&env_, &input_) {
    for (int count = input_.Range(0, 5) - 2; count > 0; --count) spoilers_.push_back(input_.Part(12));
  }

  void Run() {
    const int kind = input_.Byte() % 3;
    if (kind == 0) RunOpen();
    if (kind == 1) RunAdapter();
    if (kind == 2) RunRequest();
    FUZZ_CHECK(env_.references == 0 && env_.scopes == 0, "%d references and %d scopes are left", env_.references,
               env_.scopes);
  }

 private:
  void Spoil(napi_value object) {
    for (FuzzInput& spoiler : spoilers_) Objects(&env_, &spoiler).Spoil(object);
  }

  // True if it was read, and is to be compared.
  bool CheckError(const Model& model, const std::string& error) {
    FUZZ_CHECK(error.empty() == model.faults.empty(), "\"%s\", but %zu faults, as \"%s\"", error.c_str(),
               model.faults.size(), model.faults.empty() ? "" : model.faults.begin()->c_str());
    FUZZ_CHECK(error.empty() || model.Explains(error), "\"%s\", and not \"%s\"", error.c_str(),
               model.faults.begin()->c_str());
    FUZZ_CHECK((env_.exception != nullptr) == error.ends_with(" threw"), "\"%s\", pending: %d", error.c_str(),
               env_.exception != nullptr);
    FUZZ_CHECK(env_.late_reads == 0, "%d reads after what was thrown", env_.late_reads);
    std::set<const Slot*> read;
    for (const Slot* slot : env_.reads) {
      FUZZ_CHECK(slot == nullptr || read.insert(slot).second, "read twice");
      FUZZ_CHECK(slot == env_.reads.back() || !model.faulty.contains(slot), "read on after a fault");
    }
    const bool is_thrown = env_.exception != nullptr && env_.reads.back()->value != nullptr;
    FUZZ_CHECK(!is_thrown || env_.reads.back()->value == env_.exception,
               "another exception than the getter's is pending");
    return error.empty();
  }

  void RunOpen() {
    const napi_value object = objects_.Build(kOpen);
    Spoil(object);
    const Model model(object, kOpen, "options");
    OpenArguments arguments;
    if (!CheckError(model, ReadOpen({&env_, object}, &arguments))) return;
    ContentOf(arguments).CheckEqual(model.content);
    const Rows& rows = model.tables.at("options.tensors");
    const std::vector<BaseTensor>& tensors = arguments.options.tensors;
    FUZZ_CHECK(tensors.size() == rows.size(), "%zu tensors of %zu", tensors.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      FUZZ_CHECK(static_cast<double>(tensors[i].role) == rows[i][0] && tensors[i].layer == rows[i][1], "tensor %zu", i);
      CheckRange(tensors[i].range, &rows[i]);
    }
    const napi_value bytes = object->properties["tokenBytes"].value, offsets = object->properties["tokenOffsets"].value;
    const auto& owners = arguments.token_owners;
    FUZZ_CHECK(napi_value{owners[0].Value()} == bytes && napi_value{owners[1].Value()} == offsets,
               "what the tokens are read from may go");
  }

  void RunRequest() {
    const napi_value object = objects_.Build(kRequest);
    Slot *biases = &object->properties["biasTokens"], *values = &object->properties["biasValues"];
    *values = {objects_.Typed(napi_float32_array, biases->value->length)};
    Spoil(object);
    Model model(object, kRequest, "request");
    const auto tokens = model.lengths.find("request.biasTokens"), bias = model.lengths.find("request.biasValues");
    if (tokens != model.lengths.end() && bias != model.lengths.end() && tokens->second != bias->second)
      model.Refuse("request.biasValues");
    Request request;
    if (!CheckError(model, ReadRequest({&env_, object}, &request))) return;
    ContentOf(request).CheckEqual(model.content);
  }

  std::vector<BaseTensor> BuildBase() {
    std::vector<BaseTensor> base;
    for (int count = input_.Range(1, 3); count > 0; --count) {
      const auto role = static_cast<WeightRole>(input_.Range(0, static_cast<int32_t>(WeightRole::kEnd) - 1));
      base.push_back({role, input_.Range(-1, 3), {0, static_cast<int64_t>(base.size()), 4, DType::kF32, 1, 1}});
    }
    return base;
  }
  // Tensors of the sites that there are, saved tensors that the base has, as many digests as files, and names as
  // tensors.
  napi_value BuildAdapter(const std::vector<BaseTensor>& base) {
    const napi_value object = objects_.Build(kAdapter);
    auto& properties = object->properties;
    const napi_value sites = properties["sites"].value, saved = properties["baseTensors"].value;
    if (sites->length == 0) properties["tensors"] = {objects_.Table(kAdapterTensor, 0)};
    const napi_value tensors = properties["tensors"].value;
    const std::vector<double> numbers = ElementsOf<double>(sites);
    for (size_t at = 0; at < tensors->length; at += kAdapterTensor.size())
      Objects::SetCell(tensors, at, numbers[input_.Byte() % (numbers.size() / 3) * 3]);
    for (size_t at = 0; at < saved->length; at += kBaseTensor.size()) {
      const BaseTensor& tensor = base[input_.Byte() % base.size()];
      Objects::SetCell(saved, at, static_cast<double>(tensor.role));
      Objects::SetCell(saved, at + 1, tensor.layer);
    }
    properties["headerDigests"] = {objects_.Texts(properties["files"].value->length)};
    properties["baseTensorNames"] = {objects_.Texts(saved->length / kBaseTensor.size())};
    return object;
  }
  static const BaseTensor* Find(const std::vector<BaseTensor>& base, const std::vector<double>& row) {
    const auto found = std::find_if(base.begin(), base.end(), [&](const BaseTensor& tensor) {
      return static_cast<double>(tensor.role) == row[0] && tensor.layer == row[1];
    });
    return found == base.end() ? nullptr : &*found;
  }
  // What is wrong between fields.
  static void RefuseAdapter(const std::vector<BaseTensor>& base, Model* model) {
    const auto differ = [model](const char* one, size_t size) {
      const auto found = model->lengths.find(one);
      if (found != model->lengths.end() && found->second != size) model->Refuse(one);
    };
    if (model->lengths.contains("adapter.files")) differ("adapter.headerDigests", model->lengths.at("adapter.files"));
    if (model->tables.contains("adapter.baseTensors"))
      differ("adapter.baseTensorNames", model->tables.at("adapter.baseTensors").size());
    std::set<double> sites;
    for (const auto& row : model->tables["adapter.sites"]) sites.insert(row[0]);
    const Rows &tensors = model->tables["adapter.tensors"], &saved = model->tables["adapter.baseTensors"];
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!sites.contains(tensors[i][0])) model->Refuse("adapter.tensors[" + std::to_string(i) + "].site");
    }
    for (size_t i = 0; i < saved.size(); ++i) {
      if (Find(base, saved[i]) == nullptr) model->Refuse("adapter.baseTensors[" + std::to_string(i) + "].role");
    }
  }
  void RunAdapter() {
    const std::vector<BaseTensor> base = BuildBase();
    const napi_value object = BuildAdapter(base);
    Spoil(object);
    Model model(object, kAdapter, "adapter");
    RefuseAdapter(base, &model);
    int64_t handle = 0;
    AdapterManifest manifest;
    if (!CheckError(model, ReadAdapter({&env_, object}, base, &handle, &manifest))) return;
    ContentOf(handle, manifest).CheckEqual(model.content);
    const Rows& saved = model.tables["adapter.baseTensors"];
    for (size_t i = 0; i < saved.size(); ++i) {
      CheckRange(manifest.base_tensors[i].saved, &saved[i]);
      FUZZ_CHECK(manifest.base_tensors[i].expected.offset == Find(base, saved[i])->range.offset, "saved tensor %zu", i);
    }
    CheckSites(manifest, model.tables["adapter.sites"], model.tables["adapter.tensors"]);
  }
  // By site and ascending; a site named twice, which registration refuses, has its tensors at either place.
  static void CheckSites(const AdapterManifest& manifest, const Rows& sites, const Rows& tensors) {
    using Site = std::tuple<int32_t, int32_t, uint32_t>;
    std::vector<Site> expected, got;
    for (const auto& row : sites)
      expected.emplace_back(static_cast<int32_t>(row[0]), static_cast<int32_t>(row[1]),
                            std::bit_cast<uint32_t>(static_cast<float>(row[2])));
    int64_t last = INT64_MIN;
    for (const AdapterSite& site : manifest.sites) {
      FUZZ_CHECK(site.site >= last, "site %d after %lld", site.site, static_cast<long long>(last));
      last = site.site;
      got.emplace_back(site.site, site.rank, std::bit_cast<uint32_t>(site.scale));
      const auto is_this = [&](const AdapterSite& other) { return other.site == site.site; };
      if (std::count_if(manifest.sites.begin(), manifest.sites.end(), is_this) > 1) continue;
      const std::vector<double>* found[2] = {};  // the last of each matrix
      for (const auto& row : tensors) {
        if (row[0] == site.site) found[row[1] == 1 ? 1 : 0] = &row;
      }
      CheckRange(site.a, found[0]);
      CheckRange(site.b, found[1]);
    }
    std::sort(expected.begin(), expected.end());
    std::sort(got.begin(), got.end());
    FUZZ_CHECK(expected == got, "the sites differ");
  }

  FuzzInput input_;
  napi_env__ env_;
  Objects objects_;
  std::vector<FuzzInput> spoilers_;
};

}  // namespace
}  // namespace openlora::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  openlora::fuzz::Test({data, size}).Run();
  return 0;
}
