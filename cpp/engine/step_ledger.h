#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/fair_queue.h"
#include "engine/sequence.h"
#include "memory/eviction_plan.h"
#include "memory/frame_pool.h"
#include "memory/kv_cache.h"

namespace openlora {

// What a plan decided. Nothing has changed until it is committed.
struct StepPlan {
  std::vector<PlannedRows> rows;
  std::vector<Adapter*> evictions;
  std::vector<PrefixBlock*> drops;     // of the prefix index, children before parents
  std::vector<Sequence*> preemptions;  // lose their KV and wait again; recomputing gives the same bits
  std::vector<Sequence*> given_way;    // of those: for a tenant that holds less
  std::vector<Sequence*> unpins;       // whose reservation others take back
  std::vector<Sequence*> pins;         // waiting ones whose adapters are reserved from now on
  std::vector<Adapter*> loads;         // take their frames and are to be loaded
  // Found no frames: who came first of those that have rows, else who was the first to find none.
  Sequence* starved = nullptr;
  int64_t starved_frames = 0;  // that it needs at once, itself and its adapters
};

// What a step may compute and read.
struct StepBudget {
  int32_t rows = 0;
  int32_t logit_rows = 0;
  int64_t lora_bytes = 0;  // of adapters, or one adapter's
};

// Rows of [start, start + rows) whose logits are wanted.
int32_t LogitRows(const Sequence& sequence, int32_t start, int32_t rows);
bool AreResident(const Sequence& sequence);

// The scratch counters of one plan.
class StepLedger {
 public:
  // As they are when the plan begins; they stay so while it is made.
  struct State {
    const FramePool* pool;
    const KvCache* kv;
    const EvictionOrder* order;
    const FairQueue* queue;
    const std::vector<Sequence*>* reserved;  // waiting ones that pin adapters, by arrival
    const std::vector<Sequence*>* admitted;  // by arrival
  };
  StepLedger(const State& state, StepBudget budget, const std::function<bool(const Sequence&)>& is_ready,
             StepPlan* plan);

  StepPlan* plan() { return plan_; }
  const StepBudget& left() const { return left_; }
  bool CanRun(const Sequence& sequence) const { return !sequence.is_paused && is_ready_(sequence); }
  bool IsPreempted(const Sequence* sequence) const { return preempted_.contains(sequence); }
  bool IsTakenBack(const Sequence* sequence) const { return taken_back_.contains(sequence); }
  bool IsPlanned(const Sequence* sequence) const { return planned_.contains(sequence); }
  // A waiting one's turn has come.
  void Visit(const Sequence* sequence) { visited_.insert(sequence); }
  bool IsVisited(const Sequence* sequence) const { return visited_.contains(sequence); }
  // Wanted by this plan: not a victim, or not any more, until Unkeep. False: it was kept already.
  bool Keep(Adapter* adapter) { return eviction_.Keep(adapter); }
  void Unkeep(Adapter* adapter) { eviction_.Unkeep(adapter); }
  void Keep(const PrefixHit& hit) { eviction_.Keep(hit.tail); }
  void Unkeep(const PrefixHit& hit) { eviction_.Unkeep(hit.tail); }
  bool IsEvicted(const Adapter* adapter) const { return eviction_.IsEvicted(adapter); }
  bool IsDropped(const PrefixBlock* block) const { return eviction_.IsDropped(block); }
  // From now on who came first may take from whoever came later, whatever their tenants hold.
  void IgnoreShares() { has_shares_ = false; }
  // Of KV, by the tenant of a sequence, where there are several.
  bool HoldsMoreThanItsShare(const Sequence& sequence) const;

  // Of a step's rows those that prompts may take from answers: all but an eighth, at least one.
  static int32_t RowsOfPrompts(int32_t rows) { return rows - std::max(1, rows / kAnswerPart); }
  // Before all else: at most `rows`, or what the first prompts need with `first_rows` and answers beside them.
  void KeepShort(int32_t rows, int32_t first_rows);
  // Keeps a part of each budget for prompts, until Release: a quarter, or where several tenants are at work the half,
  // so that answers of one don't shut out prompts of another. `first_rows`: of the prompts whose turn comes first, kept
  // whole if RowsOfPrompts allows; 0: none.
  void HoldBack(int32_t first_rows);
  void Release();
  // Whether the step may read the sequence's adapters. The first are read whatever they take, and so are those of the
  // first prompt that has some: else answers could keep it waiting for ever.
  bool MayRead(const Sequence& sequence) const;

  // Takes frames, evicting as far as needed; nothing changes when even that isn't enough.
  bool Take(int64_t frames);
  // The same where others have to give way: reservations of the waiting to a sequence that has rows, and where nobody
  // has rows to one that has reserved as well and whose turn comes sooner; those that can't run at present (paused, or
  // their reader is behind); and of those that can, whoever GivesWay says.
  bool TakeByForce(const Sequence* taker, int64_t frames);
  void Give(int64_t frames) { frames_free_ += frames; }

  // Rows [start, start + rows), for which `frames` were taken and `hit` is kept.
  void Plan(Sequence* sequence, const PrefixHit& hit, int32_t start, int32_t rows, int64_t frames);
  void Starve(Sequence* sequence, int64_t frames);

 private:
  static constexpr int32_t kAnswerPart = 8;
  using Held = std::unordered_map<const Tenant*, int64_t>;
  struct Planned {
    PrefixHit hit;
    int32_t start = 0;
    int32_t rows = 0;
    int64_t frames = 0;
  };

  int64_t NewBytes(const Sequence& sequence) const;
  // Who would give way; eviction_ is as if they did until Undo.
  struct Trial {
    std::vector<Sequence*> reservations, victims;
    int64_t freed = 0;
  };
  void TryReservations(const Sequence& taker, const std::function<bool()>& is_enough, Trial* trial);
  void TryAdmitted(const Sequence& taker, int64_t frames, const std::function<bool()>& is_enough, Trial* trial);
  void SpareReservations(const std::function<bool()>& is_enough, Trial* trial);
  void Undo(const Trial& trial);
  bool GivesWay(const Sequence& taker, int64_t frames, const Sequence& other, const Held& held) const;
  int64_t Share() const { return state_.pool->frames_total() / state_.queue->tenants(); }
  Held HeldFrames() const;
  int64_t PlannedFrames(const Sequence* sequence) const;
  int64_t FramesOf(const Sequence* sequence) const;
  int64_t FramesFreedBy(const Sequence& sequence) const;
  void Preempt(Sequence* sequence);
  void TakeBack(Sequence* sequence);

  const State state_;
  const std::function<bool(const Sequence&)>& is_ready_;
  StepPlan* plan_;
  StepBudget left_, held_back_;
  EvictionPlan eviction_;
  int64_t frames_free_;
  bool has_shares_ = true;
  bool has_prompt_read_ = false;  // a prompt reads adapters that nobody else did before it
  std::unordered_set<const Adapter*> read_;
  std::unordered_map<const Sequence*, Planned> planned_;
  std::unordered_set<const Sequence*> preempted_, taken_back_, visited_;
};

}  // namespace openlora
