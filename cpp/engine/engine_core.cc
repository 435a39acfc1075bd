#include "engine/engine_core.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/check.h"
#include "base/clock.h"

namespace openlora {
namespace {

// Records of one sequence that its reader may leave lying before the sequence gets no more rows.
constexpr int32_t kUndeliveredMax = 256;

bool Contains(const std::vector<int32_t>& list, int32_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// The request's bias with EOS and stop tokens forbidden.
std::vector<TokenBias> ForbidEnds(const Request& request) {
  if (request.min_tokens == 0) return {};
  std::vector<TokenBias> bias = request.logit_bias;
  for (const std::vector<int32_t>* list : {&request.eos_tokens, &request.stop_tokens}) {
    for (const int32_t token : *list) {
      const auto known =
          std::find_if(bias.begin(), bias.end(), [token](const TokenBias& b) { return b.token == token; });
      if (known == bias.end()) {
        bias.push_back({token, -INFINITY});
      } else {
        known->bias = -INFINITY;
      }
    }
  }
  return bias;
}

// What the sampler and the products count on: with a NaN temperature a draw would find no token.
Status CheckNumbers(const Request& request) {
  if (!(request.temperature >= 0 && std::isfinite(request.temperature)))
    return Error(kErrInvalidRequest, "temperature is %g, a number from 0 is needed", double{request.temperature});
  if (request.top_k < 0 || request.min_tokens < 0)
    return Error(kErrInvalidRequest, "topK is %d and minTokens %d, neither may be negative", request.top_k,
                 request.min_tokens);
  if (!(request.top_p >= 0 && request.top_p <= 1) || !(request.min_p >= 0 && request.min_p <= 1))
    return Error(kErrInvalidRequest, "topP is %g and minP %g, both must be in [0, 1]", double{request.top_p},
                 double{request.min_p});
  for (const AdapterUse& use : request.adapters) {
    if (!std::isfinite(use.weight))
      return Error(kErrInvalidRequest, "the weight of adapter %lld is %g, a finite number is needed",
                   static_cast<long long>(use.handle), double{use.weight});
  }
  return Ok();
}

// Of the prompt only where a penalty counts it.
SeenTokens CountPrompt(const Request& request) {
  SeenTokens seen;
  if (request.repetition_penalty == 1) return seen;
  for (const int32_t token : request.tokens) seen.AddPrompt(token);
  return seen;
}

Status CheckLogitChanges(const Request& request, int32_t vocab) {
  if (!(request.repetition_penalty > 0) || !std::isfinite(request.repetition_penalty) ||
      !std::isfinite(request.presence_penalty) || !std::isfinite(request.frequency_penalty))
    return Error(kErrInvalidRequest,
                 "penalties of %g (repetition), %g (presence), %g (frequency): finite and, the first, above 0",
                 static_cast<double>(request.repetition_penalty), static_cast<double>(request.presence_penalty),
                 static_cast<double>(request.frequency_penalty));
  std::unordered_set<int32_t> tokens;
  for (const auto& [token, bias] : request.logit_bias) {
    if (token < 0 || token >= vocab)
      return Error(kErrTokenRange, "logitBias: token id %d, the vocabulary has 0 to %d", token, vocab - 1);
    if (!(bias < INFINITY) || !tokens.insert(token).second)
      return Error(kErrInvalidRequest, "logitBias: token %d has %g or stands twice, wanted one number or -Infinity",
                   token, static_cast<double>(bias));
  }
  return Ok();
}

}  // namespace

Status EngineCore::CheckRequest(const Request& request) const {
  const ModelConfig& model = options_.model;
  if (sequences_.count(request.id) > 0)
    return Error(kErrInvalidRequest, "request %lld waits or runs already", static_cast<long long>(request.id));
  if (request.tokens.empty()) return Status(kErrInvalidRequest, "the prompt is empty, at least one token is needed");
  if (static_cast<int64_t>(request.tokens.size()) >= max_context_)
    return Error(kErrContextLength, "the prompt has %zu tokens, the context of %d leaves room for %d and an answer",
                 request.tokens.size(), max_context_, max_context_ - 1);
  for (const std::vector<int32_t>* list : {&request.tokens, &request.eos_tokens, &request.stop_tokens}) {
    for (const int32_t token : *list) {
      if (token < 0 || token >= model.vocab)
        return Error(kErrTokenRange, "token id %d, the vocabulary has 0 to %d", token, model.vocab - 1);
    }
  }
  if (request.max_tokens < 1)
    return Error(kErrInvalidRequest, "maxTokens is %d, at least 1 is needed", request.max_tokens);
  if (request.logprobs > kTopLogprobsMax || request.prompt_logprobs > kTopLogprobsMax)
    return Error(kErrInvalidRequest, "logprobs asks for %d tokens, at most %d",
                 std::max(request.logprobs, request.prompt_logprobs), kTopLogprobsMax);
  OPENLORA_RETURN_IF_ERROR(CheckNumbers(request));
  return CheckLogitChanges(request, model.vocab);
}

Status EngineCore::FindAdapters(const Request& request, std::vector<Adapter*>* adapters) const {
  int64_t frames = kv_->FramesFor(static_cast<int64_t>(request.tokens.size()) + 1);
  for (const AdapterUse& use : request.adapters) {
    Adapter* adapter = residency_->Find(use.handle);
    if (adapter == nullptr || adapter->state == AdapterState::kChecking)
      return Error(kErrAdapterNotFound, "adapter %lld isn't registered", static_cast<long long>(use.handle));
    if (std::find(adapters->begin(), adapters->end(), adapter) == adapters->end()) frames += adapter->frames_needed;
    adapters->push_back(adapter);
  }
  if (frames <= pool_.frames_total()) return Ok();
  return Error(kErrOutOfMemory, "the prompt and its adapters need %lld bytes, deviceMemory has %lld",
               static_cast<long long>(pool_.BytesOf(frames)),
               static_cast<long long>(pool_.BytesOf(pool_.frames_total())));
}

void EngineCore::Submit(Request request) {
  std::vector<Adapter*> adapters;
  Status status = CheckRequest(request);
  if (status.ok()) status = FindAdapters(request, &adapters);
  if (status.ok() && requests() >= options_.max_queued)
    status = Error(kErrOverloaded, "%lld requests wait or run, maxQueued is %d", static_cast<long long>(requests()),
                   options_.max_queued);
  if (!status.ok()) return outbox_->Push(FailedEvent{request.id, status});

  auto sequence = std::make_unique<Sequence>();
  sequence->arrival = arrivals_++;
  sequence->tokens = request.tokens;
  sequence->adapters = std::move(adapters);
  for (Adapter* adapter : sequence->adapters) {
    ++adapter->references;
    sequence->tiers.push_back(TierOf(*adapter));
  }
  sequence->is_long = options_.model.rope_switch > 0 && sequence->known() > options_.model.rope_switch;
  sequence->text = TextStream(request.stop);
  sequence->early_bias = ForbidEnds(request);
  sequence->seen = CountPrompt(request);
  sequence->request = std::move(request);
  stats_.tokens_in += static_cast<uint64_t>(sequence->prompt());
  scheduler_->Add(sequence.get());
  sequences_.emplace(sequence->request.id, std::move(sequence));
}

void EngineCore::Cancel(int64_t request) {
  const auto found = sequences_.find(request);
  if (found != sequences_.end()) End(found->second.get(), FinishReason::kCancelled);
}

void EngineCore::SetPaused(int64_t request, bool is_paused) {
  const auto found = sequences_.find(request);
  if (found != sequences_.end()) found->second->is_paused = is_paused;
}

void EngineCore::Register(int64_t handle, AdapterManifest manifest) {
  Adapter* adapter = residency_->Add(handle, std::move(manifest));
  loader_.check(adapter);
}

void EngineCore::Unregister(int64_t handle) {
  Adapter* adapter = residency_->Find(handle);
  if (adapter == nullptr) return;
  adapter->is_hidden = true;
  ReleaseAdapter(adapter);
}

void EngineCore::ReleaseAdapter(Adapter* adapter) {
  const int64_t handle = adapter->handle;
  if (residency_->EraseIfUnused(adapter, step_)) outbox_->Push(AdapterRetiredEvent{handle});
}

void EngineCore::FinishLoader(LoaderResult result) {
  Adapter* adapter = result.adapter;
  if (result.is_check) {
    if (result.status.ok()) {
      residency_->SetChecked(adapter, std::move(result.identity));
      outbox_->Push(AdapterReadyEvent{adapter->handle, adapter->identity.generation, adapter->bytes});
      ReleaseAdapter(adapter);
    } else {
      outbox_->Push(AdapterFailedEvent{adapter->handle, result.status});
      residency_->Refuse(adapter);
    }
    return;
  }
  residency_->FinishLoad(adapter, result.status.ok(), step_);
  const double now = NowMs();
  std::vector<Sequence*> failed;
  for (const auto& [id, sequence] : sequences_) {
    if (std::find(sequence->adapters.begin(), sequence->adapters.end(), adapter) == sequence->adapters.end()) continue;
    sequence->adapters_ready_ms = now;
    if (!result.status.ok()) failed.push_back(sequence.get());
  }
  for (Sequence* sequence : failed) Fail(sequence, result.status);
  // Forget released it already if the last of them went.
  if (failed.empty()) ReleaseAdapter(adapter);
}

bool EngineCore::IsReady(Sequence* sequence, uint64_t epoch) const {
  if (sequence->delivery_epoch != epoch) {
    sequence->delivery_epoch = epoch;
    sequence->undelivered = 0;
  }
  return sequence->undelivered < kUndeliveredMax;
}

bool EngineCore::Step() {
  ExpireRequests();
  pool_.Reclaim(step_);  // what adapters gave back since the last step: none is in flight
  // Once: the reader may take what there is at any moment, and whoever asks later must see what the plan saw.
  const uint64_t epoch = outbox_->epoch();
  const StepPlan plan = scheduler_->Plan([&](Sequence* sequence) { return IsReady(sequence, epoch); });
  scheduler_->Commit(plan, step_);
  for (Adapter* adapter : plan.loads) loader_.load(adapter);
  if (plan.rows.empty()) return HandleStuck(plan, epoch);
  RunBatch(plan);
  if (options_.checks_invariants) {
    const Status status = CheckInvariants();
    if (!status.ok()) FailAll(status);
  }
  return true;
}

void EngineCore::ExpireRequests() {
  const double now = NowMs();
  std::vector<Sequence*> late;
  for (const auto& [id, sequence] : sequences_) {
    const Request& request = sequence->request;
    if (request.deadline_ms > 0 && now - request.submitted_ms > request.deadline_ms) late.push_back(sequence.get());
  }
  for (Sequence* sequence : late)
    Fail(sequence, Error(kErrDeadline, "the answer wasn't complete within deadlineMs = %g; %d tokens were generated",
                         sequence->request.deadline_ms, sequence->output()));
}

// Nothing was planned. True if that was resolved here and another plan may do better.
bool EngineCore::HandleStuck(const StepPlan& plan, uint64_t epoch) {
  if (!plan.preemptions.empty() || !plan.unpins.empty() || !plan.evictions.empty()) return true;
  if (residency_->adapters_loading() > 0) return false;  // the loader will call; what it checks holds no frames
  Sequence* stuck = plan.starved;
  if (stuck != nullptr) {
    Fail(stuck,
         Error(kErrOutOfMemory,
               "%lld more bytes are needed at once, %lld of deviceMemory's %lld are free and nothing else can go",
               static_cast<long long>(pool_.BytesOf(plan.starved_frames)),
               static_cast<long long>(pool_.BytesOf(pool_.frames_free())),
               static_cast<long long>(pool_.BytesOf(pool_.frames_total()))));
    return true;
  }
  for (const auto& [id, sequence] : sequences_) {
    const bool can_run = !sequence->is_paused && IsReady(sequence.get(), epoch);
    if (can_run && (stuck == nullptr || sequence->arrival < stuck->arrival)) stuck = sequence.get();
  }
  if (stuck == nullptr) return false;  // idle, or every reader is behind
  Fail(stuck, Status(kErrEngineStalled,
                     "the request could get no rows though nothing stands in its way: a defect of openlora"));
  return true;
}

void EngineCore::RunBatch(const StepPlan& plan) {
  const uint64_t step = step_ + 1;
  const double now = NowMs();
  for (const PlannedRows& planned : plan.rows) {
    if (planned.sequence->admitted_ms == 0) planned.sequence->admitted_ms = now;
    for (Adapter* adapter : planned.sequence->adapters) adapter->last_use = step;
  }
  batch_.Build(plan.rows);
  const ModelConfig& model = options_.model;
  KvView kv{pool_.memory(), pool_.frame_bytes(), frame_tokens_, options_.kv_dtype,
            model.layers,   model.kv_heads,      model.head_dim};
  kv.scales = pool_.beside();
  kv.scale_bytes = pool_.beside_bytes();
  kv.has_bf16_dots = HasBF16Dots(options_.dtype, options_.kv_dtype, model.head_dim, frame_tokens_);
  const BatchView view = batch_.View(kv, residency_->Pages());
  DecoderForward(model, weights_, view, buffers_, backend_.ops.get(), *is_aborted_);
  batch_.SampleRows(&sample_rows_);
  results_.resize(sample_rows_.size());
  if (is_aborted_->load(std::memory_order_relaxed)) return;
  if (!sample_rows_.empty()) {
    TensorView logits = buffers_.logits;
    logits.rows = static_cast<int64_t>(sample_rows_.size());
    backend_.ops->Sample(logits, sample_rows_, results_);
  }
  const Status status = backend_.ops->Synchronize();
  if (!status.ok()) return FailAll(status);
  step_ = step;
  ++stats_.steps;
  stats_.rows += static_cast<uint64_t>(batch_.rows());
  for (const PlannedRows& planned : plan.rows) planned.sequence->computed += planned.rows;
  Deliver();
  pool_.Reclaim(step_);
}

void EngineCore::Deliver() {
  Sequence* failed = nullptr;  // its later rows of this step are void: the sequence is gone
  for (size_t i = 0; i < results_.size(); ++i) {
    const LogitRow& use = batch_.logit_rows()[i];
    if (use.sequence == failed) continue;
    if (results_[i].token < 0) {
      failed = use.sequence;
      Fail(failed, Status(kErrNotFinite, "the logits hold NaN or infinity, or every token is forbidden"));
    } else if (use.prompt_index >= 0) {
      AcceptScore(use.sequence, use.prompt_index, results_[i]);
    } else {
      AcceptToken(use.sequence, results_[i]);
    }
  }
}

void EngineCore::AcceptScore(Sequence* sequence, int32_t prompt_index, const SampleResult& result) {
  PushRecord(sequence, RecordKind::kPrompt, result, true, {});
  sequence->scored = prompt_index;
}

void EngineCore::AcceptToken(Sequence* sequence, const SampleResult& result) {
  const Request& request = sequence->request;
  sequence->tokens.push_back(result.token);
  if (request.has_penalties()) sequence->seen.AddOutput(result.token);
  ++stats_.tokens_out;
  if (sequence->first_token_ms == 0) sequence->first_token_ms = NowMs();
  std::string released;
  const bool is_eos = Contains(request.eos_tokens, result.token);
  const bool is_stop_token = !is_eos && Contains(request.stop_tokens, result.token);
  const bool is_end = is_eos || is_stop_token;
  const bool has_stops = sequence->output() >= request.min_tokens;
  const bool is_stop_text = !is_end && sequence->text.Append(TextOf(result.token), has_stops, &released);
  const bool is_full = sequence->output() >= request.max_tokens || sequence->known() >= max_context_;
  if (is_end || (is_full && !is_stop_text)) sequence->text.Finish(&released);
  PushRecord(sequence, RecordKind::kToken, result, request.logprobs >= 0, released);
  if (is_eos) return End(sequence, FinishReason::kEos);
  if (is_stop_token || is_stop_text) return End(sequence, FinishReason::kStop);
  if (is_full) return End(sequence, FinishReason::kLength);
  if (options_.model.rope_switch > 0) SwitchRope(sequence);
}

// Beyond the switch all positions are rotated by the long frequencies, as transformers does it: the KV so far is void.
void EngineCore::SwitchRope(Sequence* sequence) {
  const bool is_long = sequence->known() > options_.model.rope_switch;
  if (is_long == sequence->is_long) return;
  sequence->is_long = is_long;
  sequence->computed = 0;
  kv_->Release(&sequence->kv, step_);
}

void EngineCore::PushRecord(Sequence* sequence, RecordKind kind, const SampleResult& result, bool has_logprob,
                            std::string_view text) {
  outbox_->PushRecord(kind, sequence->request.id, result, has_logprob, text);
  ++sequence->undelivered;
}

std::string_view EngineCore::TextOf(int32_t token) const {
  const auto index = static_cast<size_t>(token);
  const uint32_t begin = tokens_.offsets[index];
  return {reinterpret_cast<const char*>(tokens_.bytes.data()) + begin, tokens_.offsets[index + 1] - begin};
}

void EngineCore::End(Sequence* sequence, FinishReason reason) {
  const double now = NowMs();
  const Request& request = sequence->request;
  EndEvent end;
  end.request = request.id;
  end.reason = reason;
  end.input = sequence->prompt();
  end.output = sequence->output();
  end.queued_ms = (sequence->admitted_ms > 0 ? sequence->admitted_ms : now) - request.submitted_ms;
  const double ready = std::min(sequence->adapters_ready_ms, sequence->admitted_ms > 0 ? sequence->admitted_ms : now);
  end.adapter_load_ms = std::max(0.0, ready - request.submitted_ms);
  end.ttft_ms = sequence->first_token_ms > 0 ? sequence->first_token_ms - request.submitted_ms : 0;
  end.tpot_ms = sequence->output() > 1 ? (now - sequence->first_token_ms) / (sequence->output() - 1) : 0;
  for (size_t i = 0; i < sequence->adapters.size(); ++i)
    end.adapters.push_back({request.adapters[i].handle, sequence->tiers[i]});
  outbox_->Push(std::move(end));
  Forget(sequence);
}

void EngineCore::Fail(Sequence* sequence, const Status& status) {
  outbox_->Push(FailedEvent{sequence->request.id, status});
  Forget(sequence);
}

void EngineCore::Forget(Sequence* sequence) {
  // No step is in flight: its frames may be reused at once.
  scheduler_->Remove(sequence, step_);
  pool_.Reclaim(step_);
  const std::vector<Adapter*> adapters = sequence->adapters;
  sequences_.erase(sequence->request.id);
  for (Adapter* adapter : adapters) --adapter->references;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const bool is_repeated = std::find(adapters.begin(), adapters.begin() + static_cast<std::ptrdiff_t>(i),
                                       adapters[i]) != adapters.begin() + static_cast<std::ptrdiff_t>(i);
    if (!is_repeated) ReleaseAdapter(adapters[i]);
  }
}

void EngineCore::FailAll(const Status& status) {
  while (!sequences_.empty()) Fail(sequences_.begin()->second.get(), status);
}

void EngineCore::Close(const Status& status) {
  for (const auto& [handle, adapter] : residency_->adapters()) {
    if (adapter->state == AdapterState::kChecking) outbox_->Push(AdapterFailedEvent{handle, status});
  }
  FailAll(status);
}

double EngineCore::NextDeadlineMs() const {
  double next = -1;
  const double now = NowMs();
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->request.deadline_ms <= 0) continue;
    const double left = std::max(0.0, sequence->request.submitted_ms + sequence->request.deadline_ms - now);
    if (next < 0 || left < next) next = left;
  }
  return next;
}

Tier EngineCore::TierOf(const Adapter& adapter) const {
  if (adapter.state == AdapterState::kResident) return Tier::kResident;
  return adapter.state == AdapterState::kLoading ? Tier::kLoading : Tier::kRegistered;
}

EngineStats EngineCore::Stats() const {
  EngineStats stats = stats_;
  const OpCounters& counters = backend_.ops->counters();
  stats.weight_bytes_read = counters.weight_bytes_read;
  stats.lora_bytes_read = counters.lora_bytes_read;
  stats.lora_ops = counters.lora_ops;
  stats.page_table_reads = counters.page_table_reads;
  stats.preemptions = scheduler_->preemptions();
  stats.adapter_loads = residency_->loads();
  stats.adapter_evictions = residency_->evictions();
  stats.requests_queued = static_cast<int64_t>(scheduler_->waiting().size());
  stats.requests_running = static_cast<int64_t>(scheduler_->admitted().size());
  stats.adapters_resident = residency_->adapters_resident();
  stats.bytes_base = weights_.bytes();
  stats.bytes_kv = pool_.BytesOf(pool_.frames(FrameUse::kKv));
  stats.bytes_adapters = pool_.BytesOf(pool_.frames(FrameUse::kAdapter));
  stats.bytes_workspace = buffer_bytes_;
  stats.bytes_pool_free = pool_.BytesOf(pool_.frames_free());
  stats.bytes_pool = pool_.BytesOf(pool_.frames_total());
  return stats;
}

Status EngineCore::CheckInvariants() const {
  int64_t kv_frames = 0, adapter_frames = 0;
  std::unordered_map<const Adapter*, int32_t> pins, references;
  for (const auto& [id, sequence] : sequences_) {
    kv_frames += static_cast<int64_t>(sequence->kv.frames.size());
    for (const Adapter* adapter : sequence->adapters) {
      ++references[adapter];
      pins[adapter] += sequence->has_pins ? 1 : 0;
    }
    if (!sequence->request.has_penalties()) continue;
    int32_t counted = 0;
    for (const SeenToken& seen : sequence->seen.tokens()) counted += seen.count;
    if (counted != sequence->output())
      return Error(kErrInternal, "request %lld has %d tokens, its penalties count %d", static_cast<long long>(id),
                   sequence->output(), counted);
  }
  for (const auto& [handle, adapter] : residency_->adapters()) {
    adapter_frames += static_cast<int64_t>(adapter->frames.size());
    if (adapter->pins != pins[adapter.get()] || adapter->references != references[adapter.get()])
      return Error(kErrInternal, "adapter %lld has %d pins and %d references, its sequences make %d and %d",
                   static_cast<long long>(handle), adapter->pins, adapter->references, pins[adapter.get()],
                   references[adapter.get()]);
  }
  if (!pool_.IsConsistent() || kv_frames != pool_.frames(FrameUse::kKv) ||
      adapter_frames != pool_.frames(FrameUse::kAdapter))
    return Error(kErrInternal, "the pool counts %lld KV and %lld adapter frames, their owners hold %lld and %lld",
                 static_cast<long long>(pool_.frames(FrameUse::kKv)),
                 static_cast<long long>(pool_.frames(FrameUse::kAdapter)), static_cast<long long>(kv_frames),
                 static_cast<long long>(adapter_frames));
  return Ok();
}

}  // namespace openlora
