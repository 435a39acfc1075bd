#pragma once

#include <map>
#include <vector>

#include "engine/outbox.h"
#include "engine/request.h"
#include "sim/catalog.h"
#include "sim/scenario.h"
#include "sim/simulator.h"

namespace openlora::sim {

// A request that was submitted and whose end hasn't been read.
struct Tracked {
  Request request;
  std::vector<const Generation*> generations;  // of its adapters, in its order
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<float> prompt_logprobs;
  const char* refusal = nullptr;   // the code that its submission must bring
  bool may_be_overloaded = false;  // too many of its tenant, unless one has ended that nobody has read of
  bool was_cancelled = false;
  bool has_load_failed = false;  // of one of its adapters, since it was submitted
  bool is_paused = false;
  // The watchdog: it must have ended by then, unless it is paused.
  int64_t watched_step = 0;
  double watched_ms = 0;
  double steps_max = 0;
  double wait_ms_max = 0;
};

// Knows what is right: reads what the engine brings and holds it against what was asked for. Throws SimFailure.
class Witness {
 public:
  Witness(const Scenario& scenario, Catalog* catalog, int64_t frames_total)
      : scenario_(scenario), catalog_(catalog), frames_total_(frames_total) {}

  Tracked* Add(Request request, int64_t requests_in_engine);
  Tracked* Find(int64_t request);
  const std::map<int64_t, Tracked>& live() const { return live_; }
  // A load of the adapter failed: those that name it may.
  void NoteFailedLoad(int64_t handle);
  // The request's time begins now, in this company. Where larger priorities may come for ever, not yet.
  void Watch(Tracked* tracked, int64_t step, bool is_draining) const;
  void WatchAll(int64_t step);
  // Nobody may be overdue. The largest used share of a bound.
  double CheckWatched(int64_t step) const;

  void Read(const EventBatch& batch);
  const RunCounts& counts() const { return counts_; }

 private:
  const char* RefusalOf(const Tracked& tracked, int64_t requests_in_engine) const;
  bool FitsAlone(const Tracked& tracked) const;
  void ReadRecords(const std::vector<uint8_t>& records);
  void ReadEvent(const ControlEvent& event);
  void CheckEnd(const Tracked& tracked, const EndEvent& end) const;
  void CheckFailure(const Tracked& tracked, const Status& status) const;
  void CheckTokens(const Tracked& tracked, bool is_whole, FinishReason reason) const;
  void EndGeneration(int64_t handle);
  Tracked& Live(int64_t request, const char* what);

  const Scenario& scenario_;
  Catalog* catalog_;
  const int64_t frames_total_;
  std::map<int64_t, Tracked> live_;
  RunCounts counts_;
};

}  // namespace openlora::sim
