#include "engine/scheduler.h"

#include <algorithm>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"
#include "base/plant.h"

namespace openlora {
namespace {

// Of service: computing a token of the prompt is 1, of the answer 2, as in the paper of FairQueue.
constexpr double kAnswerCost = 2;

// Of the waiting, to see how many short prompts a step should hold.
constexpr int kLookedAt = 8;

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

}  // namespace

void Scheduler::Remove(Sequence* sequence, uint64_t step) {
  queue_.Remove(sequence);
  Erase(&admitted_, sequence);
  Erase(&reserved_, sequence);
  kv_->Release(&sequence->kv, step);
  if (sequence->has_pins) Unpin(sequence);
}

void Scheduler::Unpin(Sequence* sequence) {
  for (Adapter* adapter : sequence->adapters) residency_->Unpin(adapter);
  sequence->has_pins = false;
}

StepPlan Scheduler::Plan(const std::function<bool(const Sequence&)>& is_ready, SharedRows shared) {
  StepPlan plan;
  StepBudget budget = limits_.budget;
  if (waiting() + admitted() > 1) budget.rows = std::min(budget.rows, shared.rows);
  StepLedger ledger({pool_, kv_, order_, &queue_, &reserved_, &admitted_}, budget, is_ready, &plan);
  in_turn_ = admitted_;
  std::sort(in_turn_.begin(), in_turn_.end(),
            [](const Sequence* a, const Sequence* b) { return FairQueue::GoesBefore(*a, *b); });
  const bool has_prompts = waiting() > 0 || !std::all_of(admitted_.begin(), admitted_.end(),
                                                         [](const Sequence* s) { return s->is_continuing(); });
  if (has_prompts) {
    const Sequence* first = queue_.tenants() > 1 ? FirstPrompt(ledger) : nullptr;
    int32_t rows = first == nullptr ? 0 : first->known() - first->computed;
    if (first != nullptr && AsksForLittle(*first)) {
      rows += RowsOfLittle(*first, ledger);
      ledger.KeepShort(shared.rows_short, rows);
    }
    ledger.HoldBack(rows);
  }
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

// The prompt whose tenant has had least; null if it can't have rows in this step.
const Sequence* Scheduler::FirstPrompt(const StepLedger& ledger) const {
  const auto begun = std::find_if(in_turn_.begin(), in_turn_.end(), [&ledger](const Sequence* sequence) {
    return !sequence->is_continuing() && ledger.CanRun(*sequence);
  });
  const Sequence* first = begun == in_turn_.end() ? nullptr : *begun;
  const Sequence* waiting = FairQueue::Visit(queue_).Next();
  if (waiting != nullptr && (first == nullptr || FairQueue::GoesBefore(*waiting, *first))) first = waiting;
  return first != nullptr && ledger.CanRun(*first) && AreResident(*first) ? first : nullptr;
}

// What the next prompts need after the first, one of each other tenant that asks for little: as many of them as fit
// into the step whole.
int32_t Scheduler::RowsOfLittle(const Sequence& first, const StepLedger& ledger) const {
  const int32_t rows_max = StepLedger::RowsOfPrompts(ledger.left().rows) - (first.known() - first.computed);
  int32_t rows = 0;
  std::unordered_set<const Tenant*> seen = {first.flow->tenant};
  const auto add = [&](const Sequence& sequence) {
    if (!ledger.CanRun(sequence) || !AreResident(sequence) || !AsksForLittle(sequence)) return;
    const int32_t needed = sequence.known() - sequence.computed;
    if (rows + needed <= rows_max && seen.insert(sequence.flow->tenant).second) rows += needed;
  };
  for (const Sequence* sequence : in_turn_)
    if (!sequence->is_continuing()) add(*sequence);
  FairQueue::Visit visit(queue_);
  for (int looked = 0; looked < kLookedAt; ++looked) {
    const Sequence* sequence = visit.Next();
    if (sequence == nullptr) break;
    add(*sequence);
  }
  return rows;
}

// Its tenant has at most half as many requests as tenants have on average.
bool Scheduler::AsksForLittle(const Sequence& sequence) const {
  return 2 * sequence.flow->tenant->sequences * queue_.tenants() <= waiting() + admitted();
}

// Blocks that are known beyond what the sequence has computed. The last token is always computed, for its logits, and
// so is the prompt as far as its own logprobs are wanted.
PrefixHit Scheduler::Look(const Sequence& sequence, const StepLedger& ledger) const {
  int32_t limit = sequence.known() - 1;
  if (sequence.is_scoring()) limit = std::min(limit, sequence.scored);
  if (ledger.left().rows <= 0 || limit - sequence.computed < 1) return {};
  PrefixHit hit =
      kv_->Find(sequence.kv, sequence.prefix_realm, std::span(sequence.tokens).first(static_cast<size_t>(limit)));
  while (hit.tail != nullptr && ledger.IsDropped(hit.tail)) hit = {hit.tail->parent, hit.blocks - 1};
  return hit.blocks * kv_->frame_tokens() > sequence.computed ? hit : PrefixHit{};
}

int32_t Scheduler::RowsFor(const Sequence& sequence, int32_t start, const StepLedger& ledger) const {
  int32_t rows = std::min(sequence.known() - start, ledger.left().rows);
  while (rows > 0 && LogitRows(sequence, start, rows) > ledger.left().logit_rows) --rows;
  return rows;
}

// Plans as many rows as budgets and frames allow: the whole chunk, or what the next block of KV holds. False if not
// even that.
bool Scheduler::PlanRows(Sequence* sequence, StepLedger* ledger) {
  if (!ledger->MayRead(*sequence)) return false;
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
      ledger->Plan(sequence, hit, start, attempt, missing);
      return true;
    }
    if (!can_force) continue;
    if (attempt > 0) ledger->Starve(sequence, missing);
    break;  // the other attempt is the same
  }
  ledger->Unkeep(hit);
  return false;
}

// Of each tenant's answers below its highest priority the one that has waited longest for a row, if it has waited long.
std::unordered_map<const Tenant*, Sequence*> Scheduler::LongestBelow(const StepLedger& ledger) const {
  const auto has_waited = [](const Sequence* s) { return s->steps_passed >= FairQueue::kStepsPassed; };
  if (std::none_of(in_turn_.begin(), in_turn_.end(), has_waited)) return {};
  std::unordered_map<const Tenant*, int32_t> highest;
  for (const Sequence* sequence : in_turn_) {
    if (!sequence->is_continuing() || !ledger.CanRun(*sequence)) continue;
    const auto [found, is_new] = highest.emplace(sequence->flow->tenant, sequence->request.priority);
    if (!is_new) found->second = std::max(found->second, sequence->request.priority);
  }
  std::unordered_map<const Tenant*, Sequence*> longest;
  for (Sequence* sequence : in_turn_) {
    if (!sequence->is_continuing() || !ledger.CanRun(*sequence)) continue;
    if (!has_waited(sequence)) continue;
    if (sequence->request.priority == highest.at(sequence->flow->tenant)) continue;
    Sequence*& of_tenant = longest[sequence->flow->tenant];
    if (of_tenant == nullptr || sequence->steps_passed > of_tenant->steps_passed) of_tenant = sequence;
  }
  return longest;
}

// A tenant's first row is for LongestBelow's: a higher priority without end, where there are more answers than rows,
// lets the others go on.
void Scheduler::PlanAdmitted(bool is_continuing, StepLedger* ledger) {
  std::unordered_map<const Tenant*, Sequence*> longest;
  if (is_continuing) longest = LongestBelow(*ledger);
  for (Sequence* sequence : in_turn_) {
    if (sequence->is_continuing() != is_continuing) continue;
    const auto late = longest.find(sequence->flow->tenant);
    if (late != longest.end()) {
      PlanIf(true, late->second, ledger);
      longest.erase(late);
    }
    PlanIf(true, sequence, ledger);
  }
}

void Scheduler::PlanIf(bool is_wanted, Sequence* sequence, StepLedger* ledger) {
  if (!is_wanted || ledger->IsPlanned(sequence) || ledger->IsPreempted(sequence)) return;
  if (ledger->CanRun(*sequence)) PlanRows(sequence, ledger);
}

// Prompts that have begun go before those that wait, but for those of tenants that have had less.
void Scheduler::PlanPrompts(StepLedger* ledger) {
  FairQueue::Visit visit(queue_);
  size_t begun = 0;
  const auto plan_begun = [&](const Sequence* until) {
    for (; begun < in_turn_.size(); ++begun) {
      Sequence* sequence = in_turn_[begun];
      if (until != nullptr && until->flow->tenant != sequence->flow->tenant && FairQueue::GoesBefore(*until, *sequence))
        return;
      PlanIf(!sequence->is_continuing(), sequence, ledger);
    }
  };
  while (Sequence* sequence = visit.Next()) {
    if (!ledger->CanRun(*sequence)) continue;
    plan_begun(sequence);
    sequence->turn_of = visit.turn_of();
    const Turn turn = PlanWaiting(sequence, ledger);
    if (turn == Turn::kBlocksAll) break;
    if (turn == Turn::kBlocksTenant) {
      visit.SkipTenant();
    } else if (turn == Turn::kBlocksFlow) {
      visit.SkipFlow();
    } else {
      visit.Charge(sequence->known() - sequence->computed);
    }
  }
  plan_begun(nullptr);
  // Whoever waits for frames doesn't keep back those whose adapters have been loaded: they go sooner than they give
  // way.
  for (Sequence* sequence : reserved_) {
    if (ledger->IsVisited(sequence) || !AreResident(*sequence) || !ledger->CanRun(*sequence)) continue;
    sequence->turn_of = TurnOf::kNobody;
    if (PlanWaiting(sequence, ledger) == Turn::kBlocksAll) return;
  }
}

// Its turn has come. One that waits for frames is passed by nobody, but where its own tenant holds more than its share
// by other tenants. One that waits for a load is passed, unless its load was taken back before: those that pass it
// could do so again, and for ever.
Scheduler::Turn Scheduler::PlanWaiting(Sequence* sequence, StepLedger* ledger) {
  if (ledger->IsTakenBack(sequence)) return Turn::kBlocksAll;
  ledger->Visit(sequence);
  const auto blocks = [&] {
    const bool is_first = sequence->take_backs > 0;
    return ledger->left().rows > 0 && !is_first && ledger->HoldsMoreThanItsShare(*sequence) ? Turn::kBlocksTenant
                                                                                            : Turn::kBlocksAll;
  };
  if (!sequence->has_pins && !ReserveFor(sequence, ledger)) return blocks();
  if (!AreResident(*sequence)) {
    if (sequence->take_backs > 0) return Turn::kBlocksAll;
    // All others of its flow wait for the same load.
    return sequence->adapters[0]->state == AdapterState::kResident ? Turn::kGoesOn : Turn::kBlocksFlow;
  }
  if (!ledger->MayRead(*sequence)) return Turn::kGoesOn;
  return HasRoom(*sequence, ledger) && PlanRows(sequence, ledger) ? Turn::kGoesOn : blocks();
}

// A preempted sequence comes back when there is room for all that it had and a block for each that runs: else the next
// of those to need one would preempt it again, and its prompt would be computed over and over.
bool Scheduler::HasRoom(const Sequence& sequence, StepLedger* ledger) const {
  if (!sequence.was_preempted) return true;
  if (ledger->left().rows <= 0) return false;
  const auto running = std::count_if(admitted_.begin(), admitted_.end(), [&](const Sequence* other) {
    return ledger->CanRun(*other) && other != &sequence;
  });
  if (running == 0) return true;
  const PrefixHit hit = Look(sequence, *ledger);
  ledger->Keep(hit);
  const int64_t frames = kv_->FramesFor(sequence.known() + 1) - kv_->FramesOf(hit) + running * kv_->FramesFor(1);
  const bool has_room = ledger->Take(frames);
  if (has_room) ledger->Give(frames);
  ledger->Unkeep(hit);
  return has_room;
}

bool Scheduler::ReserveFor(Sequence* sequence, StepLedger* ledger) {
  int64_t frames = 0;
  std::vector<Adapter*> loads, kept;
  // Those that have rows may need the frames of what isn't reserved after all.
  const auto give_up = [&] {
    for (Adapter* adapter : kept) ledger->Unkeep(adapter);
    return false;
  };
  for (Adapter* adapter : sequence->adapters) {
    if (ledger->IsEvicted(adapter)) return give_up();  // went in this very plan: there is pressure, next step
    const bool is_missing = adapter->state == AdapterState::kRegistered;
    if (ledger->Keep(adapter)) kept.push_back(adapter);
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
    return give_up();
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
    Erase(&reserved_, sequence);
    ++sequence->take_backs;
    queue_.PutFirst(sequence);
  }
  for (Sequence* sequence : plan.preemptions) Preempt(sequence, step);
  for (Sequence* sequence : plan.given_way) sequence->gives_way_from = sequence->known() + kv_->frame_tokens();
  for (Adapter* adapter : plan.evictions) residency_->Evict(adapter, step);
  for (PrefixBlock* block : plan.drops) kv_->Drop(block, step);
  for (const PlannedRows& planned : plan.rows) Attach(planned, step);
  pool_->Reclaim(step);
  for (Adapter* adapter : plan.loads) {
    const bool has_frames = residency_->Reserve(adapter);
    OPENLORA_CHECK(has_frames);
  }
  for (Sequence* sequence : plan.pins) {
    OPENLORA_CHECK(!sequence->has_pins);
    for (Adapter* adapter : sequence->adapters) {
      if (IsPlanted(Plant::kMissedPin) && adapter->state == AdapterState::kLoading) continue;
      residency_->Pin(adapter, sequence->take_backs == 0);
    }
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
  std::unordered_set<const Adapter*> loads(plan.loads.begin(), plan.loads.end());
  for (const Sequence* sequence : plan.pins) {
    for (const Adapter* adapter : sequence->adapters) {
      if (loads.erase(adapter) > 0) queue_.Charge(*sequence, CostOfBytes(adapter->bytes));
    }
  }
  queue_.Settle();
}

void Scheduler::Preempt(Sequence* sequence, uint64_t step) {
  OPENLORA_CHECK(sequence->is_admitted);
  kv_->Release(&sequence->kv, step);
  sequence->computed = 0;
  sequence->is_admitted = false;
  sequence->was_preempted = true;
  Erase(&admitted_, sequence);
  if (sequence->has_pins && !sequence->adapters.empty()) Insert(&reserved_, sequence);
  queue_.Return(sequence);
  ++preemptions_;
}

void Scheduler::Charge(const StepPlan& plan) {
  for (Sequence* sequence : admitted_) ++sequence->steps_passed;
  for (const PlannedRows& planned : plan.rows) planned.sequence->steps_passed = 0;
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
    sequence->cost += cost;
    queue_.Charge(*sequence, cost);
  }
  queue_.Settle();
}

// A step for one token of an answer reads the base once.
double Scheduler::CostOfBytes(int64_t bytes) const {
  return kAnswerCost * static_cast<double>(bytes) / static_cast<double>(limits_.weight_bytes);
}

}  // namespace openlora
