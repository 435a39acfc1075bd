#include "napi/marshal.h"

#include <algorithm>
#include <cstring>

#include "napi/table_reader.h"

namespace openlora {
namespace {

// Numbers of a row of tensors and of one of sites, as src/formats/tables.ts writes them.
constexpr size_t kTensorWidth = 8;
constexpr size_t kSiteWidth = 3;

constexpr const char* kActivationNames[] = {"silu", "gelu_tanh"};
constexpr const char* kQkNormNames[] = {"none", "head", "all"};

constexpr const char* kTierNames[] = {"registered", "host", "loading", "resident"};
constexpr const char* kHoldKinds[] = {"host", "device", "pin"};
constexpr const char* kPhases[] = {"weights", "pack", "cache"};
constexpr const char* kReasons[] = {"eos", "stop", "length", "cancelled"};

BaseTensor ReadBaseTensor(TableReader* row) {
  BaseTensor tensor;
  tensor.role = row->EnumOf<WeightRole>("role", static_cast<int32_t>(WeightRole::kEnd));
  tensor.layer = row->Int32("layer");
  tensor.range = row->Range();
  return tensor;
}

// The place of a string among `names`, as an enum.
template <typename Enum, size_t kCount>
Enum ReadName(ObjectReader* reader, const char* name, const char* const (&names)[kCount]) {
  const std::string value = reader->String(name);
  const auto found = std::find(std::begin(names), std::end(names), value);
  if (found == std::end(names)) reader->Refuse(name, "one of its names");
  return static_cast<Enum>(found == std::end(names) ? 0 : found - std::begin(names));
}

// Calls each(reader) for every object of an array; stops at the first that doesn't fit.
template <typename Each>
void ForEachObject(ObjectReader* parent, const char* name, const Each& each) {
  parent->ForEach(name, [&](uint32_t i, const Napi::Value& value) {
    if (!value.IsObject()) return parent->Refuse(name, "an array of objects");
    ObjectReader reader(value.As<Napi::Object>(), parent->PathOf(name) + "[" + std::to_string(i) + "]");
    each(&reader);
    parent->Adopt(reader);
  });
}

ModelConfig ReadModel(ObjectReader* reader) {
  ModelConfig model;
  model.layers = reader->Int32("layers");
  model.hidden = reader->Int32("hidden");
  model.heads = reader->Int32("heads");
  model.kv_heads = reader->Int32("kvHeads");
  model.head_dim = reader->Int32("headDim");
  model.intermediate = reader->Int32("intermediate");
  model.vocab = reader->Int32("vocab");
  model.context = reader->Int32("context");
  model.norm_eps = static_cast<float>(reader->Number("normEps"));
  model.attention_scale = static_cast<float>(reader->Number("attentionScale"));
  model.attention_soft_cap = static_cast<float>(reader->Number("attentionSoftCap"));
  model.embedding_scale = static_cast<float>(reader->Number("embeddingScale"));
  model.residual_scale = static_cast<float>(reader->Number("residualScale"));
  model.logit_scale = static_cast<float>(reader->Number("logitScale"));
  model.logit_soft_cap = static_cast<float>(reader->Number("logitSoftCap"));
  model.norm_offset = static_cast<float>(reader->Number("normOffset"));
  model.activation = ReadName<Activation>(reader, "activation", kActivationNames);
  model.qk_norm = ReadName<QkNorm>(reader, "qkNorm", kQkNormNames);
  model.has_pre_norms = reader->Bool("hasPreNorms");
  model.has_post_norms = reader->Bool("hasPostNorms");
  model.is_fused = reader->Bool("isFused");
  model.is_tied = reader->Bool("isTied");
  ForEachObject(reader, "ropes", [&](ObjectReader* rope) {
    model.ropes.push_back(
        {rope->Typed<float>("invFreq"), rope->Typed<float>("longInvFreq"), static_cast<float>(rope->Number("factor"))});
  });
  model.rope_switch = reader->Int32("ropeSwitch");
  ForEachObject(reader, "layerOptions", [&](ObjectReader* layer) {
    model.layer_options.push_back({layer->Int32("window"), layer->Int32("rope")});
  });
  return model;
}

void ReadBias(ObjectReader* reader, Request* request) {
  const std::vector<uint32_t> tokens = reader->Typed<uint32_t>("biasTokens");
  const std::vector<float> values = reader->Typed<float>("biasValues");
  if (tokens.size() != values.size()) return reader->Refuse("biasValues", "as long as biasTokens");
  for (size_t i = 0; i < tokens.size(); ++i)
    request->logit_bias.push_back({tokens[i] <= INT32_MAX ? static_cast<int32_t>(tokens[i]) : -1, values[i]});
}

}  // namespace

const char* NameOf(Tier tier) { return kTierNames[static_cast<size_t>(tier)]; }

std::string ReadOpen(Napi::Object object, OpenArguments* arguments) {
  ObjectReader reader(object, "options");
  EngineOptions& options = arguments->options;
  ObjectReader model = reader.Object("model");
  options.model = ReadModel(&model);
  reader.Adopt(model);
  options.files = reader.Strings("files");
  TableReader tensor(&reader, "tensors", kTensorWidth);
  options.tensors.reserve(tensor.rows());
  while (tensor.Next()) options.tensors.push_back(ReadBaseTensor(&tensor));
  options.cache_dir = reader.String("cacheDir");
  options.adapter_dir = reader.String("adapterDir");
  const auto bytes = reader.Borrowed<uint8_t>("tokenBytes", &arguments->token_owners[0]);
  const auto offsets = reader.Borrowed<uint32_t>("tokenOffsets", &arguments->token_owners[1]);
  options.read_tokens = [bytes, offsets] {
    return TokenTable{{bytes.begin(), bytes.end()}, {offsets.begin(), offsets.end()}};
  };
  options.dtype = reader.WeightFormatOf("dtype");
  options.kv_dtype = reader.HeldDTypeOf("kvDtype");
  options.adapter_dtype = reader.HeldDTypeOf("adapterDtype");
  arguments->backend = {reader.String("device"), reader.String("cudaImages"), reader.String("simd"),
                        reader.Int32("threads"), options.dtype};
  options.has_prefix_cache = reader.Bool("prefixCache");
  ObjectReader limits = reader.Object("limits");
  options.pool_bytes = limits.Integer("poolBytes");
  options.adapter_disk_bytes = limits.Integer("adapterDiskBytes");
  options.host_adapter_bytes = limits.Integer("hostAdapterBytes");
  options.pinned_adapter_bytes = limits.Integer("pinnedAdapterBytes");
  options.max_context = limits.Int32("maxContext");
  options.max_batch_tokens = limits.Int32("maxBatchTokens");
  options.max_step_ms = limits.Int32("maxStepMs");
  options.max_queued = limits.Int32("maxQueued");
  options.max_queued_per_tenant = limits.Int32("maxQueuedPerTenant");
  options.batch_lora_bytes = limits.Integer("batchLoraBytes");
  reader.Adopt(limits);
  return reader.error();
}

std::string ReadAdapter(Napi::Object object, const std::vector<BaseTensor>& base, int64_t* handle,
                        AdapterManifest* manifest) {
  ObjectReader reader(object, "adapter");
  *handle = reader.Integer("handle");
  manifest->files = reader.Strings("files");
  manifest->header_digests = reader.Strings("headerDigests");
  if (manifest->header_digests.size() != manifest->files.size()) reader.Refuse("headerDigests", "as many as files");
  TableReader site(&reader, "sites", kSiteWidth);
  manifest->sites.reserve(site.rows());
  while (site.Next()) {
    AdapterSite read;
    read.site = site.Int32("site");
    read.rank = site.Int32("rank");
    read.scale = static_cast<float>(site.Number());
    read.a.file = read.b.file = -1;
    manifest->sites.push_back(read);
  }
  std::sort(manifest->sites.begin(), manifest->sites.end(),
            [](const AdapterSite& a, const AdapterSite& b) { return a.site < b.site; });
  for (TableReader tensor(&reader, "tensors", kTensorWidth); tensor.Next();) {
    const int32_t number = tensor.Int32("site");
    const bool is_b = tensor.EnumOf<int32_t>("matrix", 2) == 1;
    const auto found = std::lower_bound(manifest->sites.begin(), manifest->sites.end(), number,
                                        [](const AdapterSite& s, int32_t n) { return s.site < n; });
    if (found == manifest->sites.end() || found->site != number) {
      tensor.Refuse("site", "one of adapter.sites");
    } else {
      (is_b ? found->b : found->a) = tensor.Range();
    }
  }
  const std::vector<std::string> names = reader.Strings("baseTensorNames");
  TableReader saved(&reader, "baseTensors", kTensorWidth);
  if (names.size() != saved.rows()) reader.Refuse("baseTensorNames", "as many as baseTensors");
  while (saved.Next()) {
    const BaseTensor tensor = ReadBaseTensor(&saved);
    const auto original = std::find_if(base.begin(), base.end(), [&](const BaseTensor& b) {
      return b.role == tensor.role && b.layer == tensor.layer;
    });
    if (original == base.end()) {
      saved.Refuse("role", "a tensor of the base");
    } else {
      manifest->base_tensors.push_back({names[saved.row()], tensor.range, original->range});
    }
  }
  const std::vector<uint8_t> config = reader.Typed<uint8_t>("canonicalConfig");
  manifest->canonical_config.assign(config.begin(), config.end());
  return reader.error();
}

bool ReadHoldKind(const Napi::Value& value, HoldKind* kind) {
  if (!value.IsString()) return false;
  const std::string name = value.As<Napi::String>().Utf8Value();
  const auto found = std::find(std::begin(kHoldKinds), std::end(kHoldKinds), name);
  if (found == std::end(kHoldKinds)) return false;
  *kind = static_cast<HoldKind>(found - std::begin(kHoldKinds));
  return true;
}

std::string ReadRequest(Napi::Object object, Request* request) {
  ObjectReader reader(object, "request");
  request->id = reader.Integer("id");
  // Records carry it in 32 bits.
  if (request->id < 1 || request->id > UINT32_MAX) reader.Refuse("id", "an integer in [1, 2^32)");
  const std::vector<uint32_t> tokens = reader.Typed<uint32_t>("tokens");
  request->tokens.reserve(tokens.size());
  // An id beyond 2^31 becomes -1, which no vocabulary has.
  for (const uint32_t token : tokens) request->tokens.push_back(token <= INT32_MAX ? static_cast<int32_t>(token) : -1);
  ForEachObject(&reader, "adapters", [&](ObjectReader* use) {
    request->adapters.push_back({use->Integer("handle"), static_cast<float>(use->Number("weight"))});
  });
  request->max_tokens = reader.Int32("maxTokens");
  request->min_tokens = reader.Int32("minTokens");
  request->temperature = static_cast<float>(reader.Number("temperature"));
  request->top_k = reader.Int32("topK");
  request->top_p = static_cast<float>(reader.Number("topP"));
  request->min_p = static_cast<float>(reader.Number("minP"));
  request->repetition_penalty = static_cast<float>(reader.Number("repetitionPenalty"));
  request->presence_penalty = static_cast<float>(reader.Number("presencePenalty"));
  request->frequency_penalty = static_cast<float>(reader.Number("frequencyPenalty"));
  ReadBias(&reader, request);
  const int64_t seed = reader.Integer("seed");
  if (seed < 0) reader.Refuse("seed", "an integer in [0, 2^53)");
  request->seed = static_cast<uint64_t>(seed);
  request->stop = reader.Strings("stop");
  if (std::any_of(request->stop.begin(), request->stop.end(), [](const std::string& stop) { return stop.empty(); }))
    reader.Refuse("stop", "non-empty strings");
  request->stop_tokens = reader.Int32s("stopTokens");
  request->eos_tokens = reader.Int32s("eosTokens");
  request->logprobs = reader.Int32("logprobs");
  request->prompt_logprobs = reader.Int32("promptLogprobs");
  request->tenant = reader.String("tenant");
  request->cache_salt = reader.String("cacheSalt");
  request->priority = reader.Int32("priority");
  request->deadline_ms = reader.Number("deadlineMs");
  return reader.error();
}

Napi::Value WriteRecords(Napi::Env env, const std::vector<uint8_t>& records) {
  if (records.empty()) return env.Null();
  // Not Napi::ArrayBuffer::New: where the environment is going, it gives an empty value, and touching that is fatal.
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (napi_create_arraybuffer(env, records.size(), &data, &buffer) != napi_ok) return {};
  std::memcpy(data, records.data(), records.size());
  return {env, buffer};
}

namespace {

// Appends one event's object.
class EventWriter {
 public:
  EventWriter(Napi::Env env, const char* kind) : object_(Napi::Object::New(env)) { Put("kind", kind); }

  template <typename T>
  EventWriter& Put(const char* name, const T& value) {
    if constexpr (std::is_integral_v<T>) {
      object_.Set(name, static_cast<double>(value));
    } else {
      object_.Set(name, value);
    }
    return *this;
  }
  EventWriter& Put(const Status& status) { return Put("code", status.code()).Put("message", status.message()); }
  Napi::Object object() const { return object_; }

 private:
  Napi::Object object_;
};

Napi::Object Write(Napi::Env env, const ProgressEvent& e) {
  return EventWriter(env, "progress")
      .Put("phase", kPhases[static_cast<size_t>(e.phase)])
      .Put("bytesDone", e.bytes_done)
      .Put("bytesTotal", e.bytes_total)
      .object();
}
Napi::Object Write(Napi::Env env, const OpenedEvent& e) {
  return EventWriter(env, "opened")
      .Put("digest", e.digest)
      .Put("simd", e.simd)
      .Put("threads", e.threads)
      .Put("weightBytes", e.weight_bytes)
      .Put("poolBytes", e.pool_bytes)
      .Put("frameBytes", e.frame_bytes)
      .Put("maxContext", e.max_context)
      .Put("weightsFrom", e.is_from_cache ? "cache" : "files")
      .Put("cacheWarning", e.cache_warning)
      .object();
}
Napi::Object Write(Napi::Env env, const OpenFailedEvent& e) {
  return EventWriter(env, "openFailed").Put(e.status).object();
}
Napi::Object Write(Napi::Env env, const AdapterReadyEvent& e) {
  return EventWriter(env, "adapterReady")
      .Put("handle", e.handle)
      .Put("generation", e.generation)
      .Put("bytes", e.bytes)
      .object();
}
Napi::Object Write(Napi::Env env, const AdapterFailedEvent& e) {
  return EventWriter(env, "adapterFailed").Put("handle", e.handle).Put(e.status).object();
}
Napi::Object Write(Napi::Env env, const AdapterRetiredEvent& e) {
  return EventWriter(env, "adapterRetired").Put("handle", e.handle).object();
}
Napi::Object Write(Napi::Env env, const AdapterHeldEvent& e) {
  return EventWriter(env, "adapterHeld").Put("ticket", e.ticket).Put(e.status).object();
}
Napi::Object Write(Napi::Env env, const WarningEvent& e) { return EventWriter(env, "warning").Put(e.status).object(); }
Napi::Object Write(Napi::Env env, const EndEvent& e) {
  Napi::Array adapters = Napi::Array::New(env, e.adapters.size());
  for (size_t i = 0; i < e.adapters.size(); ++i) {
    Napi::Object adapter = Napi::Object::New(env);
    adapter.Set("handle", static_cast<double>(e.adapters[i].handle));
    adapter.Set("tier", NameOf(e.adapters[i].tier));
    adapters.Set(static_cast<uint32_t>(i), adapter);
  }
  return EventWriter(env, "end")
      .Put("request", e.request)
      .Put("finishReason", kReasons[static_cast<size_t>(e.reason)])
      .Put("input", e.input)
      .Put("output", e.output)
      .Put("cachedInput", e.cached_input)
      .Put("queuedMs", e.queued_ms)
      .Put("adapterLoadMs", e.adapter_load_ms)
      .Put("ttftMs", e.ttft_ms)
      .Put("tpotMs", e.tpot_ms)
      .Put("adapters", adapters)
      .object();
}
Napi::Object Write(Napi::Env env, const FailedEvent& e) {
  return EventWriter(env, "failed").Put("request", e.request).Put(e.status).object();
}
Napi::Object Write(Napi::Env env, const ClosedEvent& e) { return EventWriter(env, "closed").Put(e.status).object(); }

}  // namespace

Napi::Array WriteEvents(Napi::Env env, const std::vector<ControlEvent>& events) {
  Napi::Array array = Napi::Array::New(env, events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    array.Set(static_cast<uint32_t>(i), std::visit([env](const auto& event) { return Write(env, event); }, events[i]));
  }
  return array;
}

Napi::Object WriteStats(Napi::Env env, const EngineStats& stats) {
  const std::pair<const char*, uint64_t> counters[] = {{"steps", stats.steps},
                                                       {"tokensIn", stats.tokens_in},
                                                       {"tokensOut", stats.tokens_out},
                                                       {"rows", stats.rows},
                                                       {"weightBytesRead", stats.weight_bytes_read},
                                                       {"loraBytesRead", stats.lora_bytes_read},
                                                       {"loraOps", stats.lora_ops},
                                                       {"pageTableReads", stats.page_table_reads},
                                                       {"preemptions", stats.preemptions},
                                                       {"prefixTokensLookedUp", stats.prefix_tokens_looked_up},
                                                       {"prefixTokensFound", stats.prefix_tokens_found},
                                                       {"adapterLoads", stats.adapter_loads},
                                                       {"adapterEvictions", stats.adapter_evictions},
                                                       {"adapterPacks", stats.adapter_packs},
                                                       {"adapterBytesRead", stats.adapter_bytes_read}};
  const std::pair<const char*, int64_t> gauges[] = {{"requestsQueued", stats.requests_queued},
                                                    {"requestsRunning", stats.requests_running},
                                                    {"adaptersResident", stats.adapters_resident},
                                                    {"adaptersHost", stats.adapters_host}};
  const std::pair<const char*, int64_t> bytes[] = {{"base", stats.bytes_base},
                                                   {"kv", stats.bytes_kv},
                                                   {"prefix", stats.bytes_prefix},
                                                   {"adapters", stats.bytes_adapters},
                                                   {"hostAdapters", stats.bytes_host_adapters},
                                                   {"pinnedAdapters", stats.bytes_pinned},
                                                   {"workspace", stats.bytes_workspace},
                                                   {"poolFree", stats.bytes_pool_free},
                                                   {"pool", stats.bytes_pool}};
  Napi::Object object = Napi::Object::New(env), by_class = Napi::Object::New(env), hits = Napi::Object::New(env);
  for (const auto& [name, value] : counters) object.Set(name, static_cast<double>(value));
  for (const auto& [name, value] : gauges) object.Set(name, static_cast<double>(value));
  for (const auto& [name, value] : bytes) by_class.Set(name, static_cast<double>(value));
  for (size_t i = 0; i < stats.adapter_hits.size(); ++i)
    hits.Set(kTierNames[i], static_cast<double>(stats.adapter_hits[i]));
  Napi::Object graphs = Napi::Object::New(env);
  graphs.Set("captures", static_cast<double>(stats.graphs.captures));
  graphs.Set("replays", static_cast<double>(stats.graphs.replays));
  graphs.Set("captureMs", stats.graphs.capture_ms);
  graphs.Set("bytes", static_cast<double>(stats.graphs.bytes));
  object.Set("graphs", graphs);
  object.Set("bytes", by_class);
  object.Set("adapterHits", hits);
  return object;
}

}  // namespace openlora
