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

void StepLedger::HoldBack() {
  const int parts = state_.queue->tenants() > 1 ? 2 : 4;
  held_back_ = {left_.rows / parts, left_.logit_rows / parts, left_.lora_bytes / parts};
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
  return bytes == 0 || read_.empty() || bytes <= left_.lora_bytes;
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
  if (frames > frames_free_ + eviction_.frames_reachable()) return false;
  while (frames > frames_free_) frames_free_ += eviction_.EvictOne(&plan_->evictions, &plan_->drops);
  frames_free_ -= frames;
  return true;
}

bool StepLedger::TakeByForce(const Sequence* taker, int64_t frames) {
  if (Take(frames)) return true;
  const std::vector<Sequence*>&reserved = *state_.reserved, &admitted = *state_.admitted;
  for (auto it = reserved.rbegin(); it != reserved.rend(); ++it) {
    Sequence* other = *it;
    const bool gives_way =
        taker->is_admitted || !CanRun(*other) || (admitted.empty() && taker->has_pins && !visited_.contains(other));
    if (IsPlanted(Plant::kReservationDeadlock)) break;
    if (other == taker || !gives_way || IsPlanned(other) || IsTakenBack(other) || !AreResident(*other)) continue;
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

// Preempts running sequences, the youngest first, if that brings enough.
bool StepLedger::TakeFromRunning(const Sequence* taker, int64_t frames) {
  std::vector<Sequence*> victims;
  Held held = HeldFrames();
  int64_t reachable = frames_free_ + eviction_.frames_reachable();
  for (auto it = state_.admitted->rbegin(); it != state_.admitted->rend() && reachable < frames; ++it) {
    Sequence* other = *it;
    if (other == taker || IsPreempted(other) || !GivesWay(*taker, frames, *other, held)) continue;
    victims.push_back(other);
    reachable += FramesFreedBy(other);
    held[other->flow->tenant] -= FramesOf(other);
  }
  if (reachable < frames) return false;
  for (Sequence* victim : victims) {
    if (victim->arrival < taker->arrival) plan_->given_way.push_back(victim);
    Preempt(victim);
  }
  return Take(frames);
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

// At least: blocks that another victim holds as well aren't counted.
int64_t StepLedger::FramesFreedBy(const Sequence* sequence) const {
  int64_t frames = state_.kv->FramesOwned(sequence->kv) + PlannedFrames(sequence);
  for (const PrefixBlock* block = sequence->kv.shared.tail; block != nullptr && !block->is_root();
       block = block->parent) {
    if (block->references > 1 || !block->children.empty()) break;
    frames += state_.kv->layers();
  }
  return frames;
}

// It loses its frames, and its rows in this plan, if it had some.
void StepLedger::Preempt(Sequence* sequence) {
  frames_free_ += state_.kv->FramesOwned(sequence->kv) + PlannedFrames(sequence);
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
  left_.lora_bytes -= NewBytes(*sequence);
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
