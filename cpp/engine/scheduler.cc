#include "engine/scheduler.h"

#include <algorithm>
#include <unordered_set>

#include "base/check.h"
#include "memory/eviction_plan.h"

namespace openlora {
namespace {

bool GoesBefore(const Sequence* a, const Sequence* b) {
  if (a->request.priority != b->request.priority) return a->request.priority > b->request.priority;
  return a->arrival < b->arrival;
}

void Insert(std::vector<Sequence*>* list, Sequence* sequence) {
  list->insert(std::upper_bound(list->begin(), list->end(), sequence, GoesBefore), sequence);
}

bool Erase(std::vector<Sequence*>* list, const Sequence* sequence) {
  const auto found = std::find(list->begin(), list->end(), sequence);
  if (found == list->end()) return false;
  list->erase(found);
  return true;
}

bool AreResident(const Sequence& sequence) {
  return std::all_of(sequence.adapters.begin(), sequence.adapters.end(),
                     [](const Adapter* a) { return a->state == AdapterState::kResident; });
}

// Rows of [start, start + rows) whose logits are wanted.
int32_t LogitRows(const Sequence& sequence, int32_t start, int32_t rows) {
  const int32_t end = start + rows;
  int32_t wanted = end == sequence.known() ? 1 : 0;
  if (sequence.is_scoring())
    wanted += std::max(0, std::min(end, sequence.prompt() - 1) - std::max(start, sequence.scored));
  return wanted;
}

}  // namespace

// The scratch counters of one plan.
class Scheduler::Ledger {
 public:
  Ledger(Scheduler* scheduler, StepPlan* plan)
      : rows_left(scheduler->limits_.rows),
        logit_rows_left(scheduler->limits_.logit_rows),
        scheduler_(scheduler),
        plan_(plan),
        eviction_(scheduler->order_, scheduler->pool_->frames(FrameUse::kPrefix), scheduler->kv_->layers()),
        frames_free_(scheduler->pool_->frames_free()) {}

  StepPlan* plan() { return plan_; }
  bool IsPreempted(const Sequence* sequence) const { return preempted_.contains(sequence); }
  bool IsTakenBack(const Sequence* sequence) const { return taken_back_.contains(sequence); }
  bool IsPlanned(const Sequence* sequence) const { return planned_.contains(sequence); }
  // The adapter is wanted by this plan: it isn't a victim, or not any more.
  void Keep(Adapter* adapter) { eviction_.Keep(adapter); }
  void Keep(const PrefixHit& hit) { eviction_.Keep(hit.tail); }
  void Unkeep(const PrefixHit& hit) { eviction_.Unkeep(hit.tail); }
  bool IsEvicted(const Adapter* adapter) const { return eviction_.IsEvicted(adapter); }
  bool IsDropped(const PrefixBlock* block) const { return eviction_.IsDropped(block); }

  // Takes frames, evicting as far as needed; nothing changes when even that isn't enough.
  bool Take(int64_t frames) {
    if (frames > frames_free_ + eviction_.frames_reachable()) return false;
    while (frames > frames_free_) frames_free_ += eviction_.EvictOne(&plan_->evictions, &plan_->drops);
    frames_free_ -= frames;
    return true;
  }

  // The same where others have to give way: those that can't run at present (paused, or their reader is behind); for a
  // sequence that has rows, also the reservations of the waiting and younger sequences; and where nobody has rows, the
  // reservations of those behind the taker.
  bool TakeByForce(const Sequence* taker, int64_t frames) {
    if (Take(frames)) return true;
    for (auto it = scheduler_->waiting_.rbegin(); it != scheduler_->waiting_.rend(); ++it) {
      Sequence* other = *it;
      const bool gives_way = taker->is_admitted || !scheduler_->can_run_[other] ||
                             (scheduler_->admitted_.empty() && GoesBefore(taker, other));
      if (other == taker || !gives_way || !other->has_pins || IsTakenBack(other) || !AreResident(*other)) continue;
      TakeBack(other);
      if (Take(frames)) return true;
    }
    for (const bool can_run : {false, true}) {
      for (auto it = scheduler_->admitted_.rbegin(); it != scheduler_->admitted_.rend(); ++it) {
        Sequence* other = *it;
        const bool gives_way = !can_run || (taker->is_admitted && GoesBefore(taker, other));
        if (other == taker || !gives_way || scheduler_->can_run_[other] != can_run || IsPlanned(other) ||
            IsPreempted(other))
          continue;
        preempted_.insert(other);
        plan_->preemptions.push_back(other);
        frames_free_ += scheduler_->kv_->FramesOwned(other->kv);
        eviction_.LetGo(other->kv.shared.tail);
        if (Take(frames)) return true;
      }
    }
    return false;
  }

  void Give(int64_t frames) { frames_free_ += frames; }

  void Plan(Sequence* sequence, const PrefixHit& hit, int32_t start, int32_t rows) {
    planned_.insert(sequence);
    plan_->rows.push_back({sequence, rows, hit});
    rows_left -= rows;
    logit_rows_left -= LogitRows(*sequence, start, rows);
  }

  void Starve(Sequence* sequence, int64_t frames) {
    if (plan_->starved != nullptr) return;
    plan_->starved = sequence;
    plan_->starved_frames = frames;
  }

  int32_t rows_left;
  int32_t logit_rows_left;

 private:
  void TakeBack(Sequence* sequence) {
    taken_back_.insert(sequence);
    plan_->unpins.push_back(sequence);
    for (Adapter* adapter : sequence->adapters) eviction_.Unpin(adapter);
  }

  Scheduler* scheduler_;
  StepPlan* plan_;
  EvictionPlan eviction_;
  int64_t frames_free_;
  std::unordered_set<const Sequence*> planned_, preempted_, taken_back_;
};

void Scheduler::Add(Sequence* sequence) { Insert(&waiting_, sequence); }

void Scheduler::Remove(Sequence* sequence, uint64_t step) {
  if (!Erase(&waiting_, sequence)) Erase(&admitted_, sequence);
  kv_->Release(&sequence->kv, step);
  if (sequence->has_pins) Unpin(sequence);
}

void Scheduler::Unpin(Sequence* sequence) {
  for (Adapter* adapter : sequence->adapters) residency_->Unpin(adapter);
  sequence->has_pins = false;
}

StepPlan Scheduler::PlanReady() {
  StepPlan plan;
  Ledger ledger(this, &plan);
  PlanAdmitted(true, &ledger);
  PlanAdmitted(false, &ledger);
  PlanWaiting(&ledger);
  return plan;
}

// Blocks that are known beyond what the sequence has computed. The last token is always computed, for its logits, and
// so is the prompt as far as its own logprobs are wanted.
PrefixHit Scheduler::Look(const Sequence& sequence, const Ledger& ledger) const {
  int32_t limit = sequence.known() - 1;
  if (sequence.is_scoring()) limit = std::min(limit, sequence.scored);
  if (ledger.rows_left <= 0 || limit - sequence.computed < 1) return {};
  PrefixHit hit =
      kv_->Find(sequence.kv, sequence.prefix_realm, std::span(sequence.tokens).first(static_cast<size_t>(limit)));
  while (hit.tail != nullptr && ledger.IsDropped(hit.tail)) hit = {hit.tail->parent, hit.blocks - 1};
  return hit.blocks * kv_->frame_tokens() > sequence.computed ? hit : PrefixHit{};
}

int32_t Scheduler::RowsFor(const Sequence& sequence, int32_t start, const Ledger& ledger) const {
  int32_t rows = std::min(sequence.known() - start, ledger.rows_left);
  while (rows > 0 && LogitRows(sequence, start, rows) > ledger.logit_rows_left) --rows;
  return rows;
}

// Plans as many rows as budgets and frames allow: the whole chunk, or what the next block of KV holds. False if not
// even that.
bool Scheduler::PlanRows(Sequence* sequence, Ledger* ledger) {
  const PrefixHit hit = Look(*sequence, *ledger);
  ledger->Keep(hit);
  const int32_t start = std::max(sequence->computed, hit.blocks * kv_->frame_tokens());
  const int32_t rows = RowsFor(*sequence, start, *ledger);
  const int32_t block = kv_->frame_tokens() - start % kv_->frame_tokens();
  for (const int32_t attempt : {rows, std::min(rows, block)}) {
    // With a hit, what the table has of its own goes and what the hit brings is there.
    int64_t missing = kv_->FramesMissing(sequence->kv, start + attempt);
    if (hit.tail != nullptr) missing -= kv_->FramesOf(hit) - kv_->FramesOf(sequence->kv.shared);
    // Nobody gives way for more than a block: that would cost more than it brings.
    const bool can_force = attempt <= block;
    if (attempt > 0 && (can_force ? ledger->TakeByForce(sequence, missing) : ledger->Take(missing))) {
      ledger->Plan(sequence, hit, start, attempt);
      return true;
    }
    if (attempt > 0 && attempt <= block) ledger->Starve(sequence, missing);
  }
  ledger->Unkeep(hit);
  return false;
}

void Scheduler::PlanAdmitted(bool is_continuing, Ledger* ledger) {
  for (Sequence* sequence : admitted_) {
    if ((sequence->known() - sequence->computed == 1) != is_continuing) continue;
    if (can_run_[sequence] && !ledger->IsPreempted(sequence)) PlanRows(sequence, ledger);
  }
}

void Scheduler::PlanWaiting(Ledger* ledger) {
  // Nobody overtakes a sequence that waits for frames. Those that wait for a load are passed, but not one whose load
  // was taken back before: those that pass it could do so again, and for ever.
  for (Sequence* sequence : waiting_) {
    if (!can_run_[sequence]) continue;
    if (ledger->IsTakenBack(sequence)) return;
    if (!sequence->has_pins && !ReserveFor(sequence, ledger)) return;
    if (AreResident(*sequence)) {
      if (!HasRoom(*sequence, ledger) || !PlanRows(sequence, ledger)) return;
    } else if (sequence->take_backs > 0) {
      return;
    }
  }
}

// A preempted sequence comes back when there is room for all that it had and a block for each that runs: else the next
// of those to need one would preempt it again, and its prompt would be computed over and over.
bool Scheduler::HasRoom(const Sequence& sequence, Ledger* ledger) const {
  if (!sequence.was_preempted) return true;
  const auto running = std::count_if(admitted_.begin(), admitted_.end(),
                                     [&](const Sequence* other) { return can_run_.at(other) && other != &sequence; });
  if (running == 0) return true;
  const PrefixHit hit = Look(sequence, *ledger);
  ledger->Keep(hit);
  const int64_t frames = kv_->FramesFor(sequence.known() + 1) - kv_->FramesOf(hit) + running * kv_->FramesFor(1);
  const bool has_room = ledger->Take(frames);
  if (has_room) ledger->Give(frames);
  ledger->Unkeep(hit);
  return has_room;
}

bool Scheduler::ReserveFor(Sequence* sequence, Ledger* ledger) {
  int64_t frames = 0;
  std::vector<Adapter*> loads;
  for (Adapter* adapter : sequence->adapters) {
    if (ledger->IsEvicted(adapter)) return false;  // went in this very plan: there is pressure, next step
    const bool is_missing = adapter->state == AdapterState::kRegistered;
    ledger->Keep(adapter);
    const std::vector<Adapter*>& planned = ledger->plan()->loads;
    if (!is_missing || std::find(planned.begin(), planned.end(), adapter) != planned.end()) continue;
    if (std::find(loads.begin(), loads.end(), adapter) != loads.end()) continue;
    loads.push_back(adapter);
    frames += adapter->frames_needed;
  }
  // Room for at least one block of KV stays, so that a load can't shut out the sequence that it is for.
  const int64_t block = kv_->FramesFor(1);
  if (!ledger->TakeByForce(sequence, frames + block)) {
    ledger->Starve(sequence, frames + block);
    return false;
  }
  ledger->plan()->loads.insert(ledger->plan()->loads.end(), loads.begin(), loads.end());
  ledger->plan()->pins.push_back(sequence);
  ledger->Give(block);
  return true;
}

// Books the blocks that the rows go on from.
void Scheduler::Attach(const PlannedRows& planned, uint64_t step) {
  Sequence* sequence = planned.sequence;
  // What is found after a preemption, or after a switch of rope tables, was computed for this very request.
  const bool is_first = sequence->output() == 0 && !sequence->was_preempted;
  if (!sequence->was_looked_up && kv_->prefixes() != nullptr && sequence->request.prompt_logprobs < 0) {
    sequence->was_looked_up = true;
    tokens_looked_up_ += static_cast<uint64_t>(sequence->prompt());
  }
  if (planned.hit.tail == nullptr) return;
  const int32_t start = planned.hit.blocks * kv_->frame_tokens();
  if (is_first) {
    sequence->cached_input += start - sequence->computed;
    tokens_found_ += static_cast<uint64_t>(start - sequence->computed);
  }
  kv_->Attach(&sequence->kv, planned.hit, is_first, step);
  sequence->computed = start;
}

void Scheduler::Commit(const StepPlan& plan, uint64_t step) {
  for (Sequence* sequence : plan.unpins) {
    Unpin(sequence);
    ++sequence->take_backs;
  }
  for (Sequence* sequence : plan.preemptions) {
    kv_->Release(&sequence->kv, step);
    sequence->computed = 0;
    sequence->is_admitted = false;
    sequence->was_preempted = true;
    Erase(&admitted_, sequence);
    Insert(&waiting_, sequence);
    ++preemptions_;
  }
  for (Adapter* adapter : plan.evictions) residency_->Evict(adapter, step);
  for (PrefixBlock* block : plan.drops) kv_->Drop(block, step);
  for (const PlannedRows& planned : plan.rows) Attach(planned, step);
  pool_->Reclaim(step);
  for (Adapter* adapter : plan.loads) {
    const bool has_frames = residency_->Reserve(adapter);
    OPENLORA_CHECK(has_frames);
  }
  for (Sequence* sequence : plan.pins) {
    for (Adapter* adapter : sequence->adapters) residency_->Pin(adapter, sequence->take_backs == 0);
    sequence->has_pins = true;
  }
  for (const PlannedRows& planned : plan.rows) {
    const bool has_frames = kv_->Extend(&planned.sequence->kv, planned.sequence->computed + planned.rows);
    OPENLORA_CHECK(has_frames);
    if (planned.sequence->is_admitted) continue;
    planned.sequence->is_admitted = true;
    Erase(&waiting_, planned.sequence);
    Insert(&admitted_, planned.sequence);
  }
}

}  // namespace openlora
