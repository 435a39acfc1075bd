#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "engine/engine_core.h"
#include "sim/catalog.h"
#include "sim/request_maker.h"
#include "sim/scenario.h"
#include "sim/sim_model.h"
#include "sim/simulator.h"
#include "sim/trace.h"
#include "sim/witness.h"

namespace openlora::sim {

enum class Kind : uint8_t {
  kArrive,
  kCancel,
  kPause,
  kResume,
  kRead,
  kChurn,
  kRegister,  // of a name
  kHalfDone,
  kDone,
};
struct Event {
  double at = 0;
  uint64_t order = 0;  // of events at one time
  Kind kind = Kind::kArrive;
  int64_t id = 0;  // of a request, a name, or a job
};
struct IsLater {
  bool operator()(const Event& a, const Event& b) const { return a.at != b.at ? a.at > b.at : a.order > b.order; }
};

// The clients, the loader, the clock and the engine's loop (Engine::Loop), all on one thread.
class Simulator final : public LoaderPort {
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
  ~Simulator() override { SetPlanted(Plant::kNone); }

  RunResult Run() {
    RunResult result;
    try {
      Begin();
      while (!is_draining_ || core_.requests() > 0 || !jobs_.empty() || !witness_->live().empty()) Turn();
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
  void Start(LoaderJob asked) override;
  bool LoadNow(const LoaderJob& job, LoaderResult* result) override;
  void Drop(int64_t handle) override;
  bool HalfDo(int64_t id);
  bool EndJob(int64_t id);
  void EndCheck(LoaderResult result, const AdapterManifest& manifest);
  void Read();
  void CheckState();
  void CheckOwners() const;
  void CheckStats();
  void CheckDrained();
  std::string Report(const SimFailure& failure) const;
  std::string State() const;

  void Schedule(double in_ms, Kind kind, int64_t id = 0) { events_.push({NowMs() + in_ms, next_order_++, kind, id}); }
  double Some(double mean_ms) { return 2 * mean_ms * random_.Uniform(); }

  // What the loader is at.
  struct Job {
    LoaderJob asked;
    TileLayout layout;  // of a load
    bool fails = false;
    bool is_dropped = false;
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
  std::map<int64_t, Job> jobs_;
  int64_t next_job_ = 1;
  bool has_work_ = false;  // what the last step said
  bool is_draining_ = false;
  int64_t steps_ = 0;
  Trace trace_;
  uint64_t read_digest_ = 0;
  EngineStats last_stats_;
  double wait_share_ = 0;
};

}  // namespace openlora::sim
