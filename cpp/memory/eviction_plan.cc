#include "memory/eviction_plan.h"

#include "base/check.h"

namespace openlora {
namespace {

template <typename Key>
int32_t CountOf(const std::unordered_map<const Key*, int32_t>& counts, const Key* key) {
  const auto found = counts.find(key);
  return found == counts.end() ? 0 : found->second;
}

// Calls each(block) from `tail` to the first of its chain.
template <typename Each>
void ForChain(PrefixBlock* tail, const Each& each) {
  for (PrefixBlock* block = tail; block != nullptr && !block->is_root(); block = block->parent) each(block);
}

}  // namespace

bool EvictionPlan::CanGo(const Adapter* adapter) const {
  return adapter->state == AdapterState::kResident && adapter->pins == CountOf(unpinned_, adapter) &&
         !kept_.contains(adapter) && !evicted_.contains(adapter);
}

// Nobody holds it: it may go when its children have gone.
bool EvictionPlan::IsReachable(const PrefixBlock* block) const {
  return block->references == CountOf(let_go_, block) && CountOf(kept_blocks_, block) == 0 && !dropped_.contains(block);
}

bool EvictionPlan::CanGo(const PrefixBlock* block) const {
  return IsReachable(block) && block->children.size() == static_cast<size_t>(CountOf(children_dropped_, block));
}

bool EvictionPlan::CanGo(const Evictable* object) const {
  return object->adapter != nullptr ? CanGo(object->adapter) : CanGo(object->block);
}

bool EvictionPlan::Keep(Adapter* adapter) {
  if (CanGo(adapter)) reachable_ -= adapter->layout.frames;
  return kept_.insert(adapter).second;
}

void EvictionPlan::Unkeep(Adapter* adapter) {
  kept_.erase(adapter);
  if (!CanGo(adapter)) return;
  reachable_ += adapter->layout.frames;
  others_.insert(&adapter->eviction);
}

void EvictionPlan::Unpin(Adapter* adapter) {
  ++unpinned_[adapter];
  if (!CanGo(adapter)) return;
  reachable_ += adapter->layout.frames;
  others_.insert(&adapter->eviction);
}

void EvictionPlan::Pin(Adapter* adapter) {
  if (CanGo(adapter)) reachable_ -= adapter->layout.frames;
  --unpinned_[adapter];
}

void EvictionPlan::Hold(PrefixBlock* tail) {
  ForChain(tail, [&](PrefixBlock* block) {
    if (IsReachable(block)) reachable_ -= layers_;
    --let_go_[block];
  });
}

void EvictionPlan::Keep(PrefixBlock* tail) {
  ForChain(tail, [&](PrefixBlock* block) {
    if (IsReachable(block)) reachable_ -= layers_;
    ++kept_blocks_[block];
  });
}

void EvictionPlan::Unkeep(PrefixBlock* tail) {
  ForChain(tail, [&](PrefixBlock* block) {
    --kept_blocks_[block];
    if (IsReachable(block)) reachable_ += layers_;
    if (CanGo(block)) others_.insert(&block->eviction);
  });
}

void EvictionPlan::LetGo(PrefixBlock* tail) {
  ForChain(tail, [&](PrefixBlock* block) {
    ++let_go_[block];
    if (IsReachable(block)) reachable_ += layers_;
    if (CanGo(block)) others_.insert(&block->eviction);
  });
}

// Passes by what was listed and stays; what is kept now may come back through Unkeep.
Evictable* EvictionPlan::TakeLeast() {
  while (!others_.empty() && !CanGo(*others_.begin())) others_.erase(others_.begin());
  Evictable* least = others_.empty() ? nullptr : *others_.begin();
  for (size_t i = 0; i < cursors_.size(); ++i) {
    auto& cursor = cursors_[i];
    const auto end = order_->lists()[i].end();
    while (cursor != end && !CanGo(*cursor)) ++cursor;
    if (cursor != end && (least == nullptr || order_->GoesBefore(**cursor, *least))) least = *cursor;
  }
  OPENLORA_CHECK(least != nullptr);
  return least;
}

int64_t EvictionPlan::Drop(PrefixBlock* block) {
  dropped_.insert(block);
  PrefixBlock* parent = block->parent;
  ++children_dropped_[parent];
  if (!parent->is_root() && CanGo(parent)) others_.insert(&parent->eviction);
  return layers_;
}

bool EvictionPlan::MakeRoom(int64_t frames, int64_t* frames_free, std::vector<Adapter*>* adapters,
                            std::vector<PrefixBlock*>* blocks) {
  if (frames > *frames_free + reachable_) return false;
  while (frames > *frames_free) *frames_free += EvictOne(adapters, blocks);
  return true;
}

int64_t EvictionPlan::EvictOne(std::vector<Adapter*>* adapters, std::vector<PrefixBlock*>* blocks) {
  const Evictable* least = TakeLeast();
  if (least->block != nullptr) {
    blocks->push_back(least->block);
    reachable_ -= layers_;
    return Drop(least->block);
  }
  adapters->push_back(least->adapter);
  evicted_.insert(least->adapter);
  reachable_ -= least->adapter->layout.frames;
  return least->adapter->layout.frames;
}

}  // namespace openlora
