#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "memory/adapter_store.h"
#include "memory/eviction_order.h"
#include "memory/frame_pool.h"
#include "memory/tile_layout.h"

namespace openlora {

enum class AdapterState : uint8_t { kChecking, kRegistered, kLoading, kResident };
// Its pack is being made or read, so that it is in the host tier: because somebody asked for that, or a request waits.
enum class Preparing : uint8_t { kNo, kIdle, kWaited };

// One registered adapter: as long as it is neither loading nor resident, these few words and no file's contents. The
// engine thread owns it; the loader has copies of what it needs.
struct Adapter {
  int64_t handle = 0;
  AdapterContent content;  // once it is checked
  Evictable eviction;      // its uses count while it is on disk, too
  int64_t frames_needed = 0;
  int64_t bytes = 0;       // held when resident, without the rest of its last frame
  int32_t references = 0;  // sequences that name it, waiting or admitted
  int32_t pins = 0;        // sequences for which its frames are reserved, and one if it is pinned
  int32_t slot = -1;       // while resident
  AdapterState state = AdapterState::kChecking;
  Preparing preparing = Preparing::kNo;
  bool is_hidden = false;   // unregistered: goes when nobody refers to it
  bool is_pinned = false;   // by its owner: never evicted
  bool is_dropped = false;  // nobody waits for its load any more, and the loader was told
  // What a reload costs: bytes, and whether they come from the page cache (is_host), from its pack on disk
  // (content.has_pack), or from a pack that has to be made first.
  bool is_host = false;
  std::list<Adapter*>::iterator host_place{};  // while is_host

  TileLayout layout;                 // while resident
  std::vector<uint32_t> frames;      // while loading or resident
  std::shared_ptr<Landing> landing;  // while resident, and its frames may be on their way
};

// The slot table, the frames of adapters, and who may go. Slots are made as needed: their number is bounded by memory
// alone. Engine thread only.
class AdapterResidency {
 public:
  AdapterResidency(FramePool* pool, EvictionOrder* order, TileFormat format, std::vector<SiteShape> shapes)
      : pool_(pool), order_(order), format_(format), shapes_(std::move(shapes)) {}

  const TileFormat& format() const { return format_; }
  const std::vector<SiteShape>& shapes() const { return shapes_; }

  Adapter* Add(int64_t handle);
  Adapter* Find(int64_t handle) const;            // null if unknown or hidden
  Adapter* FindAlsoHidden(int64_t handle) const;  // null if unknown
  // The content was checked and is sound: it may be reserved from now on.
  void SetChecked(Adapter* adapter, AdapterContent content);
  // The check failed: forgets it.
  void Refuse(Adapter* adapter);
  // Forgets it when it is hidden and nothing uses it; true if it went.
  bool EraseIfUnused(Adapter* adapter, uint64_t step);

  // kRegistered → kLoading: takes its frames. False when they aren't free.
  bool Reserve(Adapter* adapter);
  // kLoading → kResident, or, if `loaded` is null, back to kRegistered: the load failed.
  void FinishLoad(Adapter* adapter, LoadedAdapter* loaded, uint64_t step);
  // kResident → kRegistered. Its frames are free once `step` has completed.
  void Evict(Adapter* adapter, uint64_t step);
  // For a request, whose first pin of it is a use. Nobody evicts it while it has pins.
  void Pin(Adapter* adapter, bool is_use);
  void Unpin(Adapter* adapter);

  // What others see of it has changed.
  void NoteChange(const Adapter* adapter) { changed_.push_back(adapter->handle); }
  // Handles whose adapter came, went or changed its state since the last call.
  std::vector<int64_t> TakeChanged() { return std::exchange(changed_, {}); }

  AdapterPages Pages() const;
  int64_t adapters_resident() const { return adapters_resident_; }
  int64_t adapters_loading() const { return adapters_loading_; }
  uint64_t loads() const { return loads_; }
  uint64_t evictions() const { return evictions_; }
  const std::unordered_map<int64_t, std::unique_ptr<Adapter>>& adapters() const { return adapters_; }

 private:
  FramePool* pool_;
  EvictionOrder* order_;
  TileFormat format_;
  std::vector<SiteShape> shapes_;
  std::unordered_map<int64_t, std::unique_ptr<Adapter>> adapters_;
  std::vector<int64_t> changed_;
  std::vector<SlotPages> slots_;
  std::vector<int32_t> slots_free_;
  int64_t adapters_resident_ = 0;
  int64_t adapters_loading_ = 0;
  uint64_t loads_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace openlora
