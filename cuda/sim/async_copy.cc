#include <cstring>

#include "sim/device_sim.h"
#include "sim/machine_state.h"

namespace openlora::cuda_sim {
namespace {

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Until it lands, its target is NaN, and nobody may touch it.
void Begin(const AsyncCopy& copy) {
  Thread& thread = *current.thread;
  Block& block = *thread.block;
  if (!IsAligned(copy.to) || !IsAligned(copy.from))
    Fail(NameOf(thread) + ": misaligned async copy at " + PlaceOf(copy.site));
  const size_t offset = reinterpret_cast<uintptr_t>(copy.to) - reinterpret_cast<uintptr_t>(block.shared);
  if (offset + copy.bytes > block.shared_bytes || offset > block.shared_bytes)
    Fail(NameOf(thread) + ": async copy to outside of shared memory at " + PlaceOf(copy.site));
  if (copy.valid > 0) CheckGlobal({.p = copy.from, .bytes = copy.valid, .is_write = false, .site = &copy.site});
  CheckShared({.p = copy.to, .bytes = copy.bytes, .is_write = true, .site = &copy.site}, offset);
  std::memset(copy.to, 0xff, copy.bytes);
  for (size_t i = offset / 4; i < (offset + copy.bytes) / 4; ++i) block.cells[i].copying = thread.index;
  ++current.machine->counts.async_copies;
}

// As the write of `writer` at `time`.
void Land(const AsyncCopy& copy, Block& block, uint16_t writer, uint32_t time) {
  std::memcpy(copy.to, copy.from, copy.valid);
  std::memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
  const auto offset = static_cast<size_t>(copy.to - block.shared);
  for (size_t i = offset / 4; i < (offset + copy.bytes) / 4; ++i) {
    SharedCell& cell = block.cells[i];
    cell.copying = kNobody;
    cell.epoch = block.epoch;
    cell.past.assign(1, {time, copy.site.line() | kIsLine, writer, 15, true});  // earlier ones were checked as it began
  }
}

BulkBarrier& Find(const dev::Mbarrier* barrier, const Site& site) {
  auto& barriers = current.thread->block->bulk_barriers;
  const auto at = barriers.find(barrier);
  if (at == barriers.end())
    Fail(NameOf(*current.thread) + ": an mbarrier used before it was initialised, at " + PlaceOf(site));
  return at->second;
}

void TouchBarrier(const dev::Mbarrier* barrier, bool is_write, const Site& site) {
  CheckTouch({.p = barrier, .bytes = 8, .is_write = is_write, .is_atomic = !is_write, .site = &site});
}

// If all have arrived and all bytes are there.
bool Complete(Block& block, const void* key, BulkBarrier& barrier) {
  int64_t bytes = 0;
  for (const AsyncCopy& copy : barrier.copies) bytes += copy.bytes;
  if (barrier.pending > 0 || bytes != barrier.bytes_expected) return false;
  const size_t threads = block.threads.size();
  ++barrier.phase;
  barrier.clock.resize(threads + 1, 0);
  barrier.clock[threads] = barrier.phase;
  for (const AsyncCopy& copy : barrier.copies) Land(copy, block, static_cast<uint16_t>(threads), barrier.phase);
  barrier.copies.clear();
  barrier.pending = barrier.arrivals;
  barrier.bytes_expected = 0;
  barrier.completed = barrier.clock;
  for (Thread& thread : block.threads)
    if (thread.state == State::kAtMbarrier && thread.mbarrier == key && (barrier.phase & 1) != thread.parity) {
      AcquireClock(thread, barrier.completed);
      MakeRunnable(thread);
    }
  return true;
}

}  // namespace

// When nothing else can run: the latest moment.
bool LandBulkCopies(MachineState& machine) {
  for (const auto& block : machine.resident)
    for (auto& [key, barrier] : block->bulk_barriers)
      if (!barrier.copies.empty() && Complete(*block, key, barrier) && !machine.runnable.empty()) return true;
  return false;
}

}  // namespace openlora::cuda_sim

namespace openlora::dev {

using cuda_sim::current;
using cuda_sim::Fail;
using cuda_sim::NameOf;
using cuda_sim::PlaceOf;

void CopyAsync16(void* to, const void* from, int valid, Site site) {
  if (valid < 0 || valid > 16) Fail("an async copy of " + std::to_string(valid) + " bytes at " + PlaceOf(site));
  const cuda_sim::AsyncCopy copy{static_cast<char*>(to), static_cast<const char*>(from), 16,
                                 static_cast<uint32_t>(valid), site};
  cuda_sim::Begin(copy);
  current.thread->open.push_back(copy);
}

void CopyAsyncCommit() {
  current.thread->groups.push_back(std::move(current.thread->open));
  current.thread->open.clear();
}

// They land here and not before: the latest moment that the PTX manual allows.
void CopyAsyncWaitFor(int pending) {
  cuda_sim::Thread& thread = *current.thread;
  while (thread.groups.size() > static_cast<size_t>(pending)) {
    for (const cuda_sim::AsyncCopy& copy : thread.groups.front())
      cuda_sim::Land(copy, *thread.block, thread.index, ClockOf(thread)[thread.index]);
    thread.groups.pop_front();
  }
}

void Mbarrier::Init(int arrivals, Site site) {
  cuda_sim::TouchBarrier(this, true, site);
  cuda_sim::BulkBarrier& barrier = current.thread->block->bulk_barriers[this] = {};
  barrier.arrivals = barrier.pending = arrivals;
}

void Mbarrier::ArriveExpect(uint32_t bytes, Site site) {
  cuda_sim::Find(this, site).bytes_expected += bytes;
  Arrive(site);
}

void Mbarrier::Arrive(Site site) {
  cuda_sim::BulkBarrier& barrier = cuda_sim::Find(this, site);
  cuda_sim::TouchBarrier(this, false, site);
  if (barrier.pending == 0) Fail("more arrivals than the mbarrier was made for, at " + PlaceOf(site));
  --barrier.pending;
  MergeClock(barrier.clock, *current.thread);
  ++ClockOf(*current.thread)[current.thread->index];
  if (barrier.copies.empty()) cuda_sim::Complete(*current.thread->block, this, barrier);
}

void Mbarrier::Wait(uint32_t parity, Site site) {
  const cuda_sim::BulkBarrier& barrier = cuda_sim::Find(this, site);
  cuda_sim::TouchBarrier(this, false, site);
  if ((barrier.phase & 1) != parity) return AcquireClock(*current.thread, barrier.completed);
  current.thread->mbarrier = this;
  current.thread->parity = parity;
  cuda_sim::Suspend(cuda_sim::State::kAtMbarrier, site);
}

void CopyBulk(void* to, const void* from, uint32_t bytes, Mbarrier* barrier, Site site) {
  if (bytes % 16 != 0)
    Fail(NameOf(*current.thread) + ": a bulk copy of " + std::to_string(bytes) + " bytes at " + PlaceOf(site));
  const cuda_sim::AsyncCopy copy{static_cast<char*>(to), static_cast<const char*>(from), bytes, bytes, site};
  cuda_sim::Begin(copy);
  cuda_sim::Find(barrier, site).copies.push_back(copy);
}

}  // namespace openlora::dev
