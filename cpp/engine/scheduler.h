#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/fair_queue.h"
#include "engine/sequence.h"
#include "memory/adapter_residency.h"
#include "memory/frame_pool.h"
#include "memory/kv_cache.h"

namespace openlora {

// What Plan decided. Nothing has changed until Commit.
struct StepPlan {
  std::vector<PlannedRows> rows;
  std::vector<Adapter*> evictions;
  std::vector<Sequence*> preemptions;  // lose their KV and wait again; recomputing gives the same bits
  std::vector<Sequence*> given_way;    // of those: for a tenant that holds less
  std::vector<Sequence*> unpins;       // waiting ones whose reservation a running sequence takes back
  std::vector<Sequence*> pins;         // waiting ones whose adapters are reserved from now on
  std::vector<Adapter*> loads;         // take their frames and are to be loaded
  Sequence* starved = nullptr;         // the first that found no frames
  int64_t starved_frames = 0;          // that it needs at once, itself and its adapters
};

struct SchedulerLimits {
  int32_t rows = 0;          // of a step
  int32_t logit_rows = 0;    // of a step
  int64_t lora_bytes = 0;    // of adapters that a step may read, or one adapter's
  int64_t weight_bytes = 1;  // of the base: what a step reads anyway
};

// Decides which sequences get rows, frames and loads. Rows that only continue an answer go first, so that nobody's
// prompt stalls them, but for a quarter of each budget while prompts wait; then prompts in chunks. Where there is more
// to do than a step holds, and among the waiting, FairQueue says who goes first. Under pressure unpinned adapters go
// first (longest unused), then reservations of the waiting, then the KV of paused and of the youngest sequences, and of
// tenants that hold more than their share of the pool. Engine thread only.
class Scheduler {
 public:
  Scheduler(SchedulerLimits limits, FramePool* pool, KvCache* kv, AdapterResidency* residency)
      : limits_(limits), pool_(pool), kv_(kv), residency_(residency) {}

  void Add(Sequence* sequence) { queue_.Add(sequence); }
  // Gives back what it holds, whatever its state.
  void Remove(Sequence* sequence, uint64_t step);

  // `is_ready`: the sequence's reader keeps up; asked as often as needed, and stays as it is meanwhile.
  StepPlan Plan(const std::function<bool(const Sequence&)>& is_ready);
  // `step`: the last completed one.
  void Commit(const StepPlan& plan, uint64_t step);

  int64_t waiting() const { return queue_.waiting(); }
  int64_t admitted() const { return static_cast<int64_t>(admitted_.size()); }
  // Of `tenant`, waiting or not.
  int64_t SequencesOf(const std::string& tenant) const { return queue_.SequencesOf(tenant); }
  uint64_t preemptions() const { return preemptions_; }

 private:
  class Ledger;
  void PlanAdmitted(bool is_continuing, Ledger* ledger);
  void PlanPrompts(Ledger* ledger);
  enum class Turn { kGoesOn, kBlocksTenant, kBlocksAll };
  Turn PlanWaiting(Sequence* sequence, Ledger* ledger);
  void PlanIf(bool is_wanted, Sequence* sequence, Ledger* ledger);
  bool PlanRows(Sequence* sequence, Ledger* ledger);
  bool ReserveFor(Sequence* sequence, Ledger* ledger);
  bool HasRoom(const Sequence& sequence, Ledger* ledger) const;
  int32_t RowsFor(const Sequence& sequence, const Ledger& ledger) const;
  static bool IsContinuing(const Sequence& sequence) { return sequence.known() - sequence.computed == 1; }
  void Unpin(Sequence* sequence);
  void Preempt(Sequence* sequence, uint64_t step);
  void Charge(const StepPlan& plan);
  double CostOfBytes(int64_t bytes) const;

  SchedulerLimits limits_;
  FramePool* pool_;
  KvCache* kv_;
  AdapterResidency* residency_;
  FairQueue queue_;
  std::vector<Sequence*> reserved_;  // waiting ones that pin adapters, by (priority descending, arrival)
  std::vector<Sequence*> admitted_;  // likewise
  std::vector<Sequence*> in_turn_;   // admitted ones, who has had least first: during Plan
  uint64_t preemptions_ = 0;
};

}  // namespace openlora
