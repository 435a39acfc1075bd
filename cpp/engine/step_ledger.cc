#include "engine/step_ledger.h"

#include <algorithm>

#include "base/plant.h"

namespace openlora {

int32_t LogitRows(const Sequence& sequence, int32_t start, int32_t rows) {
  const int32_t end = start + rows;
  int32_t wanted = end == sequence.known() ? 1 : 0;
  if (sequence.is_scoring())
    wanted += std::max(0, std::min(end, sequence.prompt() - 1) - std::max(start, sequence.scored));
  return wanted;
}

bool AreResident(const Sequence& sequence) {
  return std::all_of(sequence.adapters.begin(), sequence.adapters.end(),
                     [](const Adapter* a) { return a->state == AdapterState::kResident; });
}

StepLedger::StepLedger(const State& state, StepBudget budget, const std::function<bool(const Sequence&)>& is_ready,
                       StepPlan* plan)
    : state_(state),
      is_ready_(is_ready),
      plan_(plan),
      left_(budget),
      eviction_(state.order, state.pool->frames(FrameUse::kPrefix), state.kv->layers()),
      frames_free_(state.pool->frames_free()) {}

bool StepLedger::HoldsMoreThanItsShare(const Sequence& sequence) const {
  return state_.queue->tenants() > 1 && HeldFrames()[sequence.flow->tenant] > Share();
}

void StepLedger::KeepShort(int32_t rows, int32_t first_rows) {
  const int32_t whole = first_rows + std::max(1, first_rows / (kAnswerPart - 1));
  left_.rows = std::min(left_.rows, std::max(rows, whole));
}

void StepLedger::HoldBack(int32_t first_rows) {
  const int parts = state_.queue->tenants() > 1 ? 2 : 4;
  held_back_ = {left_.rows / parts, left_.logit_rows / parts, left_.lora_bytes / parts};
  if (first_rows <= RowsOfPrompts(left_.rows)) held_back_.rows = std::max(held_back_.rows, first_rows);
  left_.rows -= held_back_.rows;
  left_.logit_rows -= held_back_.logit_rows;
  left_.lora_bytes -= held_back_.lora_bytes;
}

void StepLedger::Release() {
  left_.rows += held_back_.rows;
  left_.logit_rows += held_back_.logit_rows;
  left_.lora_bytes += held_back_.lora_bytes;
  held_back_ = {};
}

bool StepLedger::MayRead(const Sequence& sequence) const {
  const int64_t bytes = NewBytes(sequence);
  const bool is_first_prompt = !has_prompt_read_ && !sequence.is_continuing();
  return bytes == 0 || read_.empty() || is_first_prompt || bytes <= left_.lora_bytes;
}

// Of the sequence's adapters those that this step doesn't read yet.
int64_t StepLedger::NewBytes(const Sequence& sequence) const {
  int64_t bytes = 0;
  for (size_t i = 0; i < sequence.adapters.size(); ++i) {
    const auto begin = sequence.adapters.begin(), at = begin + static_cast<std::ptrdiff_t>(i);
    if (!read_.contains(*at) && std::find(begin, at, *at) == at) bytes += (*at)->bytes;
  }
  return bytes;
}

bool StepLedger::Take(int64_t frames) {
  if (!eviction_.MakeRoom(frames, &frames_free_, &plan_->evictions, &plan_->drops)) return false;
  frames_free_ -= frames;
  return true;
}

// Who would give way is found out first: nobody does where it isn't enough, or where it brings nothing. Adapters of who
// loses its KV stay reserved for it unless they are needed too.
bool StepLedger::TakeByForce(const Sequence* taker, int64_t frames) {
  if (Take(frames)) return true;
  Trial trial;
  const auto is_enough = [&] { return frames_free_ + trial.freed + eviction_.frames_reachable() >= frames; };
  TryReservations(*taker, is_enough, &trial);
  TryAdmitted(*taker, frames, is_enough, &trial);
  for (Sequence* victim : trial.victims) {
    if (is_enough()) break;
    for (Adapter* adapter : victim->adapters) eviction_.Unpin(adapter);
    trial.reservations.push_back(victim);
  }
  const bool has_enough = is_enough();
  if (has_enough) SpareReservations(is_enough, &trial);
  Undo(trial);
  if (!has_enough) return false;
  for (Sequence* other : trial.reservations) TakeBack(other);
  for (Sequence* victim : trial.victims) {
    if (CanRun(*victim) && victim->arrival < taker->arrival) plan_->given_way.push_back(victim);
    Preempt(victim);
  }
  return Take(frames);
}

void StepLedger::TryReservations(const Sequence& taker, const std::function<bool()>& is_enough, Trial* trial) {
  if (IsPlanted(Plant::kReservationDeadlock)) return;
  const bool has_rows = !state_.admitted->empty();
  for (auto it = state_.reserved->rbegin(); it != state_.reserved->rend() && !is_enough(); ++it) {
    Sequence* other = *it;
    const bool gives_way =
        taker.is_admitted || !CanRun(*other) || (!has_rows && taker.has_pins && !visited_.contains(other));
    if (other == &taker || !gives_way || IsPlanned(other) || IsTakenBack(other) || !AreResident(*other)) continue;
    for (Adapter* adapter : other->adapters) eviction_.Unpin(adapter);
    trial->reservations.push_back(other);
  }
}

// Those that can't run at present, then those that can and give way, each time the youngest first.
void StepLedger::TryAdmitted(const Sequence& taker, int64_t frames, const std::function<bool()>& is_enough,
                             Trial* trial) {
  Held held;
  for (const bool can_run : {false, true}) {
    if (can_run && !is_enough()) held = HeldFrames();
    for (auto it = state_.admitted->rbegin(); it != state_.admitted->rend() && !is_enough(); ++it) {
      Sequence* other = *it;
      if (other == &taker || IsPreempted(other) || CanRun(*other) != can_run) continue;
      if (can_run && !GivesWay(taker, frames, *other, held)) continue;
      held[other->flow->tenant] -= FramesOf(other);
      trial->freed += FramesFreedBy(*other);
      eviction_.LetGo(other->kv.shared.tail);
      const auto planned = planned_.find(other);
      if (planned != planned_.end()) Unkeep(planned->second.hit);
      trial->victims.push_back(other);
    }
  }
}

// Those without which it is enough as well.
void StepLedger::SpareReservations(const std::function<bool()>& is_enough, Trial* trial) {
  std::erase_if(trial->reservations, [&](const Sequence* other) {
    for (Adapter* adapter : other->adapters) eviction_.Pin(adapter);
    if (is_enough()) return true;
    for (Adapter* adapter : other->adapters) eviction_.Unpin(adapter);
    return false;
  });
}

void StepLedger::Undo(const Trial& trial) {
  for (const Sequence* other : trial.reservations) {
    for (Adapter* adapter : other->adapters) eviction_.Pin(adapter);
  }
  for (const Sequence* victim : trial.victims) {
    eviction_.Hold(victim->kv.shared.tail);
    const auto planned = planned_.find(victim);
    if (planned != planned_.end()) Keep(planned->second.hit);
  }
}

// Whether a running sequence loses its KV to `taker`. Within a tenant the younger does. Where several tenants are at
// work each has an equal share of the pool: one that holds no more loses nothing to another, and one that holds more
// loses to a younger taker that stays within its share; but a sequence that did is left alone until it has got a block
// further, so that it comes to an end whoever comes and goes.
bool StepLedger::GivesWay(const Sequence& taker, int64_t frames, const Sequence& other, const Held& held) const {
  const Tenant *mine = taker.flow->tenant, *its = other.flow->tenant;
  const bool is_older = taker.arrival < other.arrival;
  if (mine == its || !has_shares_) return taker.is_admitted && is_older;
  const auto of = [&held](const Tenant* tenant) {
    const auto found = held.find(tenant);
    return found == held.end() ? 0 : found->second;
  };
  if (of(its) <= Share()) return false;
  if (taker.is_admitted && is_older) return true;
  return other.known() >= other.gives_way_from && of(mine) + frames <= Share();
}

// KV frames that tenants' running sequences have in this plan, shared ones included.
StepLedger::Held StepLedger::HeldFrames() const {
  Held held;
  for (const Sequence* sequence : *state_.admitted) {
    if (!IsPreempted(sequence)) held[sequence->flow->tenant] += FramesOf(sequence);
  }
  return held;
}

int64_t StepLedger::PlannedFrames(const Sequence* sequence) const {
  const auto planned = planned_.find(sequence);
  return planned == planned_.end() ? 0 : planned->second.frames;
}

int64_t StepLedger::FramesOf(const Sequence* sequence) const {
  return static_cast<int64_t>(sequence->kv.frames.size()) + PlannedFrames(sequence);
}

// Beside blocks that it shares.
int64_t StepLedger::FramesFreedBy(const Sequence& sequence) const {
  return state_.kv->FramesOwned(sequence.kv) + PlannedFrames(&sequence);
}

// It loses its frames, and its rows in this plan, if it had some.
void StepLedger::Preempt(Sequence* sequence) {
  frames_free_ += FramesFreedBy(*sequence);
  eviction_.LetGo(sequence->kv.shared.tail);
  preempted_.insert(sequence);
  plan_->preemptions.push_back(sequence);
  const auto planned = planned_.find(sequence);
  if (planned == planned_.end()) return;
  const Planned& rows = planned->second;
  Unkeep(rows.hit);
  left_.rows += rows.rows;
  left_.logit_rows += LogitRows(*sequence, rows.start, rows.rows);
  planned_.erase(planned);
  std::erase_if(plan_->rows, [sequence](const PlannedRows& other) { return other.sequence == sequence; });
}

void StepLedger::TakeBack(Sequence* sequence) {
  taken_back_.insert(sequence);
  plan_->unpins.push_back(sequence);
  for (Adapter* adapter : sequence->adapters) eviction_.Unpin(adapter);
}

void StepLedger::Plan(Sequence* sequence, const PrefixHit& hit, int32_t start, int32_t rows, int64_t frames) {
  planned_[sequence] = {hit, start, rows, frames};
  plan_->rows.push_back({sequence, rows, hit});
  left_.rows -= rows;
  left_.logit_rows -= LogitRows(*sequence, start, rows);
  const int64_t bytes = NewBytes(*sequence);
  left_.lora_bytes -= bytes;
  has_prompt_read_ |= bytes > 0 && !sequence->is_continuing();
  read_.insert(sequence->adapters.begin(), sequence->adapters.end());
}

// Of those that have rows the one that came first: it may take from all others, so it is the one that can't fit.
void StepLedger::Starve(Sequence* sequence, int64_t frames) {
  const Sequence* before = plan_->starved;
  const bool is_culprit =
      sequence->is_admitted && before != nullptr && (!before->is_admitted || sequence->arrival < before->arrival);
  if (before != nullptr && !is_culprit) return;
  plan_->starved = sequence;
  plan_->starved_frames = frames;
}

}  // namespace openlora
