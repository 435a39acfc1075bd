#include "sim/simulator.h"

#include <algorithm>
#include <cmath>

#include "sim/simulation.h"

namespace openlora::sim {
namespace {

constexpr const char* kKindNames[] = {"arrive", "cancel",        "pause",          "resume",   "read",
                                      "churn",  "register name", "half done: job", "done: job"};

}  // namespace

void Simulator::Begin() {
  const Status opened = core_.Open(is_aborted_);
  if (!opened.ok()) Fail("open", "%s", opened.message().c_str());
  core_.Connect(this);
  witness_ = std::make_unique<Witness>(scenario_, &catalog_, core_.pool().frames_total());
  for (int32_t name = 0; name < scenario_.names; ++name) Register(name);
  Schedule(Some(scenario_.interval_ms), Kind::kArrive);
  if (scenario_.churn_ms > 0) Schedule(Some(scenario_.churn_ms), Kind::kChurn);
  outbox_.Flush();
}

// Nobody comes any more, nobody is paused: all must end.
void Simulator::BeginDrain() {
  is_draining_ = true;
  for (const auto& [id, tracked] : witness_->live()) core_.SetPaused(id, false);
  has_work_ = true;
  witness_->WatchAll(steps_);
  trace_.Note(steps_, "drain");
}

void Simulator::Turn() {
  if (!is_draining_ && steps_ >= options_.steps) BeginDrain();
  if (!has_work_) {
    Sleep();
  } else {
    DeliverDue();
  }
  Step();
}

void Simulator::Sleep() {
  for (bool has_come = false; !has_come;) {
    double next = events_.empty() ? INFINITY : events_.top().at;
    const double deadline_ms = core_.NextDeadlineMs();
    if (deadline_ms >= 0 && NowMs() + deadline_ms + 1e-3 < next) {
      next = NowMs() + deadline_ms + 1e-3;  // no timer is exact
      has_come = true;
    }
    if (std::isinf(next) && core_.requests() > 0)
      Fail("wake-up", "the engine sleeps, nothing will wake it, and it holds %lld requests",
           static_cast<long long>(core_.requests()));
    if (std::isinf(next))
      Fail("terminal events", "request %lld never ended, and the engine doesn't hold it",
           static_cast<long long>(witness_->live().empty() ? 0 : witness_->live().begin()->first));
    SetNowMs(std::max(NowMs(), next));
    has_come |= DeliverDue();
  }
}

bool Simulator::DeliverDue() {
  bool has_come = false;
  while (!events_.empty() && events_.top().at <= NowMs()) {
    const Event event = events_.top();
    events_.pop();
    trace_.Note(steps_, kKindNames[static_cast<size_t>(event.kind)], event.id);
    has_come |= Deliver(event);
  }
  return has_come;
}

bool Simulator::Deliver(const Event& event) {
  Tracked* const tracked = witness_->Find(event.id);
  switch (event.kind) {
    case Kind::kArrive:
      Arrive();
      return true;
    case Kind::kCancel:
      if (tracked != nullptr) tracked->was_cancelled = true;
      core_.Cancel(event.id);
      return true;
    case Kind::kPause:
    case Kind::kResume:
      if (is_draining_) return false;
      core_.SetPaused(event.id, event.kind == Kind::kPause);
      if (tracked != nullptr) tracked->is_paused = event.kind == Kind::kPause;
      if (tracked != nullptr && event.kind == Kind::kResume) witness_->Watch(tracked, steps_, false);
      return true;
    case Kind::kRead:
      Read();
      return true;
    case Kind::kChurn:
      Churn();
      return true;
    case Kind::kRegister:
      if (!is_draining_) Register(static_cast<int32_t>(event.id));
      return true;
    case Kind::kHalfDone:
      return HalfDo(event.id);
    case Kind::kDone:
      return EndJob(event.id);
  }
  return false;
}

void Simulator::Arrive() {
  if (is_draining_) return;
  Request request = maker_.Make(&catalog_);
  request.submitted_ms = NowMs();
  const int64_t id = request.id, before = core_.requests();
  Tracked* const tracked = witness_->Add(request, before);
  core_.Submit(std::move(request));
  if (core_.requests() == before && tracked->refusal == nullptr && tracked->may_be_overloaded)
    tracked->refusal = kErrOverloaded;
  if ((core_.requests() > before) != (tracked->refusal == nullptr))
    Fail("refusal", "request %lld was %s, expected was %s", static_cast<long long>(id),
         core_.requests() > before ? "accepted" : "refused",
         tracked->refusal == nullptr ? "accepted" : tracked->refusal);
  if (tracked->refusal == nullptr) witness_->Watch(tracked, steps_, false);
  if (random_.Chance(scenario_.cancels)) Schedule(Some(20), Kind::kCancel, id);
  if (random_.Chance(scenario_.pauses)) {
    const double pause_ms = Some(10);
    Schedule(pause_ms, Kind::kPause, id);
    Schedule(pause_ms + Some(50), Kind::kResume, id);
  }
  Schedule(maker_.NextIntervalMs(), Kind::kArrive);
}

// A name gets a new generation, or goes and comes back later.
void Simulator::Churn() {
  if (is_draining_) return;
  const int32_t name = catalog_.PickName();
  Generation* const current = catalog_.Current(name);
  if (current != nullptr && random_.Chance(scenario_.leaves_away)) {
    catalog_.TakeAway(name);
    Unregister(current);
    Schedule(Some(scenario_.churn_ms), Kind::kRegister, name);
  } else {
    Register(name);
  }
  Schedule(Some(scenario_.churn_ms), Kind::kChurn);
}

void Simulator::Register(int32_t name) {
  Generation* const generation = catalog_.Add(name);
  trace_.Note(steps_, "register handle, name", generation->handle, name);
  core_.Register(generation->handle, ManifestOf(*generation->content, "name" + std::to_string(name)));
  if (random_.Chance(0.02)) Unregister(generation);
}

void Simulator::Unregister(Generation* generation) {
  trace_.Note(steps_, "unregister handle", generation->handle);
  generation->is_hidden = true;
  core_.Unregister(generation->handle);
}

void Simulator::Read() {
  const EventBatch batch = outbox_.Take();
  for (const uint8_t byte : batch.records) read_digest_ = Mix(read_digest_, byte);
  trace_.Note(steps_, "events, records", static_cast<int64_t>(batch.events.size()), static_cast<int64_t>(read_digest_));
  witness_->Read(batch);
}

// As Engine::Loop does: false means that nothing can be done before something comes in, so asking again at once must
// change nothing.
void Simulator::Step() {
  const uint64_t rows_before = ops_->rows_computed();
  ++steps_;
  has_work_ = core_.Step();
  const auto rows = static_cast<int64_t>(ops_->rows_computed() - rows_before);
  trace_.Note(steps_, "step of rows, requests", rows, core_.requests());
  if (!has_work_ && (core_.Step() || ops_->rows_computed() != rows_before + static_cast<uint64_t>(rows)))
    Fail("wake-up", "the engine would have slept, and had work when it was asked again");
  SetNowMs(NowMs() + StepMs(rows));
  CheckState();
  outbox_.Flush();
}

RunResult Simulate(const RunOptions& options) { return Simulator(options).Run(); }

}  // namespace openlora::sim
