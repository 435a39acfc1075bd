#include <algorithm>
#include <bit>
#include <string_view>

#include "engine/engine_core.h"

namespace openlora {
namespace {

constexpr int32_t kFrameTokens = 16;
constexpr int64_t kFrameBytesMin = 4 << 10;
constexpr int64_t kFrameBytesMax = 64 << 10;  // unless one token takes more
constexpr int64_t kLogitBytesMax = 128 << 20;
constexpr int32_t kLogitRowsMin = 16;
// Of a step that only decodes, which reads the weights once, with all threads. Copying 1/64 of that, on one of a few
// threads and three times through memory, takes at most a tenth of its time.
constexpr int64_t kUploadShare = 64;
constexpr int64_t kUploadBytesMin = 256 << 10;

// One layer's K and V of 16 tokens; of fewer where that is more than 64 KiB.
int32_t ChooseFrameTokens(const Ops& ops, DType dtype, const ModelConfig& model) {
  int32_t tokens = kFrameTokens;
  while (tokens > 1 && ops.KvBytes(dtype, model.kv_heads, model.head_dim, tokens) > kFrameBytesMax) tokens /= 2;
  return tokens;
}

Status CheckTokens(const TokenTable& tokens, int32_t vocab) {
  const std::vector<uint32_t>& offsets = tokens.offsets;
  const bool is_complete = offsets.size() == static_cast<size_t>(vocab) + 1 &&
                           std::is_sorted(offsets.begin(), offsets.end()) && offsets.back() <= tokens.bytes.size();
  if (is_complete) return Ok();
  return Error(kErrModelConfig,
               "the token table has %zu offsets over %zu bytes, a vocabulary of %d needs %d ascending ones",
               offsets.size(), tokens.bytes.size(), vocab, vocab + 1);
}

// A cache that can't be used is no error of the load, but for an abort.
Status NoteCache(const Status& status, std::string* warning) {
  if (status.ok() || IsAborted(status)) return status;
  if (!warning->empty()) *warning += "; ";
  *warning += status.message();
  return Ok();
}

}  // namespace

Status EngineCore::Open(const std::atomic<bool>& is_aborted) {
  is_aborted_ = &is_aborted;
  tokens_ = options_.read_tokens();
  OPENLORA_RETURN_IF_ERROR(CheckConfig(options_.model));
  OPENLORA_RETURN_IF_ERROR(CheckTokens(tokens_, options_.model.vocab));
  OPENLORA_RETURN_IF_ERROR(options_.open_backend(&backend_));
  OPENLORA_RETURN_IF_ERROR(
      weights_.Open(options_.model, options_.files, options_.tensors, options_.dtype, *backend_.ops));
  OPENLORA_RETURN_IF_ERROR(OpenMemory());
  OpenedEvent opened{weights_.digest(),
                     backend_.simd,
                     backend_.threads,
                     weights_.bytes(),
                     pool_.BytesOf(pool_.frames_total()),
                     pool_.frame_bytes(),
                     max_context_,
                     false,
                     {}};
  OPENLORA_RETURN_IF_ERROR(OpenWeights(&opened));
  outbox_->Push(std::move(opened));
  return Ok();
}

OnLoadProgress EngineCore::Reporting(LoadPhase phase) {
  return [this, phase](LoadProgress progress) {
    outbox_->Push(ProgressEvent{phase, progress.bytes_done, progress.bytes_total});
    outbox_->Flush();
  };
}

// Out of the cache if they are there, else packed, and kept for the next start.
Status EngineCore::OpenWeights(OpenedEvent* opened) {
  // A device with memory of its own would have the payload uploaded.
  if (options_.cache_dir.empty() || !backend_.device->is_host()) return PackWeights();
  const PackedWeights packed = weights_.Packed(*backend_.ops);
  MappedFile file;
  const Status read = ReadWeightCache(options_.cache_dir, packed, Reporting(LoadPhase::kWeights), *is_aborted_, &file);
  OPENLORA_RETURN_IF_ERROR(NoteCache(read, &opened->cache_warning));
  opened->is_from_cache = file.size() > 0;
  if (opened->is_from_cache) return weights_.Adopt(std::move(file));
  OPENLORA_RETURN_IF_ERROR(PackWeights());
  const Status written =
      WriteWeightCache(options_.cache_dir, packed, weight_memory_, Reporting(LoadPhase::kCache), *is_aborted_);
  return NoteCache(written, &opened->cache_warning);
}

Status EngineCore::PackWeights() {
  const int64_t file_bytes = weights_.file_bytes();
  Reporting(LoadPhase::kWeights)({file_bytes, file_bytes});
  OPENLORA_RETURN_IF_ERROR(backend_.device->Allocate(static_cast<size_t>(weights_.bytes()), &weight_memory_));
  return weights_.Load(weight_memory_, backend_.ops.get(), Reporting(LoadPhase::kPack), *is_aborted_);
}

Status EngineCore::OpenMemory() {
  const ModelConfig& model = options_.model;
  Ops& ops = *backend_.ops;
  if (options_.max_batch_tokens < 1 || options_.max_queued < 1 || options_.pool_bytes < 0 || options_.max_context < 0 ||
      options_.max_queued_per_tenant < 0 || options_.batch_lora_bytes < 0 || !(options_.max_step_ms >= 0))
    return Status(kErrLimits, "maxBatchTokens and maxQueued must be at least 1, all other limits at least 0");
  const int32_t rows = options_.max_batch_tokens;
  const auto logit_fit = static_cast<int32_t>(kLogitBytesMax / (int64_t{4} * model.vocab));
  const int32_t logit_rows = std::min(rows, std::max(kLogitRowsMin, logit_fit));
  buffer_bytes_ = DecoderBufferBytes(model, ops.input_dtype(), rows, logit_rows);
  OPENLORA_RETURN_IF_ERROR(ChoosePool());
  frame_tokens_ = ChooseFrameTokens(ops, options_.kv_dtype, model);
  const auto kv_bytes =
      static_cast<uint64_t>(ops.KvBytes(options_.kv_dtype, model.kv_heads, model.head_dim, frame_tokens_));
  const int64_t frame_bytes = std::max(kFrameBytesMin, static_cast<int64_t>(std::bit_ceil(kv_bytes)));
  if (options_.pool_bytes / frame_bytes > UINT32_MAX)  // frames are numbered in 32 bits
    return Error(kErrLimits, "deviceMemory is %lld bytes, at most %lld", static_cast<long long>(options_.pool_bytes),
                 static_cast<long long>(UINT32_MAX * frame_bytes));
  const int64_t scale_bytes = KvScaleBytes(options_.kv_dtype, model.kv_heads, frame_tokens_);
  const int64_t frames = options_.pool_bytes / (frame_bytes + scale_bytes);
  OPENLORA_RETURN_IF_ERROR(ChooseContext(frames));
  OPENLORA_RETURN_IF_ERROR(pool_.Open(backend_.device.get(), frame_bytes, scale_bytes, frames, options_.poisons_freed));
  if (!ops.needs_zeroed_kv()) pool_.LeaveKv();
  OpenPrefixes();
  kv_ = std::make_unique<KvCache>(&pool_, model.layers, frame_tokens_, prefixes_.get());
  const TileFormat format{&ops, options_.adapter_dtype, frame_bytes};
  residency_ = std::make_unique<AdapterResidency>(&pool_, &eviction_, format, SiteShapes(model));
  store_ = std::make_unique<AdapterStore>(format, SiteShapes(model), options_.files,
                                          AdapterStoreOptions{options_.adapter_dir, options_.adapter_disk_bytes},
                                          backend_.device.get());
  host_ = std::make_unique<HostTier>(options_.host_adapter_bytes);
  upload_bytes_ = std::max(kUploadBytesMin, weights_.bytes() / kUploadShare);
  SchedulerLimits limits;
  limits.budget.rows = rows;
  pace_ = StepPace(rows, options_.max_step_ms);
  limits.budget.logit_rows = logit_rows;
  limits.weight_bytes = std::max<int64_t>(1, weights_.bytes());
  limits.budget.lora_bytes = options_.batch_lora_bytes > 0 ? options_.batch_lora_bytes : 2 * limits.weight_bytes;
  scheduler_ = std::make_unique<Scheduler>(limits, &pool_, kv_.get(), residency_.get(), &eviction_);
  OPENLORA_RETURN_IF_ERROR(backend_.device->Allocate(static_cast<size_t>(buffer_bytes_), &buffer_memory_));
  buffers_ = MakeDecoderBuffers(model, ops.input_dtype(), rows, logit_rows, buffer_memory_);
  StepLimits step = LimitsOf(model, rows, logit_rows, max_context_);
  step.weights = options_.dtype;
  step.kv = options_.kv_dtype;
  step.adapters = options_.adapter_dtype;
  return ops.Reserve(step);
}

// Of a device of its own, where nobody said how much: a tenth of what is free stays for others, and for what ops need.
Status EngineCore::ChoosePool() {
  if (options_.pool_bytes > 0 || backend_.device->is_host()) return Ok();
  const int64_t free = backend_.device->FreeBytes(), needed = weights_.bytes() + buffer_bytes_;
  options_.pool_bytes = free - free / 10 - needed;
  if (options_.pool_bytes <= 0)
    return Error(kErrOutOfMemory, "the base needs %lld bytes and a tenth of the device's stays free, it has %lld",
                 static_cast<long long>(needed), static_cast<long long>(free));
  if (options_.pinned_adapter_bytes == 0) options_.pinned_adapter_bytes = options_.pool_bytes / 2;
  return Ok();
}

// A token takes two operations for each weight of the layers; those of attention, as many again at some thousands of
// tokens, change no order of magnitude.
void EngineCore::OpenPrefixes() {
  if (!options_.has_prefix_cache) return;
  double weights = 0;
  for (const BaseTensor& tensor : options_.tensors) {
    if (tensor.layer >= 0) weights += static_cast<double>(tensor.range.rows) * static_cast<double>(tensor.range.cols);
  }
  const int32_t layers = options_.model.layers;
  const double cost = BlockCost(frame_tokens_, 2 * weights, pool_.BytesOf(layers));
  prefixes_ = std::make_unique<PrefixIndex>(&pool_, &eviction_, layers, frame_tokens_, cost);
}

Status EngineCore::ChooseContext(int64_t frames) {
  const ModelConfig& model = options_.model;
  const int64_t fitting = frames / model.layers * frame_tokens_;
  const int64_t wanted = options_.max_context > 0 ? options_.max_context : std::min<int64_t>(model.context, fitting);
  if (wanted > model.context)
    return Error(kErrLimits, "maxContext is %lld, the model is made for %d positions", static_cast<long long>(wanted),
                 model.context);
  if (wanted > fitting || fitting < frame_tokens_)
    return Error(kErrLimits, "deviceMemory of %lld bytes holds the KV cache of %lld tokens, maxContext is %lld",
                 static_cast<long long>(options_.pool_bytes), static_cast<long long>(fitting),
                 static_cast<long long>(wanted));
  max_context_ = static_cast<int32_t>(wanted);
  return Ok();
}

EngineCore::~EngineCore() {
  if (weight_memory_ != nullptr) backend_.device->Free(weight_memory_, static_cast<size_t>(weights_.bytes()));
  if (buffer_memory_ != nullptr) backend_.device->Free(buffer_memory_, static_cast<size_t>(buffer_bytes_));
}

}  // namespace openlora
