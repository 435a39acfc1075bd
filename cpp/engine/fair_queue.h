#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"

namespace openlora {

// Waiting sequences in the order in which they are to be served. Service is shared equally among tenants and, within a
// tenant, among the adapters that its requests name (by the first of them; the base alone is one more): whoever has had
// least goes first. Service is counted, not requests: Sheng et al., "Fairness in Serving Large Language Models", OSDI
// 2024, arXiv:2401.00588. Who comes back from idleness starts at the virtual time, the counter of whoever was last
// admitted in turn, so that nobody saves up service: Goyal et al., "Start-time Fair Queuing", SIGCOMM 1996. Within a
// tenant priority goes before fairness among adapters. Of a tenant's kTurns admissions one is for whichever of its
// requests has waited longest, so that no priority, and no flood for other adapters, keeps one waiting for ever: with n
// of its tenant before it in the order of arrival, it waits for kTurns (n + 1) admissions of its tenant at most, and
// then for its own load: the turn is owed until it is taken. And where the virtual time stands still for kTurns times
// as many admissions as tenants wait, since tenants come without end that have had nothing yet, whoever has waited
// longest of all is next. Engine thread only; every change is O(log waiting).
class FairQueue {
 public:
  static constexpr uint64_t kTurns = 8;
  static constexpr int32_t kStepsPassed = 4;

  FairQueue() = default;
  FairQueue(const FairQueue&) = delete;
  FairQueue& operator=(const FairQueue&) = delete;

  // A sequence comes, waiting.
  void Add(Sequence* sequence);
  // It goes, waiting or not.
  void Remove(Sequence* sequence);
  // It has rows from now on, and waits no more.
  void Admit(Sequence* sequence);
  // It waits again: it lost its KV.
  void Return(Sequence* sequence);
  // It waits, and nobody passes it any more.
  void PutFirst(Sequence* sequence);

  // It was served so much, which counts from the next Settle on.
  void Charge(const Sequence& sequence, double cost);
  void Settle();

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  // Tenants that have sequences, waiting or not.
  int64_t tenants() const { return tenants_busy_; }
  // Those that are remembered: also idle ones that had more than others.
  int64_t tenants_known() const { return static_cast<int64_t>(tenants_.size()); }
  // Of `tenant`, waiting or not.
  int64_t SequencesOf(const std::string& tenant) const;
  // Whether `a` has had less, its tenant that is. A prompt that has begun stands where it was admitted if its own rows
  // are all that its tenant has had since: they put it behind nobody who comes later. And so does any prompt after
  // kStepsPassed steps without a row, so that nobody waits for ever.
  static bool GoesBefore(const Sequence& a, const Sequence& b);

  // Goes through the waiting once, in order. What is charged on the way counts for those that follow, in this visit
  // alone, but for what went to somebody who has waited longest. The queue stays as it is meanwhile.
  class Visit {
   public:
    explicit Visit(const FairQueue& queue);
    ~Visit();
    // Null when nobody is left.
    Sequence* Next();
    // Of the one that Next gave last.
    TurnOf turn_of() const;
    // To the one that Next gave last; it counts as admitted.
    void Charge(double cost);
    // Nothing more of the flow, or of the tenant, of the one that Next gave last, but for whoever goes first of all
    // and, of the flow, its tenant's oldest.
    void SkipFlow();
    void SkipTenant();

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct FlowKey {
    int32_t priority = 0;
    double served = 0;
    uint64_t arrival = 0;
    // Less: goes first.
    std::partial_ordering operator<=>(const FlowKey& other) const {
      if (priority != other.priority) return other.priority <=> priority;
      if (served != other.served) return served <=> other.served;
      return arrival <=> other.arrival;
    }
  };
  struct TenantKey {
    double served = 0;
    uint64_t since = UINT64_MAX;  // arrival of the sequence with which it came back: equals go by it
    std::partial_ordering operator<=>(const TenantKey& other) const = default;
  };
  struct GoesFirst {
    bool operator()(const Sequence* a, const Sequence* b) const;
  };
  struct CameFirst {
    bool operator()(const Sequence* a, const Sequence* b) const;
  };
  using Waiting = std::set<Sequence*, GoesFirst>;
  using ByArrival = std::set<Sequence*, CameFirst>;

  Flow* FlowOf(const Sequence& sequence);
  void Dequeue(Sequence* sequence);
  // Whoever has waited longest of all is next.
  bool StandsStill() const { return stood_still_ >= kTurns * (order_.size() + 1); }
  void Link(Flow* flow);    // into the orders that it belongs to
  void Unlink(Flow* flow);  // from all

  std::unordered_map<std::string, std::unique_ptr<Tenant>> tenants_;
  std::map<TenantKey, Tenant*> order_;  // those with waiting sequences
  ByArrival waiting_, first_;
  std::vector<Flow*> charged_;
  double virtual_time_ = 0;
  double served_max_ = 0;
  double stands_at_ = 0;
  uint64_t stood_still_ = 0;  // admissions since the virtual time rose, or the oldest of all had its turn
  int64_t tenants_busy_ = 0;
  size_t tenants_kept_max_ = 64;

  friend struct Flow;
  friend struct Tenant;
};

// The requests of a tenant that name the same adapter first.
struct Flow {
  Tenant* tenant = nullptr;
  double served = 0;
  double charge = 0;      // not settled
  int64_t sequences = 0;  // waiting or not
  FairQueue::Waiting waiting;
  FairQueue::FlowKey key;  // while something waits
};

struct Tenant {
  double served = 0;
  double virtual_time = 0;  // of its flows
  double served_max = 0;    // likewise
  int64_t sequences = 0;    // waiting or not
  FairQueue::TenantKey key;
  std::unordered_map<int64_t, std::unique_ptr<Flow>> flows;
  size_t flows_kept_max = 64;
  std::map<FairQueue::FlowKey, Flow*> order;  // those with waiting sequences
  FairQueue::ByArrival waiting;
  uint64_t since_oldest = 0;  // admissions by its flows' turns since its oldest had its turn
};

}  // namespace openlora
