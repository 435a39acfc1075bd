#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "memory/adapter_manifest.h"
#include "memory/frame_pool.h"
#include "memory/tile_layout.h"

namespace openlora {

enum class AdapterState : uint8_t { kChecking, kRegistered, kLoading, kResident };

// One registered adapter. The engine thread owns it; while it is checked or loads, the loader thread reads `manifest`,
// `identity`, `layout` and `frames`, which nobody changes then.
struct Adapter {
  int64_t handle = 0;
  AdapterManifest manifest;
  AdapterIdentity identity;
  AdapterState state = AdapterState::kChecking;
  bool is_hidden = false;  // unregistered: goes when nothing pins it
  int32_t references = 0;  // sequences that name it, waiting or admitted
  int32_t pins = 0;        // sequences for which its frames are reserved
  uint64_t last_use = 0;   // step
  int64_t frames_needed = 0;
  int64_t bytes = 0;  // held when resident, without the rest of its last frame

  TileLayout layout;             // while loading or resident
  std::vector<uint32_t> frames;  // likewise
  int32_t slot = -1;             // while resident
};

// The slot table, the frames of adapters, and who may go. Slots are made as needed: their number is bounded by memory
// alone. Engine thread only.
class AdapterResidency {
 public:
  AdapterResidency(FramePool* pool, TileFormat format, std::vector<SiteShape> shapes)
      : pool_(pool), format_(format), shapes_(std::move(shapes)) {}

  const TileFormat& format() const { return format_; }
  const std::vector<SiteShape>& shapes() const { return shapes_; }

  Adapter* Add(int64_t handle, AdapterManifest manifest);
  Adapter* Find(int64_t handle) const;  // null if unknown or hidden
  // The content was checked and is sound: it may be reserved from now on.
  void SetChecked(Adapter* adapter, AdapterIdentity identity);
  // The check failed: forgets it.
  void Refuse(Adapter* adapter);
  // Forgets it when it is hidden and nothing uses it; true if it went.
  bool EraseIfUnused(Adapter* adapter, uint64_t step);

  // kRegistered → kLoading: takes its frames. False when they aren't free.
  bool Reserve(Adapter* adapter);
  // kLoading → kResident, or back to kRegistered when the load failed.
  void FinishLoad(Adapter* adapter, bool has_succeeded, uint64_t step);
  // kResident → kRegistered. Its frames are free once `step` has completed.
  void Evict(Adapter* adapter, uint64_t step);
  // Unpinned resident adapters, the one used longest ago first.
  std::vector<Adapter*> Victims() const;

  // Handles whose adapter came, went or changed its state since the last call.
  std::vector<int64_t> TakeChanged() { return std::exchange(changed_, {}); }

  AdapterPages Pages() const;
  int64_t bytes_resident() const { return bytes_resident_; }
  int64_t adapters_resident() const { return static_cast<int64_t>(resident_.size()); }
  int64_t adapters_loading() const { return adapters_loading_; }
  uint64_t loads() const { return loads_; }
  uint64_t evictions() const { return evictions_; }
  const std::unordered_map<int64_t, std::unique_ptr<Adapter>>& adapters() const { return adapters_; }

 private:
  FramePool* pool_;
  TileFormat format_;
  std::vector<SiteShape> shapes_;
  std::unordered_map<int64_t, std::unique_ptr<Adapter>> adapters_;
  std::vector<Adapter*> resident_;
  std::vector<int64_t> changed_;
  std::vector<SlotPages> slots_;
  std::vector<int32_t> slots_free_;
  int64_t bytes_resident_ = 0;
  int64_t adapters_loading_ = 0;
  uint64_t loads_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace openlora
