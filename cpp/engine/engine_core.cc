#include "engine/engine_core.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_set>

#include "base/check.h"
#include "base/clock.h"
#include "base/plant.h"
#include "engine/prefix_realm.h"

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

std::optional<double> DeadlineOf(const Request& request) {
  if (request.deadline_ms <= 0) return std::nullopt;
  return request.submitted_ms + request.deadline_ms;
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

Status EngineCore::CheckTenant(const Request& request) const {
  const int32_t max = options_.max_queued_per_tenant;
  if (request.tenant.empty() || max == 0) return Ok();
  const int64_t count = scheduler_->SequencesOf(request.tenant);
  if (count < max) return Ok();
  return Error(kErrOverloaded, "%lld requests of this tenant wait or run, maxQueuedPerTenant is %d",
               static_cast<long long>(count), max);
}

void EngineCore::Submit(Request request) {
  std::vector<Adapter*> adapters;
  Status status = CheckRequest(request);
  if (status.ok()) status = FindAdapters(request, &adapters);
  if (status.ok() && requests() >= options_.max_queued)
    status = Error(kErrOverloaded, "%lld requests wait or run, maxQueued is %d", static_cast<long long>(requests()),
                   options_.max_queued);
  if (status.ok()) status = CheckTenant(request);
  if (!status.ok()) return outbox_->Push(FailedEvent{request.id, status});

  auto sequence = std::make_unique<Sequence>();
  sequence->arrival = arrivals_++;
  sequence->tokens = request.tokens;
  sequence->adapters = std::move(adapters);
  for (Adapter* adapter : sequence->adapters) {
    ++adapter->references;
    sequence->tiers.push_back(TierOf(*adapter));
    ++stats_.adapter_hits[static_cast<size_t>(sequence->tiers.back())];
    PrepareFor(adapter, Preparing::kWaited);
  }
  sequence->is_long = options_.model.rope_switch > 0 && sequence->known() > options_.model.rope_switch;
  sequence->text = TextStream(request.stop);
  sequence->early_bias = ForbidEnds(request);
  sequence->seen = CountPrompt(request);
  sequence->request = std::move(request);
  if (const std::optional<double> at = DeadlineOf(sequence->request)) deadlines_.emplace(*at, sequence->request.id);
  sequence->prefix_realm = PrefixRealm(*sequence);
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

bool EngineCore::IsReady(const Sequence& sequence) const {
  return sequence.delivery_epoch != epoch_ || sequence.undelivered < kUndeliveredMax;
}

StepPlan EngineCore::MakePlan() {
  StepPlan plan = scheduler_->Plan([this](const Sequence& sequence) { return IsReady(sequence); },
                                   {pace_.rows(), pace_.rows_short()});
  scheduler_->Commit(plan, step_);
  if (IsPlanted(Plant::kBookedTwice) && plan.loads.empty() && plan.evictions.empty()) scheduler_->Commit(plan, step_);
  return plan;
}

bool EngineCore::Step() {
  ExpireRequests();
  pool_.Reclaim(step_);  // what adapters gave back since the last step: none is in flight
  // Once: the reader may take what there is at any moment, and whoever asks later must see what the plan saw.
  epoch_ = outbox_->epoch();
  StepPlan plan = MakePlan();
  // A part of what loads may take of a step, or a MiB: here nothing else runs meanwhile.
  const int64_t bytes_now_max = std::min(upload_bytes_, std::max<int64_t>(1 << 20, upload_bytes_ / 4));
  int64_t bytes_now = bytes_now_max;
  // Each time something more was loaded at once; what was planned before stays booked, and is planned again.
  while (StartLoads(plan, &bytes_now)) plan = MakePlan();
  // Loads take a bounded part of a step's time from the rows that it has; where there are none, they may take all.
  loader_->SetUploadBytes(plan.rows.empty() ? INT64_MAX : upload_bytes_ - (bytes_now_max - bytes_now));
  if (plan.rows.empty()) return HandleStuck(plan);
  scheduler_->Charge(plan);
  RunBatch(plan);
  if (options_.checks_invariants) {
    const Status status = CheckInvariants();
    if (!status.ok()) FailAll(status);
  }
  return !IsPlanted(Plant::kLostWakeUp) || !sample_rows_.empty();
}

void EngineCore::ExpireRequests() {
  if (deadlines_.empty()) return;
  const double now = NowMs();
  while (!deadlines_.empty() && deadlines_.begin()->first < now) {
    Sequence* sequence = sequences_.at(deadlines_.begin()->second).get();
    Fail(sequence, Error(kErrDeadline, "the answer wasn't complete within deadlineMs = %g; %d tokens were generated",
                         sequence->request.deadline_ms, sequence->output()));
  }
}

// Nothing was planned. True if that was resolved here and another plan may do better.
bool EngineCore::HandleStuck(const StepPlan& plan) {
  if (!plan.preemptions.empty() || !plan.unpins.empty() || !plan.evictions.empty() || !plan.drops.empty()) return true;
  if (!plan.pins.empty()) return true;                   // they were charged for their loads: others may go first now
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
    const bool can_run = !sequence->is_paused && IsReady(*sequence);
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
  }
  batch_.Build(plan.rows);
  if (IsPlanted(Plant::kFreedEarly)) {
    Sequence* last = plan.rows.back().sequence;
    if (last->computed > last->kv.shared.blocks * frame_tokens_) kv_->Release(&last->kv, step_);
    pool_.Reclaim(step_);
  }
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
  pace_.Took(batch_.rows(), NowMs() - now);
  step_ = step;
  ++stats_.steps;
  stats_.rows += static_cast<uint64_t>(batch_.rows());
  for (const PlannedRows& planned : plan.rows) {
    Sequence* sequence = planned.sequence;
    sequence->computed += planned.rows;
    const auto computed = std::span(sequence->tokens).first(static_cast<size_t>(sequence->computed));
    kv_->Publish(&sequence->kv, sequence->prefix_realm, computed, step_);
  }
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
  sequence->prefix_realm = PrefixRealm(*sequence);
}

void EngineCore::PushRecord(Sequence* sequence, RecordKind kind, const SampleResult& result, bool has_logprob,
                            std::string_view text) {
  outbox_->PushRecord(kind, sequence->request.id, result, has_logprob, text);
  if (std::exchange(sequence->delivery_epoch, epoch_) != epoch_) sequence->undelivered = 0;
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
  end.cached_input = sequence->cached_input;
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
  if (const std::optional<double> at = DeadlineOf(sequence->request)) deadlines_.erase({*at, sequence->request.id});
  std::vector<Adapter*> adapters = sequence->adapters;
  sequences_.erase(sequence->request.id);
  for (Adapter* adapter : adapters) --adapter->references;
  // Not by address: what comes next must not depend on where things stand in memory.
  std::sort(adapters.begin(), adapters.end(), [](const Adapter* a, const Adapter* b) { return a->handle < b->handle; });
  adapters.erase(std::unique(adapters.begin(), adapters.end()), adapters.end());
  for (Adapter* adapter : adapters) ReleaseAdapter(adapter);
}

void EngineCore::FailAll(const Status& status) {
  while (!sequences_.empty()) Fail(sequences_.begin()->second.get(), status);
}

void EngineCore::Close(const Status& status) {
  for (const auto& [handle, adapter] : residency_->adapters()) {
    if (adapter->state == AdapterState::kChecking) outbox_->Push(AdapterFailedEvent{handle, status});
  }
  FailHolds(status);
  FailAll(status);
}

double EngineCore::NextDeadlineMs() const {
  return deadlines_.empty() ? -1 : std::max(0.0, deadlines_.begin()->first - NowMs());
}

EngineStats EngineCore::Stats() const {
  EngineStats stats = stats_;
  const OpCounters& counters = backend_.ops->counters();
  stats.weight_bytes_read = counters.weight_bytes_read;
  stats.lora_bytes_read = counters.lora_bytes_read;
  stats.lora_ops = counters.lora_ops;
  stats.page_table_reads = counters.page_table_reads;
  stats.graphs = backend_.ops->graphs();
  stats.preemptions = scheduler_->preemptions();
  stats.prefix_tokens_looked_up = scheduler_->tokens_looked_up();
  stats.prefix_tokens_found = scheduler_->tokens_found();
  stats.adapter_loads = residency_->loads();
  stats.adapter_evictions = residency_->evictions();
  stats.requests_queued = scheduler_->waiting();
  stats.requests_running = scheduler_->admitted();
  stats.adapters_resident = residency_->adapters_resident();
  stats.adapters_host = host_->adapters();
  stats.bytes_host_adapters = host_->bytes();
  stats.bytes_pinned = pinned_bytes_;
  stats.bytes_base = weights_.bytes();
  stats.bytes_kv = pool_.BytesOf(pool_.frames(FrameUse::kKv));
  stats.bytes_prefix = pool_.BytesOf(pool_.frames(FrameUse::kPrefix));
  stats.bytes_adapters = pool_.BytesOf(pool_.frames(FrameUse::kAdapter));
  stats.bytes_workspace = buffer_bytes_;
  stats.bytes_pool_free = pool_.BytesOf(pool_.frames_free());
  stats.bytes_pool = pool_.BytesOf(pool_.frames_total());
  return stats;
}

}  // namespace openlora
