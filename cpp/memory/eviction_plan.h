#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "memory/adapter_residency.h"
#include "memory/eviction_order.h"
#include "memory/prefix_index.h"

namespace openlora {

// Who would go, on scratch state: an EvictionOrder as it is when a plan begins, and what the plan has decided since.
// Nothing else changes while it lives. A plan that evicts nothing costs nothing.
class EvictionPlan {
 public:
  // `prefix_frames`: those that the index alone has; `layers`: frames of a block.
  EvictionPlan(const EvictionOrder* order, int64_t prefix_frames, int32_t layers)
      : order_(order), others_(Before{order}), layers_(layers), reachable_(order->adapter_frames() + prefix_frames) {
    for (size_t i = 0; i < cursors_.size(); ++i) cursors_[i] = order->lists()[i].begin();
  }

  // Wanted by the plan: it stays, until Unkeep. False: it was kept already.
  bool Keep(Adapter* adapter);
  void Unkeep(Adapter* adapter);
  // The chain up to `tail` stays (null: nothing), until Unkeep.
  void Keep(PrefixBlock* tail);
  void Unkeep(PrefixBlock* tail);
  // One pin fewer; one sequence fewer that holds the chain up to `tail`.
  void Unpin(Adapter* adapter);
  void LetGo(PrefixBlock* tail);
  // Take that back, as long as nothing was evicted since.
  void Pin(Adapter* adapter);
  void Hold(PrefixBlock* tail);

  bool IsEvicted(const Adapter* adapter) const { return evicted_.contains(adapter); }
  bool IsDropped(const PrefixBlock* block) const { return dropped_.contains(block); }
  // That evicting everything that may go would free.
  int64_t frames_reachable() const { return reachable_; }
  // Evicts until `frames` are free, adding to `frames_free` and to the lists; nothing where all isn't enough.
  bool MakeRoom(int64_t frames, int64_t* frames_free, std::vector<Adapter*>* adapters,
                std::vector<PrefixBlock*>* blocks);
  // Evicts what is worth the least, appending it to one of the lists, and returns the frames that it has. There is
  // some.
  int64_t EvictOne(std::vector<Adapter*>* adapters, std::vector<PrefixBlock*>* blocks);

 private:
  bool CanGo(const Adapter* adapter) const;
  bool IsReachable(const PrefixBlock* block) const;
  bool CanGo(const PrefixBlock* block) const;
  bool CanGo(const Evictable* object) const;
  Evictable* TakeLeast();
  int64_t Drop(PrefixBlock* block);

  struct Before {
    const EvictionOrder* order;
    bool operator()(const Evictable* a, const Evictable* b) const { return order->GoesBefore(*a, *b); }
  };

  const EvictionOrder* order_;
  std::array<EvictionOrder::List::const_iterator, EvictionOrder::kLists> cursors_;  // what is before them went or stays
  std::set<Evictable*, Before> others_;                                             // may go because of this plan
  int32_t layers_;
  int64_t reachable_;
  std::unordered_set<const Adapter*> evicted_, kept_;
  std::unordered_map<const Adapter*, int32_t> unpinned_;
  std::unordered_set<const PrefixBlock*> dropped_;
  std::unordered_map<const PrefixBlock*, int32_t> kept_blocks_, let_go_, children_dropped_;
};

}  // namespace openlora
