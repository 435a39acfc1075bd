#include <algorithm>

#include "sim/device_sim.h"
#include "sim/machine_state.h"

namespace openlora::cuda_sim {
namespace {

// Before one, anybody may come first.
void Begin(const void* p, bool is_write, const Site& site) {
  Yield(site);
  if (reinterpret_cast<uintptr_t>(p) % 4 != 0)
    Fail(NameOf(*current.thread) + ": misaligned atomic at " + PlaceOf(site));
  CheckTouch({.p = p, .bytes = 4, .is_write = is_write, .is_atomic = true, .site = &site});
}

// What a block's threads have seen of other blocks is the block's: one releases and acquires for all.
void Release(const void* p) {
  std::map<int, uint32_t>& to = current.machine->released[p];
  Block& block = *current.thread->block;
  for (const auto& [other, time] : block.seen) to[other] = std::max(to[other], time);
  to[block.index] = block.time++;
}

void Acquire(const void* p) {
  std::map<int, uint32_t>& seen = current.thread->block->seen;
  for (const auto& [block, time] : current.machine->released[p]) seen[block] = std::max(seen[block], time);
}

template <class T>
T Add(T* p, T value, const Site& site) {
  Begin(p, true, site);
  const T old = *p;
  *p = old + value;
  return old;
}

}  // namespace
}  // namespace openlora::cuda_sim

namespace openlora::dev {

uint32_t AtomicAdd(uint32_t* p, uint32_t value, Site site) { return cuda_sim::Add(p, value, site); }
int AtomicAdd(int* p, int value, Site site) { return cuda_sim::Add(p, value, site); }

uint32_t AtomicAddAcqRel(uint32_t* p, uint32_t value, Site site) {
  const uint32_t old = cuda_sim::Add(p, value, site);
  cuda_sim::Acquire(p);
  cuda_sim::Release(p);
  return old;
}

uint32_t LoadAcquire(const uint32_t* p, Site site) {
  cuda_sim::Begin(p, false, site);
  cuda_sim::Acquire(p);
  return *p;
}

void StoreRelease(uint32_t* p, uint32_t value, Site site) {
  cuda_sim::Begin(p, true, site);
  cuda_sim::Release(p);
  *p = value;
}

}  // namespace openlora::dev
