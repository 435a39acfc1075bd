#include "engine/fair_queue.h"

#include <algorithm>
#include <unordered_set>

namespace openlora {
namespace {

// Of sums of costs.
constexpr double kRounding = 1e-9;
constexpr size_t kKnownMin = 64;
constexpr size_t kKnownMax = 1 << 16;

// Drops what is idle and behind the virtual time, which would start there anyway. `kept_max` doubles when that isn't
// enough, so that this costs O(1) for each that comes, up to a limit beyond which all that is idle goes.
template <typename Map>
void ForgetIdle(Map* all, double virtual_time, size_t* kept_max) {
  if (all->size() < *kept_max) return;
  const bool is_full = all->size() >= kKnownMax;
  std::erase_if(*all, [&](const auto& item) {
    return item.second->sequences == 0 && (is_full || item.second->served <= virtual_time);
  });
  *kept_max = std::max<size_t>(kKnownMin, 2 * all->size());
}

// An order of items, some of which have another key meanwhile: the others are looked at where they stand.
template <typename Key, typename Item, typename State>
class Overlay {
 public:
  explicit Overlay(const std::map<Key, Item*>& order) : untouched_(order.begin()), end_(order.end()) {}

  // Null if there is none.
  State* Best() {
    if (untouched_ != end_ && (touched_.empty() || untouched_->first < touched_.begin()->first)) {
      states_.push_back(std::make_unique<State>(*untouched_->second));
      touched_.emplace(untouched_->first, states_.back().get());
      ++untouched_;
    }
    return touched_.empty() ? nullptr : touched_.begin()->second;
  }
  void Move(const Key& from, const Key& to, State* state) {
    touched_.erase(from);
    touched_.emplace(to, state);
  }
  void Drop(const Key& key) { touched_.erase(key); }

 private:
  typename std::map<Key, Item*>::const_iterator untouched_, end_;
  std::map<Key, State*> touched_;
  std::vector<std::unique_ptr<State>> states_;
};

}  // namespace

bool FairQueue::GoesFirst::operator()(const Sequence* a, const Sequence* b) const {
  if (a->request.priority != b->request.priority) return a->request.priority > b->request.priority;
  return a->arrival < b->arrival;
}

bool FairQueue::CameFirst::operator()(const Sequence* a, const Sequence* b) const { return a->arrival < b->arrival; }

Flow* FairQueue::FlowOf(const Sequence& sequence) {
  std::unique_ptr<Tenant>& tenant = tenants_[sequence.request.tenant];
  if (tenant == nullptr) tenant = std::make_unique<Tenant>();
  const int64_t adapter = sequence.adapters.empty() ? 0 : sequence.adapters[0]->handle;
  std::unique_ptr<Flow>& flow = tenant->flows[adapter];
  if (flow == nullptr) {
    flow = std::make_unique<Flow>();
    flow->tenant = tenant.get();
  }
  return flow.get();
}

void FairQueue::Add(Sequence* sequence) {
  ForgetIdle(&tenants_, virtual_time_, &tenants_kept_max_);
  Flow* flow = FlowOf(*sequence);
  Tenant* tenant = flow->tenant;
  if (tenant->sequences++ == 0) ++tenants_busy_;
  ++flow->sequences;
  sequence->flow = flow;
  Return(sequence);
}

void FairQueue::Remove(Sequence* sequence) {
  if (!sequence->is_admitted) Dequeue(sequence);
  Flow* flow = sequence->flow;
  Tenant* tenant = flow->tenant;
  sequence->flow = nullptr;
  --flow->sequences;
  if (--tenant->sequences == 0) {
    tenant->virtual_time = tenant->served_max;
    if (--tenants_busy_ == 0) virtual_time_ = served_max_;
  }
  ForgetIdle(&tenant->flows, tenant->virtual_time, &tenant->flows_kept_max);
}

void FairQueue::Admit(Sequence* sequence) {
  Dequeue(sequence);
  const Flow& flow = *sequence->flow;
  Tenant* tenant = flow.tenant;
  const bool is_in_turn = sequence->turn_of == TurnOf::kTenant || sequence->turn_of == TurnOf::kFlow;
  sequence->cost = 0;
  sequence->turn = is_in_turn ? tenant->served : std::min(tenant->served, virtual_time_);
  if (is_in_turn) virtual_time_ = std::max(virtual_time_, tenant->served);
  if (virtual_time_ > stands_at_ || sequence->turn_of == TurnOf::kOldest) {
    stands_at_ = virtual_time_;
    stood_still_ = 0;
  } else {
    ++stood_still_;
  }
  if (!is_in_turn) return;
  if (sequence->turn_of == TurnOf::kTenant) {
    tenant->since_oldest = 0;
    return;
  }
  ++tenant->since_oldest;
  tenant->virtual_time = std::max(tenant->virtual_time, flow.served);
}

void FairQueue::PutFirst(Sequence* sequence) { first_.insert(sequence); }

void FairQueue::Return(Sequence* sequence) {
  Flow* flow = sequence->flow;
  Tenant* tenant = flow->tenant;
  Unlink(flow);
  if (tenant->order.empty()) {
    tenant->served = std::max(tenant->served, virtual_time_);
    tenant->key.since = sequence->arrival;
  }
  if (flow->waiting.empty()) flow->served = std::max(flow->served, tenant->virtual_time);
  flow->waiting.insert(sequence);
  waiting_.insert(sequence);
  tenant->waiting.insert(sequence);
  Link(flow);
}

void FairQueue::Dequeue(Sequence* sequence) {
  Flow* flow = sequence->flow;
  Unlink(flow);
  flow->waiting.erase(sequence);
  waiting_.erase(sequence);
  flow->tenant->waiting.erase(sequence);
  first_.erase(sequence);
  Link(flow);
}

void FairQueue::Link(Flow* flow) {
  Tenant* tenant = flow->tenant;
  if (!flow->waiting.empty()) {
    const Sequence& head = **flow->waiting.begin();
    flow->key = {head.request.priority, flow->served, head.arrival};
    tenant->order.emplace(flow->key, flow);
  }
  tenant->key.served = tenant->served;
  if (!tenant->order.empty()) order_.emplace(tenant->key, tenant);
}

void FairQueue::Unlink(Flow* flow) {
  if (!flow->waiting.empty()) flow->tenant->order.erase(flow->key);
  order_.erase(flow->tenant->key);
}

void FairQueue::Charge(const Sequence& sequence, double cost) {
  if (sequence.flow->charge == 0) charged_.push_back(sequence.flow);
  sequence.flow->charge += cost;
}

void FairQueue::Settle() {
  for (Flow* flow : charged_) {
    Unlink(flow);
    flow->served += flow->charge;
    flow->tenant->served += flow->charge;
    flow->charge = 0;
    flow->tenant->served_max = std::max(flow->tenant->served_max, flow->served);
    served_max_ = std::max(served_max_, flow->tenant->served);
    Link(flow);
  }
  charged_.clear();
}

int64_t FairQueue::SequencesOf(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0 : found->second->sequences;
}

bool FairQueue::GoesBefore(const Sequence& a, const Sequence& b) {
  const auto key = [](const Sequence& s) {
    TenantKey of_tenant = s.flow->tenant->key;
    if (!s.is_admitted || s.is_continuing()) return of_tenant;
    const bool has_others = of_tenant.served - s.cost - s.turn > kRounding * of_tenant.served;
    if (!has_others || s.steps_passed >= kStepsPassed) of_tenant.served = s.turn;
    return of_tenant;
  };
  const TenantKey x = key(a), y = key(b);
  if (x != y) return x < y;
  if (a.flow->tenant != b.flow->tenant) return a.arrival < b.arrival;
  return FlowKey{a.request.priority, a.flow->served, a.arrival} <
         FlowKey{b.request.priority, b.flow->served, b.arrival};
}

struct FairQueue::Visit::State {
  struct FlowState {
    explicit FlowState(const Flow& of) : flow(&of), next(of.waiting.begin()), end(of.waiting.end()), key(of.key) {}
    const Flow* flow;
    Waiting::const_iterator next, end;
    FlowKey key;
  };
  struct TenantState {
    explicit TenantState(const Tenant& of)
        : tenant(&of), flows(of.order), key(of.key), oldest(of.waiting.begin()), since_oldest(of.since_oldest) {}
    const Tenant* tenant;
    Overlay<FlowKey, Flow, FlowState> flows;
    TenantKey key;
    ByArrival::const_iterator oldest;
    uint64_t since_oldest;
    bool has_given_oldest = false;  // and it hasn't been charged
  };

  explicit State(const FairQueue& of)
      : queue(&of), tenants(of.order_), first(of.first_.begin()), has_given_oldest(!of.StandsStill()) {}

  Sequence* Next() {
    tenant = nullptr;
    flow = nullptr;
    turn_of = TurnOf::kNobody;
    if (first != queue->first_.end()) {
      Sequence* sequence = *first++;
      visited.insert(sequence);
      return sequence;
    }
    if (!has_given_oldest) {
      has_given_oldest = true;
      ByArrival::const_iterator oldest = queue->waiting_.begin();
      if (Sequence* sequence = NextFrom(queue->waiting_, &oldest)) {
        turn_of = TurnOf::kOldest;
        return sequence;
      }
    }
    while ((tenant = tenants.Best()) != nullptr) {
      if (Sequence* sequence = NextOf(tenant)) return sequence;
      tenants.Drop(tenant->key);
    }
    return nullptr;
  }

  Sequence* NextFrom(const ByArrival& waiting, ByArrival::const_iterator* oldest) {
    while (*oldest != waiting.end()) {
      Sequence* sequence = *(*oldest)++;
      if (sequence->is_paused || skipped.contains(sequence->flow->tenant)) continue;
      if (visited.insert(sequence).second) return sequence;
    }
    return nullptr;
  }

  Sequence* NextOf(TenantState* state) {
    flow = nullptr;
    if (skipped.contains(state->tenant)) return nullptr;
    if (state->since_oldest >= kTurns - 1 && !state->has_given_oldest) {
      state->has_given_oldest = true;
      if (Sequence* sequence = NextFrom(state->tenant->waiting, &state->oldest)) {
        turn_of = TurnOf::kTenant;
        return sequence;
      }
    }
    while (FlowState* best = state->flows.Best()) {
      if (skipped_flows.contains(best->flow)) {
        state->flows.Drop(best->key);
        continue;
      }
      Sequence* sequence = *best->next++;
      flow = best;
      if (best->next == best->end) {
        state->flows.Drop(best->key);
        flow = nullptr;
      } else {
        FlowKey key = best->key;
        key.priority = (*best->next)->request.priority;
        key.arrival = (*best->next)->arrival;
        MoveFlow(state, best, key);
      }
      if (!visited.insert(sequence).second) continue;
      turn_of = TurnOf::kFlow;
      return sequence;
    }
    return nullptr;
  }

  static void MoveFlow(TenantState* state, FlowState* moved, const FlowKey& key) {
    state->flows.Move(moved->key, key, moved);
    moved->key = key;
  }

  const FairQueue* queue;
  Overlay<TenantKey, Tenant, TenantState> tenants;
  ByArrival::const_iterator first;
  bool has_given_oldest;  // of all
  TurnOf turn_of = TurnOf::kNobody;
  std::unordered_set<const Sequence*> visited;
  std::unordered_set<const Tenant*> skipped;
  std::unordered_set<const Flow*> skipped_flows;
  const Sequence* last = nullptr;
  TenantState* tenant = nullptr;  // of the last one, if it went by its tenant's turn
  FlowState* flow = nullptr;      // likewise, if more of it wait
};

FairQueue::Visit::Visit(const FairQueue& queue) : state_(std::make_unique<State>(queue)) {}

FairQueue::Visit::~Visit() = default;

Sequence* FairQueue::Visit::Next() {
  Sequence* next = state_->Next();
  state_->last = next;
  return next;
}

TurnOf FairQueue::Visit::turn_of() const { return state_->turn_of; }

void FairQueue::Visit::SkipFlow() { state_->skipped_flows.insert(state_->last->flow); }

void FairQueue::Visit::SkipTenant() { state_->skipped.insert(state_->last->flow->tenant); }

void FairQueue::Visit::Charge(double cost) {
  State& s = *state_;
  if (s.tenant == nullptr) return;
  if (s.turn_of == TurnOf::kTenant) {
    s.tenant->since_oldest = 0;
    s.tenant->has_given_oldest = false;
  } else {
    ++s.tenant->since_oldest;
  }
  TenantKey key = s.tenant->key;
  key.served += cost;
  s.tenants.Move(s.tenant->key, key, s.tenant);
  s.tenant->key = key;
  if (s.flow == nullptr) return;
  FlowKey flow_key = s.flow->key;
  flow_key.served += cost;
  State::MoveFlow(s.tenant, s.flow, flow_key);
}

}  // namespace openlora
