#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "engine/fair_queue.h"
#include "engine/sequence.h"
#include "engine/step_ledger.h"
#include "memory/adapter_residency.h"
#include "memory/eviction_order.h"
#include "memory/frame_pool.h"
#include "memory/kv_cache.h"

namespace openlora {

struct SchedulerLimits {
  StepBudget budget;
  int64_t weight_bytes = 1;  // of the base: what a step reads anyway
};

// Rows of a step while there is more than one sequence: nobody else waits for the end of a lone one's.
struct SharedRows {
  int32_t rows = 0;
  // Where the first prompt is of a tenant that asks for little beside others, or as many as such prompts need: they
  // shall not wait for the end of rows that others fill the step with.
  int32_t rows_short = 0;
};

// Decides which sequences get rows, frames and loads. Rows that only continue an answer go first, so that nobody's
// prompt stalls them, but for a part of each budget while prompts wait; then prompts in chunks. Where there is more
// to do than a step holds, and among the waiting, FairQueue says who goes first. Under pressure unpinned adapters and
// cached prefixes go first (those worth least, EvictionOrder), then reservations of the waiting, then the KV of paused
// and of the youngest sequences, and of tenants that hold more than their share of the pool. Engine thread only.
class Scheduler {
 public:
  Scheduler(SchedulerLimits limits, FramePool* pool, KvCache* kv, AdapterResidency* residency,
            const EvictionOrder* order)
      : limits_(limits), pool_(pool), kv_(kv), residency_(residency), order_(order) {}

  void Add(Sequence* sequence) { queue_.Add(sequence); }
  // Gives back what it holds, whatever its state.
  void Remove(Sequence* sequence, uint64_t step);

  // `is_ready`: the sequence's reader keeps up; asked as often as needed, and stays as it is meanwhile.
  StepPlan Plan(const std::function<bool(const Sequence&)>& is_ready, SharedRows shared);
  // `step`: the last completed one.
  void Commit(const StepPlan& plan, uint64_t step);
  // Counts what the plan that runs gives to whom: rows, and of the adapters that it reads an equal part to each that
  // names them.
  void Charge(const StepPlan& plan);

  int64_t waiting() const { return queue_.waiting(); }
  int64_t admitted() const { return static_cast<int64_t>(admitted_.size()); }
  // Of `tenant`, waiting or not.
  int64_t SequencesOf(const std::string& tenant) const { return queue_.SequencesOf(tenant); }
  uint64_t preemptions() const { return preemptions_; }
  // Of prompts: that were looked for in the prefix index, and of these the found ones.
  uint64_t tokens_looked_up() const { return tokens_looked_up_; }
  uint64_t tokens_found() const { return tokens_found_; }

 private:
  const Sequence* FirstPrompt(const StepLedger& ledger) const;
  int32_t RowsOfLittle(const Sequence& first, const StepLedger& ledger) const;
  bool AsksForLittle(const Sequence& sequence) const;
  std::unordered_map<const Tenant*, Sequence*> LongestBelow(const StepLedger& ledger) const;
  void PlanAdmitted(bool is_continuing, StepLedger* ledger);
  void PlanPrompts(StepLedger* ledger);
  enum class Turn { kGoesOn, kBlocksFlow, kBlocksTenant, kBlocksAll };
  Turn PlanWaiting(Sequence* sequence, StepLedger* ledger);
  void PlanIf(bool is_wanted, Sequence* sequence, StepLedger* ledger);
  bool PlanRows(Sequence* sequence, StepLedger* ledger);
  bool ReserveFor(Sequence* sequence, StepLedger* ledger);
  bool HasRoom(const Sequence& sequence, StepLedger* ledger) const;
  PrefixHit Look(const Sequence& sequence, const StepLedger& ledger) const;
  int32_t RowsFor(const Sequence& sequence, int32_t start, const StepLedger& ledger) const;
  void Attach(const PlannedRows& planned, uint64_t step);
  void Unpin(Sequence* sequence);
  void Preempt(Sequence* sequence, uint64_t step);
  double CostOfBytes(int64_t bytes) const;

  SchedulerLimits limits_;
  FramePool* pool_;
  KvCache* kv_;
  AdapterResidency* residency_;
  const EvictionOrder* order_;
  FairQueue queue_;
  std::vector<Sequence*> reserved_;  // waiting ones that pin adapters, by arrival
  std::vector<Sequence*> admitted_;  // likewise
  std::vector<Sequence*> in_turn_;   // admitted ones, who has had least first: during Plan
  uint64_t preemptions_ = 0;
  uint64_t tokens_looked_up_ = 0;
  uint64_t tokens_found_ = 0;
};

}  // namespace openlora
