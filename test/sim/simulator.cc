#include "sim/simulator.h"

#include <cmath>
#include <map>
#include <queue>
#include <vector>

#include "engine/engine_core.h"
#include "sim/catalog.h"
#include "sim/request_maker.h"
#include "sim/scenario.h"
#include "sim/sim_model.h"
#include "sim/trace.h"
#include "sim/witness.h"

namespace openlora::sim {
namespace {

enum class Kind : uint8_t {
  kArrive,
  kCancel,
  kPause,
  kResume,
  kRead,
  kChurn,
  kRegister,  // of a name
  kHalfLoaded,
  kLoaded,
  kChecked,
};
constexpr const char* kKindNames[] = {"arrive", "cancel",        "pause",          "resume",        "read",
                                      "churn",  "register name", "half loaded of", "load's end of", "check's end of"};

struct Event {
  double at = 0;
  uint64_t order = 0;  // of events at one time
  Kind kind = Kind::kArrive;
  int64_t id = 0;  // of a request, a name, or a handle
};
struct IsLater {
  bool operator()(const Event& a, const Event& b) const { return a.at != b.at ? a.at > b.at : a.order > b.order; }
};

// The clients, the loader, the clock and the engine's loop (Engine::Loop), all on one thread.
class Simulator {
 public:
  explicit Simulator(const RunOptions& options)
      : options_(options),
        scenario_(MakeScenario(options.seed)),
        random_(options.seed, 4),
        core_(SimOptions(scenario_, &ops_), &outbox_),
        catalog_(scenario_, options.seed, SiteShapes(SimConfig(scenario_))),
        maker_(scenario_, options.seed) {
    SetPlanted(options.plant);
    SetNowMs(1000);  // the engine takes 0 for never
  }
  ~Simulator() { SetPlanted(Plant::kNone); }

  RunResult Run() {
    RunResult result;
    try {
      Begin();
      while (!is_draining_ || core_.requests() > 0 || jobs_ > 0 || !witness_->live().empty()) Turn();
      CheckDrained();
    } catch (const SimFailure& failure) {
      result.check = failure.check;
      result.report = Report(failure);
    }
    result.steps = steps_;
    result.ms = NowMs() - 1000;
    result.trace = trace_.digest();
    result.wait_share = wait_share_;
    if (witness_) result.counts = witness_->counts();
    result.counts.registrations = static_cast<int64_t>(catalog_.generations().size());
    result.counts.loads = static_cast<int64_t>(last_stats_.adapter_loads);
    result.counts.evictions = static_cast<int64_t>(last_stats_.adapter_evictions);
    result.counts.preemptions = static_cast<int64_t>(last_stats_.preemptions);
    return result;
  }

 private:
  void Begin();
  void BeginDrain();
  void Turn();
  // Until something comes in, as Engine::Wait does.
  void Sleep();
  // Everything that is due; true if something of it went to the engine.
  bool DeliverDue();
  bool Deliver(const Event& event);
  void Step();
  void Arrive();
  void Churn();
  void Register(int32_t name);
  void Unregister(Generation* generation);
  void StartCheck(Adapter* adapter);
  void StartLoad(Adapter* adapter);
  bool EndCheck(int64_t handle);
  bool EndLoad(int64_t handle);
  void Read();
  void CheckState();
  void CheckOwners() const;
  void CheckStats();
  void CheckDrained();
  std::string Report(const SimFailure& failure) const;
  std::string State() const;

  void Schedule(double in_ms, Kind kind, int64_t id = 0) { events_.push({NowMs() + in_ms, next_order_++, kind, id}); }
  double Some(double mean_ms) { return 2 * mean_ms * random_.Uniform(); }

  struct Load {
    Adapter* adapter = nullptr;
    bool fails = false;
  };

  const RunOptions options_;
  const Scenario scenario_;
  Random random_;
  SimOps* ops_ = nullptr;
  std::atomic<bool> is_aborted_{false};
  Outbox outbox_{[this] { Schedule(Some(scenario_.read_ms), Kind::kRead); }};
  EngineCore core_;
  Catalog catalog_;
  RequestMaker maker_;
  std::unique_ptr<Witness> witness_;

  std::priority_queue<Event, std::vector<Event>, IsLater> events_;
  uint64_t next_order_ = 0;
  std::map<int64_t, Load> loads_;       // by handle
  std::map<int64_t, Adapter*> checks_;  // likewise
  int64_t jobs_ = 0;                    // of both
  bool has_work_ = false;               // what the last step said
  bool is_draining_ = false;
  int64_t steps_ = 0;
  Trace trace_;
  uint64_t read_digest_ = 0;
  EngineStats last_stats_;
  double wait_share_ = 0;
};

void Simulator::Begin() {
  const Status opened = core_.Open(is_aborted_);
  if (!opened.ok()) Fail("open", "%s", opened.message().c_str());
  core_.Connect({[this](Adapter* adapter) { StartCheck(adapter); }, [this](Adapter* adapter) { StartLoad(adapter); }});
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
    case Kind::kHalfLoaded: {
      const Load& load = loads_.at(event.id);
      FillFrames(*catalog_.Find(event.id)->content, *load.adapter, core_.pool(), core_.residency().format(),
                 catalog_.shapes(), 0);
      return false;
    }
    case Kind::kLoaded:
      return EndLoad(event.id);
    case Kind::kChecked:
      return EndCheck(event.id);
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

void Simulator::StartCheck(Adapter* adapter) {
  checks_[adapter->handle] = adapter;
  ++jobs_;
  Schedule(Some(scenario_.check_ms), Kind::kChecked, adapter->handle);
}

bool Simulator::EndCheck(int64_t handle) {
  Generation* const generation = catalog_.Find(handle);
  LoaderResult result{checks_.at(handle), true, {}, {}};
  checks_.erase(handle);
  --jobs_;
  const bool is_refused = random_.Chance(scenario_.check_fails);
  if (is_refused) {
    generation->is_hidden = true;
    result.status = Status(kErrAdapterShape, "as the simulator wants it");
    core_.FinishLoader(std::move(result));
    return true;
  }
  result.identity.generation = std::to_string(generation->content->digest);
  generation->is_ready = true;
  generation->frames =
      PlanTiles(result.adapter->manifest, core_.residency().shapes(), core_.residency().format()).frames;
  core_.FinishLoader(std::move(result));
  if (generation->is_hidden) return true;
  Generation* const current = catalog_.Current(generation->name);
  const bool is_late = current != nullptr && current->handle > generation->handle;
  Generation* const superseded = is_late ? generation : catalog_.Publish(generation);
  if (superseded != nullptr) Unregister(superseded);
  return true;
}

void Simulator::StartLoad(Adapter* adapter) {
  if (!loads_.emplace(adapter->handle, Load{adapter, random_.Chance(scenario_.load_fails)}).second)
    Fail("loads", "adapter %lld is to be loaded while it is being loaded", static_cast<long long>(adapter->handle));
  ++jobs_;
  const double slow = random_.Chance(0.1) ? kSlowestLoad : 1;
  const double ms = static_cast<double>(adapter->frames.size()) * scenario_.load_ms * slow * random_.Uniform();
  trace_.Note(steps_, "load handle, frames", adapter->handle, static_cast<int64_t>(adapter->frames.size()));
  Schedule(ms / 2, Kind::kHalfLoaded, adapter->handle);
  Schedule(ms, Kind::kLoaded, adapter->handle);
}

bool Simulator::EndLoad(int64_t handle) {
  const Load load = loads_.at(handle);
  loads_.erase(handle);
  --jobs_;
  LoaderResult result{load.adapter, false, {}, {}};
  if (load.fails) {
    witness_->NoteFailedLoad(handle);
    result.status = Status(kErrAdapterChanged, "as the simulator wants it");
  } else {
    FillFrames(*catalog_.Find(handle)->content, *load.adapter, core_.pool(), core_.residency().format(),
               catalog_.shapes(), 1);
  }
  core_.FinishLoader(std::move(result));
  return true;
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

void Simulator::CheckState() {
  if (options_.asks_engine) {
    const Status sound = core_.CheckInvariants();
    if (!sound.ok()) Fail("invariants", "%s", sound.message().c_str());
  }
  const FramePool& pool = core_.pool();
  int64_t sum = 0;
  for (int use = 0; use < kFrameUses; ++use) sum += pool.frames(static_cast<FrameUse>(use));
  if (!pool.IsConsistent() || sum != pool.frames_total())
    Fail("frames", "the uses add up to %lld of %lld frames, or the free list is wrong", static_cast<long long>(sum),
         static_cast<long long>(pool.frames_total()));
  CheckOwners();
  CheckStats();
  wait_share_ = std::max(wait_share_, witness_->CheckWatched(steps_));
}

// Of adapters: each has what it needs in its state, nobody has another's frame or slot.
void Simulator::CheckOwners() const {
  std::vector<bool> is_owned(static_cast<size_t>(core_.pool().frames_total()));
  std::map<int32_t, int64_t> slots;
  int64_t loading = 0;
  for (const auto& [handle, adapter] : core_.residency().adapters()) {
    const bool has_frames = adapter->state == AdapterState::kLoading || adapter->state == AdapterState::kResident;
    loading += adapter->state == AdapterState::kLoading ? 1 : 0;
    bool is_sound = adapter->frames.size() == static_cast<size_t>(has_frames ? adapter->frames_needed : 0);
    for (const uint32_t frame : adapter->frames) {
      is_sound &= !is_owned[frame];
      is_owned[frame] = true;
    }
    if (adapter->state == AdapterState::kResident)
      is_sound &= adapter->slot >= 0 && slots.emplace(adapter->slot, handle).second;
    if (!is_sound)
      Fail("frames", "adapter %lld in state %d holds %zu frames of %lld in slot %d, or another's",
           static_cast<long long>(handle), static_cast<int>(adapter->state), adapter->frames.size(),
           static_cast<long long>(adapter->frames_needed), adapter->slot);
  }
  if (loading != static_cast<int64_t>(loads_.size()))
    Fail("loads", "%lld adapters load, the loader has %zu", static_cast<long long>(loading), loads_.size());
}

void Simulator::CheckStats() {
  const EngineStats stats = core_.Stats();
  const FramePool& pool = core_.pool();
  const bool is_right =
      stats.requests_queued + stats.requests_running == core_.requests() && stats.rows == ops_->rows_computed() &&
      stats.adapter_loads - stats.adapter_evictions == static_cast<uint64_t>(stats.adapters_resident) &&
      stats.bytes_pool == pool.frames_total() * kFrameBytes &&
      stats.bytes_kv + stats.bytes_adapters + stats.bytes_pool_free <= stats.bytes_pool &&
      stats.steps >= last_stats_.steps && stats.tokens_out >= last_stats_.tokens_out &&
      stats.tokens_out >= static_cast<uint64_t>(witness_->counts().tokens);
  last_stats_ = stats;
  if (!is_right)
    Fail("counters", "queued %lld, running %lld of %lld; rows %llu of %llu; loads %llu, evictions %llu, resident %lld",
         static_cast<long long>(stats.requests_queued), static_cast<long long>(stats.requests_running),
         static_cast<long long>(core_.requests()), static_cast<unsigned long long>(stats.rows),
         static_cast<unsigned long long>(ops_->rows_computed()), static_cast<unsigned long long>(stats.adapter_loads),
         static_cast<unsigned long long>(stats.adapter_evictions), static_cast<long long>(stats.adapters_resident));
}

// Nothing runs: what is left are names, and then not even those.
void Simulator::CheckDrained() {
  for (const auto& [handle, adapter] : core_.residency().adapters()) {
    if (adapter->pins != 0 || adapter->references != 0)
      Fail("drained", "adapter %lld is left with %d pins and %d references", static_cast<long long>(handle),
           adapter->pins, adapter->references);
  }
  for (const auto& [handle, generation] : catalog_.generations()) {
    if (!generation->is_hidden) Unregister(generation.get());
  }
  Step();
  Read();
  for (const auto& [handle, generation] : catalog_.generations()) {
    if (!generation->has_ended) Fail("terminal events", "adapter %lld never went", static_cast<long long>(handle));
  }
  const FramePool& pool = core_.pool();
  if (!core_.residency().adapters().empty() || pool.frames(FrameUse::kKv) + pool.frames(FrameUse::kAdapter) != 0)
    Fail("drained", "%zu adapters, %lld KV and %lld adapter frames are left", core_.residency().adapters().size(),
         static_cast<long long>(pool.frames(FrameUse::kKv)), static_cast<long long>(pool.frames(FrameUse::kAdapter)));
  if (last_stats_.tokens_out != static_cast<uint64_t>(witness_->counts().tokens))
    Fail("counters", "%llu tokens were generated, %lld were read",
         static_cast<unsigned long long>(last_stats_.tokens_out), static_cast<long long>(witness_->counts().tokens));
}

// Who holds what.
std::string Simulator::State() const {
  char text[200];
  const FramePool& pool = core_.pool();
  std::snprintf(text, sizeof(text), "frames: %lld free, %lld KV, %lld prefix, %lld of adapters, %lld retiring; pinned:",
                static_cast<long long>(pool.frames_free()), static_cast<long long>(pool.frames(FrameUse::kKv)),
                static_cast<long long>(pool.frames(FrameUse::kPrefix)),
                static_cast<long long>(pool.frames(FrameUse::kAdapter)),
                static_cast<long long>(pool.frames(FrameUse::kRetiring)));
  std::string state = text;
  for (const auto& [handle, adapter] : core_.residency().adapters()) {
    if (adapter->pins == 0) continue;
    std::snprintf(text, sizeof(text), " %lld (%zu frames, %d times)", static_cast<long long>(handle),
                  adapter->frames.size(), adapter->pins);
    state += text;
  }
  return state + "\n";
}

std::string Simulator::Report(const SimFailure& failure) const {
  const auto seed = static_cast<unsigned long long>(options_.seed);
  const auto steps = static_cast<long long>(options_.steps);
  char head[200];
  std::snprintf(head, sizeof(head), "seed %llu, step %lld, %.3f ms: %s: ", seed, static_cast<long long>(steps_),
                NowMs() - 1000, failure.check.c_str());
  char replay[100];
  std::snprintf(replay, sizeof(replay), "replay: openlora_sim --seed %llu --steps %lld --plant %d\n", seed, steps,
                static_cast<int>(options_.plant));
  return head + failure.message + "\n" + Describe(scenario_) + "\n" + State() + trace_.Last() + replay;
}

}  // namespace

RunResult Simulate(const RunOptions& options) { return Simulator(options).Run(); }

}  // namespace openlora::sim
