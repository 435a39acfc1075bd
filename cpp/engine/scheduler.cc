#include "engine/scheduler.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"

namespace openlora {
namespace {

// Of service: computing a token of the prompt is 1, of the answer 2, as in the paper of FairQueue.
constexpr double kAnswerCost = 2;

bool CameBefore(const Sequence* a, const Sequence* b) { return a->arrival < b->arrival; }

void Insert(std::vector<Sequence*>* list, Sequence* sequence) {
  list->insert(std::upper_bound(list->begin(), list->end(), sequence, CameBefore), sequence);
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

// Rows of [computed, computed + rows) whose logits are wanted.
int32_t LogitRows(const Sequence& sequence, int32_t rows) {
  const int32_t end = sequence.computed + rows;
  int32_t wanted = end == sequence.known() ? 1 : 0;
  if (sequence.is_scoring())
    wanted += std::max(0, std::min(end, sequence.prompt() - 1) - std::max(sequence.computed, sequence.scored));
  return wanted;
}

}  // namespace

// The scratch counters of one plan.
class Scheduler::Ledger {
 public:
  Ledger(Scheduler* scheduler, StepPlan* plan, const std::function<bool(const Sequence&)>& is_ready)
      : rows_left(scheduler->limits_.rows),
        logit_rows_left(scheduler->limits_.logit_rows),
        lora_bytes_left(scheduler->limits_.lora_bytes),
        scheduler_(scheduler),
        plan_(plan),
        is_ready_(is_ready),
        frames_free_(scheduler->pool_->frames_free()) {}

  StepPlan* plan() { return plan_; }
  bool CanRun(const Sequence& sequence) const { return !sequence.is_paused && is_ready_(sequence); }
  bool IsPreempted(const Sequence* sequence) const { return preempted_.contains(sequence); }
  bool IsTakenBack(const Sequence* sequence) const { return taken_back_.contains(sequence); }
  bool IsPlanned(const Sequence* sequence) const { return planned_.contains(sequence); }
  // A waiting one's turn has come.
  void Visit(const Sequence* sequence) { visited_.insert(sequence); }
  // The adapter is wanted by this plan: it isn't a victim, or not any more.
  void Keep(Adapter* adapter) { kept_.insert(adapter); }
  bool IsEvicted(const Adapter* adapter) const { return evicted_.contains(adapter); }
  // From now on who came first may take from whoever came later, whatever their tenants hold.
  void IgnoreShares() { has_shares_ = false; }

  // Keeps a part of each budget for prompts, until Release: a quarter, or where several tenants are at work the half,
  // so that answers of one don't shut out prompts of another.
  void HoldBack() {
    const int parts = scheduler_->queue_.tenants() > 1 ? 2 : 4;
    const auto hold = [parts](auto* left, auto* held) {
      *held = *left / parts;
      *left -= *held;
    };
    hold(&rows_left, &rows_held_);
    hold(&logit_rows_left, &logit_rows_held_);
    hold(&lora_bytes_left, &lora_bytes_held_);
  }
  void Release() {
    rows_left += std::exchange(rows_held_, 0);
    logit_rows_left += std::exchange(logit_rows_held_, 0);
    lora_bytes_left += std::exchange(lora_bytes_held_, 0);
  }

  // Whether the step may read the sequence's adapters. The first are read whatever they take.
  bool MayRead(const Sequence& sequence) const {
    const int64_t bytes = NewBytes(sequence);
    return bytes == 0 || read_.empty() || bytes <= lora_bytes_left;
  }

  // Takes frames, evicting unpinned adapters as far as needed; nothing changes when even that isn't enough.
  bool Take(int64_t frames) {
    if (frames > frames_free_ && !Evict(frames)) return false;
    frames_free_ -= frames;
    return true;
  }

  // The same where others have to give way: reservations of the waiting to a sequence that has rows, and to any where
  // nobody has rows, if their turn comes later; those that can't run at present (paused, or their reader is behind);
  // and of those that can, whoever GivesWay says.
  bool TakeByForce(const Sequence* taker, int64_t frames) {
    if (Take(frames)) return true;
    const std::vector<Sequence*>&reserved = scheduler_->reserved_, &admitted = scheduler_->admitted_;
    for (auto it = reserved.rbegin(); it != reserved.rend(); ++it) {
      Sequence* other = *it;
      const bool gives_way = taker->is_admitted || !CanRun(*other) || (admitted.empty() && !visited_.contains(other));
      if (other == taker || !gives_way || IsTakenBack(other) || !AreResident(*other)) continue;
      TakeBack(other);
      if (Take(frames)) return true;
    }
    for (auto it = admitted.rbegin(); it != admitted.rend(); ++it) {
      if (*it == taker || CanRun(**it) || IsPreempted(*it)) continue;
      Preempt(*it);
      if (Take(frames)) return true;
    }
    return TakeFromRunning(taker, frames);
  }

  void Give(int64_t frames) { frames_free_ += frames; }

  // `frames` were taken for it.
  void Plan(Sequence* sequence, int32_t rows, int64_t frames) {
    planned_[sequence] = frames;
    plan_->rows.push_back({sequence, rows});
    rows_left -= rows;
    logit_rows_left -= LogitRows(*sequence, rows);
    lora_bytes_left -= NewBytes(*sequence);
    read_.insert(sequence->adapters.begin(), sequence->adapters.end());
  }

  // Of KV, by the tenant of a sequence, where there are several.
  bool HoldsMoreThanItsShare(const Sequence& sequence) const {
    return scheduler_->queue_.tenants() > 1 && held_frames()[sequence.flow->tenant] > Share();
  }

  void Starve(Sequence* sequence, int64_t frames) {
    if (plan_->starved != nullptr) return;
    plan_->starved = sequence;
    plan_->starved_frames = frames;
  }

  int32_t rows_left;
  int32_t logit_rows_left;
  int64_t lora_bytes_left;

 private:
  // Of the sequence's adapters those that this step doesn't read yet.
  int64_t NewBytes(const Sequence& sequence) const {
    int64_t bytes = 0;
    for (size_t i = 0; i < sequence.adapters.size(); ++i) {
      const auto begin = sequence.adapters.begin(), at = begin + static_cast<std::ptrdiff_t>(i);
      if (!read_.contains(*at) && std::find(begin, at, *at) == at) bytes += (*at)->bytes;
    }
    return bytes;
  }

  // Preempts running sequences, the youngest first, if that brings enough.
  bool TakeFromRunning(const Sequence* taker, int64_t frames) {
    const std::vector<Sequence*>& admitted = scheduler_->admitted_;
    std::vector<Sequence*> victims;
    std::unordered_map<const Tenant*, int64_t> held = held_frames();
    int64_t reachable = Reachable();
    for (auto it = admitted.rbegin(); it != admitted.rend() && reachable < frames; ++it) {
      if (*it == taker || IsPreempted(*it) || !GivesWay(*taker, frames, **it, held)) continue;
      victims.push_back(*it);
      reachable += FramesOf(*it);
      held[(*it)->flow->tenant] -= FramesOf(*it);
    }
    if (reachable < frames) return false;
    for (Sequence* victim : victims) {
      if (!CameBefore(taker, victim)) plan_->given_way.push_back(victim);
      Preempt(victim);
    }
    return Take(frames);
  }

  // Whether a running sequence loses its KV to `taker`. Within a tenant the younger does. Where several tenants are at
  // work each has an equal share of the pool: one that holds no more loses nothing to another, and one that holds more
  // loses to a younger taker that stays within its share; but a sequence that did is left alone until it has got a
  // block further, so that it comes to an end whoever comes and goes.
  bool GivesWay(const Sequence& taker, int64_t frames, const Sequence& other,
                const std::unordered_map<const Tenant*, int64_t>& held) const {
    const Tenant *mine = taker.flow->tenant, *its = other.flow->tenant;
    const bool is_older = CameBefore(&taker, &other);
    if (mine == its || !has_shares_) return taker.is_admitted && is_older;
    const auto of = [&held](const Tenant* tenant) {
      const auto found = held.find(tenant);
      return found == held.end() ? 0 : found->second;
    };
    if (of(its) <= Share()) return false;
    if (taker.is_admitted && is_older) return true;
    return other.known() >= other.gives_way_from && of(mine) + frames <= Share();
  }

  // Of one tenant, in frames.
  int64_t Share() const { return scheduler_->pool_->frames_total() / scheduler_->queue_.tenants(); }

  // KV frames that tenants' running sequences keep in this plan.
  std::unordered_map<const Tenant*, int64_t> held_frames() const {
    std::unordered_map<const Tenant*, int64_t> held;
    for (const Sequence* sequence : scheduler_->admitted_) {
      if (!IsPreempted(sequence)) held[sequence->flow->tenant] += FramesOf(sequence);
    }
    return held;
  }

  int64_t FramesOf(const Sequence* sequence) const {
    const auto planned = planned_.find(sequence);
    const int64_t taken = planned == planned_.end() ? 0 : planned->second;
    return static_cast<int64_t>(sequence->kv.frames.size()) + taken;
  }

  // It loses its frames, and its rows in this plan, if it had some.
  void Preempt(Sequence* sequence) {
    frames_free_ += FramesOf(sequence);
    preempted_.insert(sequence);
    plan_->preemptions.push_back(sequence);
    if (planned_.erase(sequence) == 0) return;
    const auto found = std::find_if(plan_->rows.begin(), plan_->rows.end(),
                                    [sequence](const PlannedRows& planned) { return planned.sequence == sequence; });
    rows_left += found->rows;
    logit_rows_left += LogitRows(*sequence, found->rows);
    plan_->rows.erase(found);
  }

  // Frames that are free, or would be without unpinned adapters.
  int64_t Reachable() {
    ListVictims();
    int64_t reachable = frames_free_;
    for (const Adapter* victim : victims_) reachable += IsVictim(victim) ? victim->layout.frames : 0;
    return reachable;
  }

  // Most steps need none, so the victims are listed when they are first needed.
  void ListVictims() {
    if (has_victims_) return;
    const std::vector<Adapter*> unpinned = scheduler_->residency_->Victims();
    victims_.insert(victims_.begin(), unpinned.begin(), unpinned.end());
    has_victims_ = true;
  }

  // Plans evictions until `frames` are free.
  bool Evict(int64_t frames) {
    if (Reachable() < frames) return false;
    for (Adapter* victim : victims_) {
      if (frames_free_ >= frames) break;
      if (!IsVictim(victim)) continue;
      evicted_.insert(victim);
      plan_->evictions.push_back(victim);
      frames_free_ += victim->layout.frames;
    }
    return true;
  }

  bool IsVictim(const Adapter* adapter) const { return !evicted_.contains(adapter) && !kept_.contains(adapter); }

  void TakeBack(Sequence* sequence) {
    taken_back_.insert(sequence);
    plan_->unpins.push_back(sequence);
    for (Adapter* adapter : sequence->adapters) {
      if (++unpinned_[adapter] == adapter->pins && !kept_.contains(adapter)) victims_.push_back(adapter);
    }
  }

  Scheduler* scheduler_;
  StepPlan* plan_;
  const std::function<bool(const Sequence&)>& is_ready_;
  int64_t frames_free_;
  int32_t rows_held_ = 0;
  int32_t logit_rows_held_ = 0;
  int64_t lora_bytes_held_ = 0;
  bool has_shares_ = true;
  bool has_victims_ = false;
  std::vector<Adapter*> victims_;
  std::unordered_set<const Adapter*> evicted_, kept_, read_;
  std::unordered_map<const Adapter*, int32_t> unpinned_;
  std::unordered_map<const Sequence*, int64_t> planned_;  // and the frames that were taken for it
  std::unordered_set<const Sequence*> preempted_, taken_back_, visited_;
};

void Scheduler::Remove(Sequence* sequence, uint64_t step) {
  queue_.Remove(sequence);
  Erase(&admitted_, sequence);
  Erase(&reserved_, sequence);
  kv_->Release(&sequence->kv, step);
  if (sequence->has_pins) Unpin(sequence);
}

void Scheduler::Unpin(Sequence* sequence) {
  for (Adapter* adapter : sequence->adapters) {
    OPENLORA_CHECK(adapter->pins > 0);
    --adapter->pins;
  }
  sequence->has_pins = false;
}

StepPlan Scheduler::Plan(const std::function<bool(const Sequence&)>& is_ready) {
  StepPlan plan;
  Ledger ledger(this, &plan, is_ready);
  in_turn_ = admitted_;
  std::sort(in_turn_.begin(), in_turn_.end(),
            [](const Sequence* a, const Sequence* b) { return FairQueue::HasHadLess(*a, *b); });
  const bool has_prompts = waiting() > 0 || !std::all_of(admitted_.begin(), admitted_.end(),
                                                         [](const Sequence* s) { return IsContinuing(*s); });
  if (has_prompts) ledger.HoldBack();
  PlanAdmitted(true, &ledger);
  ledger.Release();
  PlanPrompts(&ledger);
  if (has_prompts) PlanAdmitted(true, &ledger);
  if (plan.rows.empty()) {
    // Nobody has room to go on: then shares would only keep everybody from it.
    ledger.IgnoreShares();
    in_turn_ = admitted_;
    PlanAdmitted(true, &ledger);
    PlanAdmitted(false, &ledger);
  }
  return plan;
}

int32_t Scheduler::RowsFor(const Sequence& sequence, const Ledger& ledger) const {
  int32_t rows = std::min(sequence.known() - sequence.computed, ledger.rows_left);
  while (rows > 0 && LogitRows(sequence, rows) > ledger.logit_rows_left) --rows;
  return rows;
}

// Plans as many rows as budgets and frames allow: the whole chunk, or what the next block of KV holds. False if not
// even that.
bool Scheduler::PlanRows(Sequence* sequence, Ledger* ledger) {
  if (!ledger->MayRead(*sequence)) return false;
  const int32_t rows = RowsFor(*sequence, *ledger);
  const int32_t block = kv_->frame_tokens() - sequence->computed % kv_->frame_tokens();
  for (const int32_t attempt : {rows, std::min(rows, block)}) {
    const int64_t missing = kv_->FramesMissing(sequence->kv, sequence->computed + attempt);
    // Nobody gives way for more than a block: that would cost more than it brings.
    const bool can_force = attempt <= block;
    if (attempt > 0 && (can_force ? ledger->TakeByForce(sequence, missing) : ledger->Take(missing))) {
      ledger->Plan(sequence, attempt, missing);
      return true;
    }
    if (attempt > 0 && attempt <= block) ledger->Starve(sequence, missing);
  }
  return false;
}

void Scheduler::PlanAdmitted(bool is_continuing, Ledger* ledger) {
  for (Sequence* sequence : in_turn_) {
    PlanIf(IsContinuing(*sequence) == is_continuing, sequence, ledger);
  }
}

void Scheduler::PlanIf(bool is_wanted, Sequence* sequence, Ledger* ledger) {
  if (!is_wanted || ledger->IsPlanned(sequence) || ledger->IsPreempted(sequence)) return;
  if (ledger->CanRun(*sequence)) PlanRows(sequence, ledger);
}

// Prompts that have begun go before those that wait, but for those of tenants that have had less.
void Scheduler::PlanPrompts(Ledger* ledger) {
  FairQueue::Visit visit(queue_);
  size_t begun = 0;
  const auto plan_begun = [&](const Sequence* until) {
    for (; begun < in_turn_.size(); ++begun) {
      Sequence* sequence = in_turn_[begun];
      if (until != nullptr && until->flow->tenant != sequence->flow->tenant && FairQueue::HasHadLess(*until, *sequence))
        return;
      PlanIf(!IsContinuing(*sequence), sequence, ledger);
    }
  };
  while (Sequence* sequence = visit.Next()) {
    if (!ledger->CanRun(*sequence)) continue;
    plan_begun(sequence);
    const Turn turn = PlanWaiting(sequence, ledger);
    if (turn == Turn::kBlocksAll) break;
    if (turn == Turn::kBlocksTenant) {
      visit.SkipTenant();
    } else {
      visit.Charge(sequence->known() - sequence->computed);
    }
  }
  plan_begun(nullptr);
}

// Its turn has come. One that waits for frames is passed by nobody, but where its own tenant holds more than its share
// by other tenants. One that waits for a load is passed, unless its load was taken back before: those that pass it
// could do so again, and for ever.
Scheduler::Turn Scheduler::PlanWaiting(Sequence* sequence, Ledger* ledger) {
  if (ledger->IsTakenBack(sequence)) return Turn::kBlocksAll;
  ledger->Visit(sequence);
  const auto blocks = [&] {
    const bool is_first = sequence->take_backs > 0;
    return ledger->rows_left > 0 && !is_first && ledger->HoldsMoreThanItsShare(*sequence) ? Turn::kBlocksTenant
                                                                                          : Turn::kBlocksAll;
  };
  if (!sequence->has_pins && !ReserveFor(sequence, ledger)) return blocks();
  if (!AreResident(*sequence)) return sequence->take_backs == 0 ? Turn::kGoesOn : Turn::kBlocksAll;
  if (!ledger->MayRead(*sequence)) return Turn::kGoesOn;
  return HasRoom(*sequence, ledger) && PlanRows(sequence, ledger) ? Turn::kGoesOn : blocks();
}

// A preempted sequence comes back when there is room for all that it had and a block for each that runs: else the next
// of those to need one would preempt it again, and its prompt would be computed over and over.
bool Scheduler::HasRoom(const Sequence& sequence, Ledger* ledger) const {
  if (!sequence.was_preempted) return true;
  const auto running = std::count_if(admitted_.begin(), admitted_.end(), [&](const Sequence* other) {
    return ledger->CanRun(*other) && other != &sequence;
  });
  if (running == 0) return true;
  const int64_t frames = kv_->FramesFor(sequence.known() + 1) + running * kv_->FramesFor(1);
  if (!ledger->Take(frames)) return false;
  ledger->Give(frames);
  return true;
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

void Scheduler::Commit(const StepPlan& plan, uint64_t step) {
  for (Sequence* sequence : plan.unpins) {
    Unpin(sequence);
    Erase(&reserved_, sequence);
    ++sequence->take_backs;
    queue_.PutFirst(sequence);
  }
  for (Sequence* sequence : plan.preemptions) Preempt(sequence, step);
  for (Sequence* sequence : plan.given_way) sequence->gives_way_from = sequence->known() + kv_->frame_tokens();
  for (Adapter* adapter : plan.evictions) residency_->Evict(adapter, step);
  pool_->Reclaim(step);
  for (Adapter* adapter : plan.loads) {
    const bool has_frames = residency_->Reserve(adapter);
    OPENLORA_CHECK(has_frames);
  }
  for (Sequence* sequence : plan.pins) {
    for (Adapter* adapter : sequence->adapters) ++adapter->pins;
    sequence->has_pins = true;
    if (!sequence->adapters.empty()) Insert(&reserved_, sequence);
  }
  for (const PlannedRows& planned : plan.rows) {
    const bool has_frames = kv_->Extend(&planned.sequence->kv, planned.sequence->computed + planned.rows);
    OPENLORA_CHECK(has_frames);
    if (planned.sequence->is_admitted) continue;
    queue_.Admit(planned.sequence);
    planned.sequence->is_admitted = true;
    Erase(&reserved_, planned.sequence);
    Insert(&admitted_, planned.sequence);
  }
  Charge(plan);
}

void Scheduler::Preempt(Sequence* sequence, uint64_t step) {
  kv_->Release(&sequence->kv, step);
  sequence->computed = 0;
  sequence->is_admitted = false;
  sequence->was_preempted = true;
  Erase(&admitted_, sequence);
  if (sequence->has_pins && !sequence->adapters.empty()) Insert(&reserved_, sequence);
  queue_.Return(sequence);
  ++preemptions_;
}

// What this plan gives to whom: rows, loads, and of the adapters that it reads an equal part to each that names them.
void Scheduler::Charge(const StepPlan& plan) {
  std::unordered_map<const Adapter*, int64_t> readers;
  for (const PlannedRows& planned : plan.rows) {
    for (const Adapter* adapter : planned.sequence->adapters) ++readers[adapter];
  }
  for (const PlannedRows& planned : plan.rows) {
    Sequence* sequence = planned.sequence;
    const int32_t begin = std::max(sequence->charged, sequence->computed), end = sequence->computed + planned.rows;
    const int32_t rows = std::max(0, end - begin), of_prompt = std::clamp(sequence->prompt() - begin, 0, rows);
    double cost = of_prompt + kAnswerCost * (rows - of_prompt);
    for (const Adapter* adapter : sequence->adapters)
      cost += CostOfBytes(adapter->bytes) / static_cast<double>(readers[adapter]);
    sequence->charged = std::max(sequence->charged, end);
    queue_.Charge(*sequence, cost);
  }
  std::unordered_set<const Adapter*> loads(plan.loads.begin(), plan.loads.end());
  for (const Sequence* sequence : plan.pins) {
    for (const Adapter* adapter : sequence->adapters) {
      if (loads.erase(adapter) > 0) queue_.Charge(*sequence, CostOfBytes(adapter->bytes));
    }
  }
  queue_.Settle();
}

// A step for one token of an answer reads the base once.
double Scheduler::CostOfBytes(int64_t bytes) const {
  return kAnswerCost * static_cast<double>(bytes) / static_cast<double>(limits_.weight_bytes);
}

}  // namespace openlora
