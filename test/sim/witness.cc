#include "sim/witness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "base/clock.h"
#include "memory/adapter_manifest.h"
#include "sim/oracle.h"
#include "sim/sim_model.h"
#include "sim/trace.h"

namespace openlora::sim {
namespace {

template <typename T>
bool IsPrefix(const std::vector<T>& part, const std::vector<T>& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

long long Long(int64_t value) { return value; }

}  // namespace

// Codes that say nothing about the rest of the company come first, as in the engine.
const char* Witness::RefusalOf(const Tracked& tracked, int64_t requests_in_engine) const {
  for (const Generation* generation : tracked.generations) {
    if (!generation->is_ready || generation->is_hidden) return kErrAdapterNotFound;
  }
  if (!FitsAlone(tracked)) return kErrOutOfMemory;
  return requests_in_engine >= scenario_.max_queued ? kErrOverloaded : nullptr;
}

// Its KV so far and the next token's, and its adapters.
bool Witness::FitsAlone(const Tracked& tracked) const {
  const auto tokens = static_cast<int64_t>(tracked.request.tokens.size() + tracked.tokens.size()) + 1;
  int64_t frames = (tokens + kFrameTokens - 1) / kFrameTokens * kLayers;
  std::set<const Generation*> distinct(tracked.generations.begin(), tracked.generations.end());
  for (const Generation* generation : distinct) frames += generation->frames;
  return frames <= frames_total_;
}

Tracked* Witness::Add(Request request, int64_t requests_in_engine) {
  Tracked tracked;
  tracked.request = std::move(request);
  for (const AdapterUse& use : tracked.request.adapters) tracked.generations.push_back(catalog_->Find(use.handle));
  tracked.refusal = RefusalOf(tracked, requests_in_engine);
  const std::string& tenant = tracked.request.tenant;
  const int32_t max = scenario_.max_queued_per_tenant;
  if (max > 0 && !tenant.empty()) {
    const auto of_tenant = std::count_if(live_.begin(), live_.end(), [&](const auto& other) {
      return other.second.refusal == nullptr && other.second.request.tenant == tenant;
    });
    tracked.may_be_overloaded = of_tenant >= max;
  }
  ++counts_.requests;
  const int64_t id = tracked.request.id;
  return &(live_[id] = std::move(tracked));
}

Tracked* Witness::Find(int64_t request) {
  const auto found = live_.find(request);
  return found == live_.end() ? nullptr : &found->second;
}

void Witness::NoteFailedLoad(int64_t handle) {
  for (auto& [id, tracked] : live_) {
    for (const AdapterUse& use : tracked.request.adapters) tracked.has_load_failed |= use.handle == handle;
  }
}

// What there is to do for all that are there, times what preemption and reloads may cost: each row eight times, each
// adapter of a request loaded eight times, and the readers' waits. Overdue is who is over both bounds: others may do
// many steps while a reader sleeps, and time may pass while few do.
void Witness::Watch(Tracked* tracked, int64_t step, bool is_draining) const {
  constexpr double kRepeats = 8;
  double rows = 0, ms = 0;
  for (const auto& [id, other] : live_) {
    if (other.refusal != nullptr) continue;
    const auto prompt = static_cast<int32_t>(other.request.tokens.size());
    rows += prompt + std::min(other.request.max_tokens, scenario_.max_context - prompt);
    for (const Generation* generation : other.generations)
      ms += static_cast<double>(generation->frames) * scenario_.load_ms * kSlowestLoad;
    ms += scenario_.read_ms;
  }
  tracked->watched_step = step;
  tracked->watched_ms = NowMs();
  tracked->steps_max = kRepeats * rows + 100;
  tracked->wait_ms_max = kRepeats * (ms + rows * StepMs(1)) + 100;
  if (scenario_.priorities > 0 && !is_draining) tracked->steps_max = tracked->wait_ms_max = INFINITY;
}

void Witness::WatchAll(int64_t step) {
  for (auto& [id, tracked] : live_) {
    tracked.is_paused = false;
    Watch(&tracked, step, true);
  }
}

double Witness::CheckWatched(int64_t step) const {
  double largest = 0;
  for (const auto& [id, tracked] : live_) {
    if (tracked.is_paused || tracked.refusal != nullptr) continue;
    const auto steps = static_cast<double>(step - tracked.watched_step);
    const double ms = NowMs() - tracked.watched_ms;
    const double share = std::min(steps / tracked.steps_max, ms / tracked.wait_ms_max);
    largest = std::max(largest, share);
    if (share > 1)
      Fail("watchdog", "request %lld hasn't ended %.0f steps and %.3f ms after it could, at most %.0f and %.3f",
           Long(id), steps, ms, tracked.steps_max, tracked.wait_ms_max);
  }
  return largest;
}

Tracked& Witness::Live(int64_t request, const char* what) {
  Tracked* tracked = Find(request);
  if (tracked == nullptr)
    Fail("terminal events", "%s of request %lld, which has ended or never was", what, Long(request));
  return *tracked;
}

void Witness::Read(const EventBatch& batch) {
  ReadRecords(batch.records);
  for (const ControlEvent& event : batch.events) ReadEvent(event);
}

void Witness::ReadRecords(const std::vector<uint8_t>& records) {
  for (size_t at = 0; at < records.size();) {
    uint32_t header[8];
    std::memcpy(header, records.data() + at, sizeof(header));
    Tracked& tracked = Live(header[1], "a record");
    float logprob;
    std::memcpy(&logprob, &header[4], sizeof(logprob));
    if (header[2] == static_cast<uint32_t>(RecordKind::kToken)) {
      tracked.tokens.push_back(static_cast<int32_t>(header[3]));
      if (header[7] != 0) tracked.logprobs.push_back(logprob);
      ++counts_.tokens;
    } else {
      tracked.prompt_logprobs.push_back(logprob);
    }
    at += header[0];
  }
}

void Witness::EndGeneration(int64_t handle) {
  Generation* generation = catalog_->Find(handle);
  if (generation == nullptr || generation->has_ended)
    Fail("terminal events", "adapter %lld has gone twice, or never was", Long(handle));
  generation->has_ended = true;
}

void Witness::ReadEvent(const ControlEvent& event) {
  if (const auto* end = std::get_if<EndEvent>(&event)) {
    const Tracked& tracked = Live(end->request, "an end");
    CheckEnd(tracked, *end);
    counts_.cached += end->cached_input;
    counts_.cancelled += end->reason == FinishReason::kCancelled ? 1 : 0;
    live_.erase(end->request);
  } else if (const auto* failed = std::get_if<FailedEvent>(&event)) {
    const Tracked& tracked = Live(failed->request, "a failure");
    CheckFailure(tracked, failed->status);
    ++(tracked.refusal != nullptr ? counts_.refused : counts_.failed);
    live_.erase(failed->request);
  } else if (const auto* refused = std::get_if<AdapterFailedEvent>(&event)) {
    EndGeneration(refused->handle);
  } else if (const auto* retired = std::get_if<AdapterRetiredEvent>(&event)) {
    if (!catalog_->Find(retired->handle)->is_hidden)
      Fail("terminal events", "adapter %lld retired though it is registered", Long(retired->handle));
    EndGeneration(retired->handle);
  }
}

void Witness::CheckEnd(const Tracked& tracked, const EndEvent& end) const {
  const Request& request = tracked.request;
  if (tracked.refusal != nullptr)
    Fail("refusal", "request %lld should have been %s", Long(request.id), tracked.refusal);
  const bool is_cancelled = end.reason == FinishReason::kCancelled;
  if (is_cancelled && !tracked.was_cancelled) Fail("unjust end", "request %lld: cancelled by nobody", Long(request.id));
  CheckTokens(tracked, !is_cancelled, end.reason);
  bool is_counted = end.input == static_cast<int32_t>(request.tokens.size()) &&
                    end.output == static_cast<int32_t>(tracked.tokens.size()) && end.cached_input >= 0 &&
                    end.cached_input < std::max(1, end.input) && end.adapters.size() == request.adapters.size();
  const double lived_ms = NowMs() - request.submitted_ms;
  for (const double ms : {end.queued_ms, end.adapter_load_ms, end.ttft_ms, end.tpot_ms})
    is_counted &= ms >= 0 && ms <= lived_ms;
  for (size_t i = 0; is_counted && i < end.adapters.size(); ++i)
    is_counted = end.adapters[i].handle == request.adapters[i].handle;
  if (!is_counted)
    Fail("counters", "request %lld: usage of %d, %d, %d cached, %g, %g, %g, %g ms within %g", Long(request.id),
         end.input, end.output, end.cached_input, end.queued_ms, end.adapter_load_ms, end.ttft_ms, end.tpot_ms,
         lived_ms);
}

void Witness::CheckFailure(const Tracked& tracked, const Status& status) const {
  const Request& request = tracked.request;
  const std::string_view code = status.code();
  if (tracked.refusal != nullptr) {
    if (code != tracked.refusal || !tracked.tokens.empty())
      Fail("refusal", "request %lld should have been %s, not %s: %s", Long(request.id), tracked.refusal, status.code(),
           status.message().c_str());
    return;
  }
  const double lived_ms = NowMs() - request.submitted_ms;
  const bool is_just = (code == kErrDeadline && request.deadline_ms > 0 && lived_ms > request.deadline_ms - 1e-6) ||
                       (code == kErrAdapterChanged && tracked.has_load_failed) ||
                       (code == kErrOutOfMemory && !FitsAlone(tracked));
  if (!is_just)
    Fail("unjust failure", "request %lld after %g ms: %s: %s", Long(request.id), lived_ms, status.code(),
         status.message().c_str());
  CheckTokens(tracked, false, FinishReason::kLength);
}

// Against what the request gets alone; of one that was cut short, as far as it came.
void Witness::CheckTokens(const Tracked& tracked, bool is_whole, FinishReason reason) const {
  const Request& request = tracked.request;
  std::vector<const TileContent*> contents;
  for (const Generation* generation : tracked.generations) contents.push_back(generation->content.get());
  Expected expected = ComputeAlone(request, contents, scenario_.max_context, scenario_.rope_switch);
  if (request.logprobs < 0) expected.logprobs.clear();
  const bool is_right = IsPrefix(tracked.tokens, expected.tokens) && IsPrefix(tracked.logprobs, expected.logprobs) &&
                        IsPrefix(tracked.prompt_logprobs, expected.prompt_logprobs);
  const bool is_complete = tracked.tokens.size() == expected.tokens.size() && reason == expected.reason &&
                           tracked.prompt_logprobs.size() == expected.prompt_logprobs.size();
  if (is_right && (!is_whole || is_complete)) return;
  size_t at = 0;
  while (at < std::min(tracked.tokens.size(), expected.tokens.size()) && tracked.tokens[at] == expected.tokens[at])
    ++at;
  Fail("answer",
       "request %lld of %zu prompt tokens and %zu adapters: %zu tokens, the first %zu right, end %d, %zu prompt "
       "logprobs; alone %zu tokens, end %d, %zu prompt logprobs",
       Long(request.id), request.tokens.size(), request.adapters.size(), tracked.tokens.size(), at,
       static_cast<int>(reason), tracked.prompt_logprobs.size(), expected.tokens.size(),
       static_cast<int>(expected.reason), expected.prompt_logprobs.size());
}

}  // namespace openlora::sim
