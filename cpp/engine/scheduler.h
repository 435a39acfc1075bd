#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"
#include "memory/adapter_residency.h"
#include "memory/eviction_order.h"
#include "memory/frame_pool.h"
#include "memory/kv_cache.h"

namespace openlora {

// What Plan decided. Nothing has changed until Commit.
struct StepPlan {
  std::vector<PlannedRows> rows;
  std::vector<Adapter*> evictions;
  std::vector<PrefixBlock*> drops;     // of the prefix index, children before parents
  std::vector<Sequence*> preemptions;  // lose their KV and wait again; recomputing gives the same bits
  std::vector<Sequence*> unpins;       // waiting ones whose reservation a running sequence takes back
  std::vector<Sequence*> pins;         // waiting ones whose adapters are reserved from now on
  std::vector<Adapter*> loads;         // take their frames and are to be loaded
  Sequence* starved = nullptr;         // the first that found no frames
  int64_t starved_frames = 0;          // that it needs at once, itself and its adapters
};

struct SchedulerLimits {
  int32_t rows = 0;        // of a step
  int32_t logit_rows = 0;  // of a step
};

// Decides which sequences get rows, frames and loads. First come, first served by (priority, arrival): rows that only
// continue an answer go first, so that nobody's prompt stalls them, then prompts in chunks. Under pressure unpinned
// adapters and cached prefixes go first (those worth least, EvictionOrder), then reservations of the waiting, then the
// KV of paused and of the youngest sequences. Engine thread only.
class Scheduler {
 public:
  Scheduler(SchedulerLimits limits, FramePool* pool, KvCache* kv, AdapterResidency* residency,
            const EvictionOrder* order)
      : limits_(limits), pool_(pool), kv_(kv), residency_(residency), order_(order) {}

  void Add(Sequence* sequence);
  // Gives back what it holds, whatever its state.
  void Remove(Sequence* sequence, uint64_t step);

  // `is_ready(sequence)`: its reader keeps up. `step`: the last completed one.
  template <typename IsReady>
  StepPlan Plan(const IsReady& is_ready) {
    for (Sequence* sequence : admitted_) can_run_[sequence] = !sequence->is_paused && is_ready(sequence);
    for (Sequence* sequence : waiting_) can_run_[sequence] = !sequence->is_paused && is_ready(sequence);
    StepPlan plan = PlanReady();
    can_run_.clear();
    return plan;
  }
  void Commit(const StepPlan& plan, uint64_t step);

  const std::vector<Sequence*>& waiting() const { return waiting_; }
  const std::vector<Sequence*>& admitted() const { return admitted_; }
  uint64_t preemptions() const { return preemptions_; }
  // Of prompts: that were looked for in the prefix index, and of these the found ones.
  uint64_t tokens_looked_up() const { return tokens_looked_up_; }
  uint64_t tokens_found() const { return tokens_found_; }

 private:
  class Ledger;
  StepPlan PlanReady();
  void PlanAdmitted(bool is_continuing, Ledger* ledger);
  void PlanWaiting(Ledger* ledger);
  bool PlanRows(Sequence* sequence, Ledger* ledger);
  bool ReserveFor(Sequence* sequence, Ledger* ledger);
  bool HasRoom(const Sequence& sequence, Ledger* ledger) const;
  PrefixHit Look(const Sequence& sequence, const Ledger& ledger) const;
  int32_t RowsFor(const Sequence& sequence, int32_t start, const Ledger& ledger) const;
  void Attach(const PlannedRows& planned, uint64_t step);
  void Unpin(Sequence* sequence);

  SchedulerLimits limits_;
  FramePool* pool_;
  KvCache* kv_;
  AdapterResidency* residency_;
  const EvictionOrder* order_;
  std::vector<Sequence*> waiting_;                     // by (priority descending, arrival)
  std::vector<Sequence*> admitted_;                    // likewise
  std::unordered_map<const Sequence*, bool> can_run_;  // during Plan
  uint64_t preemptions_ = 0;
  uint64_t tokens_looked_up_ = 0;
  uint64_t tokens_found_ = 0;
};

}  // namespace openlora
