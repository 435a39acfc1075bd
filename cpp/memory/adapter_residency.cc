#include "memory/adapter_residency.h"

#include "base/check.h"

namespace openlora {

Adapter* AdapterResidency::Add(int64_t handle) {
  auto adapter = std::make_unique<Adapter>();
  adapter->handle = handle;
  Adapter* added = adapter.get();
  const bool is_new = adapters_.emplace(handle, std::move(adapter)).second;
  OPENLORA_CHECK(is_new);
  return added;
}

Adapter* AdapterResidency::Find(int64_t handle) const {
  const auto found = adapters_.find(handle);
  return found == adapters_.end() || found->second->is_hidden ? nullptr : found->second.get();
}

Adapter* AdapterResidency::FindAlsoHidden(int64_t handle) const {
  const auto found = adapters_.find(handle);
  return found == adapters_.end() ? nullptr : found->second.get();
}

void AdapterResidency::SetChecked(Adapter* adapter, AdapterContent content) {
  OPENLORA_CHECK(adapter->state == AdapterState::kChecking);
  adapter->frames_needed = content.frames;
  adapter->bytes = content.bytes;
  adapter->content = std::move(content);
  adapter->eviction.adapter = adapter;
  adapter->eviction.cost = AdapterCost(pool_->BytesOf(adapter->frames_needed));
  adapter->state = AdapterState::kRegistered;
  changed_.push_back(adapter->handle);
}

void AdapterResidency::Refuse(Adapter* adapter) {
  OPENLORA_CHECK(adapter->state == AdapterState::kChecking && adapter->references == 0);
  adapters_.erase(adapter->handle);
}

bool AdapterResidency::EraseIfUnused(Adapter* adapter, uint64_t step) {
  const bool is_busy = adapter->state == AdapterState::kChecking || adapter->state == AdapterState::kLoading;
  if (!adapter->is_hidden || adapter->references > 0 || is_busy) return false;
  OPENLORA_CHECK(adapter->pins == 0);
  if (adapter->state == AdapterState::kResident) Evict(adapter, step);
  changed_.push_back(adapter->handle);
  adapters_.erase(adapter->handle);
  return true;
}

bool AdapterResidency::Reserve(Adapter* adapter) {
  OPENLORA_CHECK(adapter->state == AdapterState::kRegistered);
  if (!pool_->Take(adapter->frames_needed, FrameUse::kAdapter, &adapter->frames)) return false;
  order_->Enter(&adapter->eviction, order_->WentLately(adapter->eviction));
  adapter->state = AdapterState::kLoading;
  changed_.push_back(adapter->handle);
  ++adapters_loading_;
  return true;
}

void AdapterResidency::FinishLoad(Adapter* adapter, LoadedAdapter* loaded, uint64_t step) {
  OPENLORA_CHECK(adapter->state == AdapterState::kLoading);
  --adapters_loading_;
  changed_.push_back(adapter->handle);
  if (loaded == nullptr) {
    pool_->Retire(adapter->frames, FrameUse::kAdapter, step);
    adapter->frames = {};
    adapter->state = AdapterState::kRegistered;
    return;
  }
  adapter->layout = std::move(loaded->layout);
  adapter->landing = std::move(loaded->landing);
  if (slots_free_.empty()) {
    slots_free_.push_back(static_cast<int32_t>(slots_.size()));
    slots_.emplace_back();
  }
  adapter->slot = slots_free_.back();
  slots_free_.pop_back();
  adapter->state = AdapterState::kResident;
  ++adapters_resident_;
  if (adapter->pins == 0) order_->Add(&adapter->eviction);
  ++loads_;
  slots_[static_cast<size_t>(adapter->slot)] = {adapter->layout.sites.data(),
                                                adapter->layout.runs.data(),
                                                adapter->frames.data(),
                                                static_cast<uint32_t>(adapter->layout.runs.size()),
                                                static_cast<uint32_t>(adapter->frames.size()),
                                                loads_,
                                                adapter->landing.get()};
}

void AdapterResidency::Evict(Adapter* adapter, uint64_t step) {
  OPENLORA_CHECK(adapter->state == AdapterState::kResident && adapter->pins == 0);
  order_->Leave(&adapter->eviction);
  changed_.push_back(adapter->handle);
  // Nobody may have used it: then no step has waited for its frames.
  if (adapter->landing != nullptr) adapter->landing->Wait();
  adapter->landing = nullptr;
  pool_->Retire(adapter->frames, FrameUse::kAdapter, step);
  slots_[static_cast<size_t>(adapter->slot)] = {};
  slots_free_.push_back(adapter->slot);
  adapter->slot = -1;
  adapter->frames = {};
  adapter->layout = {};
  adapter->state = AdapterState::kRegistered;
  --adapters_resident_;
  ++evictions_;
}

void AdapterResidency::Pin(Adapter* adapter, bool is_use) {
  if (is_use) order_->Use(&adapter->eviction);
  if (++adapter->pins == 1 && adapter->state == AdapterState::kResident) order_->Remove(&adapter->eviction);
}

void AdapterResidency::Unpin(Adapter* adapter) {
  OPENLORA_CHECK(adapter->pins > 0);
  if (--adapter->pins == 0 && adapter->state == AdapterState::kResident) order_->Add(&adapter->eviction);
}

AdapterPages AdapterResidency::Pages() const {
  return {pool_->memory(), slots_.data(), format_.dtype, format_.frame_bytes};
}

}  // namespace openlora
