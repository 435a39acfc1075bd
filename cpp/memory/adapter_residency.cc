#include "memory/adapter_residency.h"

#include <algorithm>

#include "base/check.h"

namespace openlora {

Adapter* AdapterResidency::Add(int64_t handle, AdapterManifest manifest) {
  auto adapter = std::make_unique<Adapter>();
  adapter->handle = handle;
  adapter->manifest = std::move(manifest);
  Adapter* added = adapter.get();
  const bool is_new = adapters_.emplace(handle, std::move(adapter)).second;
  OPENLORA_CHECK(is_new);
  return added;
}

Adapter* AdapterResidency::Find(int64_t handle) const {
  const auto found = adapters_.find(handle);
  return found == adapters_.end() || found->second->is_hidden ? nullptr : found->second.get();
}

void AdapterResidency::SetChecked(Adapter* adapter, AdapterIdentity identity) {
  OPENLORA_CHECK(adapter->state == AdapterState::kChecking);
  adapter->identity = std::move(identity);
  const TileLayout layout = PlanTiles(adapter->manifest, shapes_, format_);
  adapter->frames_needed = layout.frames;
  adapter->bytes = layout.bytes;
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
  adapter->layout = PlanTiles(adapter->manifest, shapes_, format_);
  adapter->state = AdapterState::kLoading;
  changed_.push_back(adapter->handle);
  ++adapters_loading_;
  return true;
}

void AdapterResidency::FinishLoad(Adapter* adapter, bool has_succeeded, uint64_t step) {
  OPENLORA_CHECK(adapter->state == AdapterState::kLoading);
  --adapters_loading_;
  changed_.push_back(adapter->handle);
  if (!has_succeeded) {
    pool_->Retire(adapter->frames, FrameUse::kAdapter, step);
    adapter->frames.clear();
    adapter->state = AdapterState::kRegistered;
    return;
  }
  if (slots_free_.empty()) {
    slots_free_.push_back(static_cast<int32_t>(slots_.size()));
    slots_.emplace_back();
  }
  adapter->slot = slots_free_.back();
  slots_free_.pop_back();
  slots_[static_cast<size_t>(adapter->slot)] = {adapter->layout.sites.data(), adapter->layout.runs.data(),
                                                adapter->frames.data()};
  adapter->state = AdapterState::kResident;
  resident_.push_back(adapter);
  ++loads_;
  bytes_resident_ += adapter->layout.frames * format_.frame_bytes;
}

void AdapterResidency::Evict(Adapter* adapter, uint64_t step) {
  OPENLORA_CHECK(adapter->state == AdapterState::kResident && adapter->pins == 0);
  changed_.push_back(adapter->handle);
  pool_->Retire(adapter->frames, FrameUse::kAdapter, step);
  slots_[static_cast<size_t>(adapter->slot)] = {};
  slots_free_.push_back(adapter->slot);
  adapter->slot = -1;
  adapter->frames.clear();
  bytes_resident_ -= adapter->layout.frames * format_.frame_bytes;
  adapter->layout = {};
  adapter->state = AdapterState::kRegistered;
  resident_.erase(std::find(resident_.begin(), resident_.end(), adapter));
  ++evictions_;
}

std::vector<Adapter*> AdapterResidency::Victims() const {
  std::vector<Adapter*> victims;
  for (Adapter* adapter : resident_) {
    if (adapter->pins == 0) victims.push_back(adapter);
  }
  std::sort(victims.begin(), victims.end(), [](const Adapter* a, const Adapter* b) {
    return a->last_use != b->last_use ? a->last_use < b->last_use : a->handle < b->handle;
  });
  return victims;
}

AdapterPages AdapterResidency::Pages() const {
  return {pool_->memory(), slots_.data(), format_.dtype, format_.frame_bytes};
}

}  // namespace openlora
