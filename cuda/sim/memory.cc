#include <algorithm>
#include <cstring>
#include <utility>

#include "sim/device_sim.h"
#include "sim/fiber.h"
#include "sim/machine_state.h"

// The program's own image: constants that kernels read.
extern "C" const char __executable_start[], end[];

namespace openlora::cuda_sim {
namespace {

constexpr size_t kCell = 2;  // of global memory: a half

std::string PlaceOf(const Touch& touch) {
  return touch.site ? cuda_sim::PlaceOf(*touch.site) : cuda_sim::PlaceOf(touch.pc);
}
std::string PlaceOfRecord(uint32_t place) {
  return place & kIsLine ? "line " + std::to_string(place & ~kIsLine) : cuda_sim::PlaceOf(uintptr_t{place});
}
uint32_t RecordOf(const Touch& touch) {
  return touch.site ? touch.site->line() | kIsLine : static_cast<uint32_t>(touch.pc);
}
const char* Verb(bool is_write) { return is_write ? "writes" : "reads"; }
Thread& ThreadOf(const Touch& touch) { return touch.by ? *touch.by : *current.thread; }
std::string Start(const Touch& touch) { return NameOf(ThreadOf(touch)) + " " + Verb(touch.is_write) + " "; }

// --- shared memory: happens-before over barriers ---

void CheckCell(const Touch& touch, SharedCell& cell, uint8_t bytes) {
  Thread& thread = ThreadOf(touch);
  const Block& block = *thread.block;
  const Clock& clock = ClockOf(thread);
  if (cell.copying != kNobody) {
    const bool is_bulk = cell.copying >= block.threads.size();
    Fail(Start(touch) + "shared memory at " + PlaceOf(touch) + " while an async copy" +
         (is_bulk ? "" : " of " + NameOf(block.threads[cell.copying])) + " is on its way there");
  }
  if (cell.epoch != block.epoch) {
    cell.epoch = block.epoch;
    cell.past.clear();
  }
  const auto is_ordered = [&](const SharedAccess& past) {
    return past.thread == thread.index || past.time <= clock[past.thread];
  };
  for (const SharedAccess& past : cell.past)
    if (!is_ordered(past) && (past.bytes & bytes) && (past.is_write || touch.is_write))
      Fail("race on shared memory: " + Start(touch) + "at " + PlaceOf(touch) + " what lane " +
           std::to_string(past.thread % kWarp) + " of warp " + std::to_string(past.thread / kWarp) +
           (past.is_write ? " wrote at " : " read at ") + PlaceOfRecord(past.place) + ", no barrier between");
  // What this access stands for from now on.
  std::erase_if(cell.past, [&](const SharedAccess& past) {
    return is_ordered(past) && !(past.bytes & ~bytes) && (touch.is_write || !past.is_write);
  });
  cell.past.push_back({clock[thread.index], RecordOf(touch), thread.index, bytes, touch.is_write});
}

// --- global memory ---

Allocation* Find(MachineState& machine, uintptr_t address) {
  const auto holds = [&](const Allocation& a) { return address - reinterpret_cast<uintptr_t>(a.base) < a.bytes; };
  if (machine.last && holds(*machine.last)) return machine.last;
  auto at = machine.allocations.upper_bound(address);
  if (at == machine.allocations.begin() || !holds((--at)->second)) return nullptr;
  return machine.last = &at->second;
}

bool IsOfProgram(const Touch& touch, uintptr_t address) {
#if defined(OPENLORA_CUDA_COVERAGE)
  const bool may = true;  // gcov's counters
#else
  const bool may = !touch.is_write;
#endif
  const auto begin = reinterpret_cast<uintptr_t>(__executable_start);
  return may && address - begin < reinterpret_cast<uintptr_t>(end) - begin;
}

void FailOutside(const Touch& touch, uintptr_t address) {
  std::string near = "no allocation near";
  uint64_t nearest = 4096;  // bytes
  for (const auto& [base, a] : current.machine->allocations) {
    const uint64_t distance = address < base ? base - address : address - std::min(address, base + a.bytes);
    if (distance >= nearest) continue;
    nearest = distance;
    near = a.name + " of " + std::to_string(a.bytes) + " bytes, offset " +
           std::to_string(static_cast<int64_t>(address - base));
  }
  Fail(Start(touch) + std::to_string(touch.bytes) + " bytes outside of device memory at " + PlaceOf(touch) + " (" +
       near + ")");
}

std::string OffsetIn(const Allocation& allocation, size_t offset) {
  return allocation.name + ", offset " + std::to_string(offset);
}

// Whether a past access of this launch comes before what the thread does now.
bool IsOrdered(const GlobalAccess& past, Thread& thread) {
  const Block& block = *thread.block;
  if (past.block != static_cast<uint32_t>(block.index)) {
    const auto seen = block.seen.find(static_cast<int>(past.block));
    return seen != block.seen.end() && past.block_time <= seen->second;
  }
  return past.thread == thread.index || past.epoch != block.epoch || past.time <= ClockOf(thread)[past.thread];
}

void CheckLaunch(const Touch& touch, Allocation& allocation, size_t offset) {
  const uint64_t launch = current.machine->counts.launches;
  Thread& thread = *current.thread;
  const Block& block = *thread.block;
  if (allocation.cells.empty()) allocation.cells.resize(allocation.bytes / kCell + 1);
  const GlobalAccess now{.launch = launch,
                         .epoch = block.epoch,
                         .time = ClockOf(thread)[thread.index],
                         .place = RecordOf(touch),
                         .block = static_cast<uint32_t>(block.index),
                         .block_time = block.time,
                         .thread = thread.index};
  const auto check = [&](const GlobalAccess& past, const char* did) {
    if (past.launch != launch || IsOrdered(past, thread)) return;
    Fail("race on " + OffsetIn(allocation, offset) + ": " + Start(touch) + "at " + PlaceOf(touch) + " what thread " +
         std::to_string(past.thread) + " of block " + std::to_string(past.block) + did + PlaceOfRecord(past.place) +
         " in the same launch");
  };
  for (size_t i = offset / kCell; i <= (offset + touch.bytes - 1) / kCell; ++i) {
    GlobalCell& cell = allocation.cells[i];
    check(cell.write, " wrote at ");
    if (touch.is_write) check(cell.read, " read at ");
    (touch.is_write ? cell.write : cell.read) = now;
  }
}

// Between the works of streams: grains of 256 bytes.
std::string CheckGrain(MachineState& machine, Grain& grain, bool is_write) {
  const Work& work = *machine.work;
  if (grain.known_write == work.number || (!is_write && grain.known_read == work.number)) return {};
  const auto is_before = [&](int stream, uint32_t time) {
    if (stream == work.stream) return true;
    return static_cast<size_t>(stream) < work.clock.size() && time <= work.clock[static_cast<size_t>(stream)];
  };
  const auto text = [&](int stream, const char* did) {
    return "in stream " + std::to_string(work.stream) + " what work of stream " + std::to_string(stream) + did +
           ", with no event between";
  };
  if (grain.write_stream >= 0 && !is_before(grain.write_stream, grain.write_time))
    return text(grain.write_stream, " writes");
  if (is_write)
    for (size_t s = 0; s < grain.read_time.size(); ++s)
      if (!is_before(static_cast<int>(s), grain.read_time[s])) return text(static_cast<int>(s), " reads");
  if (is_write) {
    grain.write_stream = work.stream;
    grain.write_time = work.time;
    grain.known_write = work.number;
  } else {
    grain.read_time.resize(std::max(grain.read_time.size(), static_cast<size_t>(work.stream) + 1), 0);
    grain.read_time[static_cast<size_t>(work.stream)] = work.time;
    grain.known_read = work.number;
  }
  return {};
}

template <class F>  // of every grain of a range, until one isn't empty
std::string OfGrains(Allocation& allocation, size_t offset, size_t bytes, F&& of) {
  for (size_t i = offset / kGrain; i <= (offset + bytes - 1) / kGrain; ++i)
    if (std::string text = of(allocation.grains[i]); !text.empty()) return text;
  return {};
}

}  // namespace

void CheckShared(const Touch& touch, size_t offset) {
  Block& block = *current.thread->block;
  if (offset + touch.bytes > block.shared_bytes)
    Fail(Start(touch) + "past the end of shared memory, offset " + std::to_string(offset) + ", at " + PlaceOf(touch));
  for (size_t at = offset; at < offset + touch.bytes;) {
    const size_t bytes = std::min(offset + touch.bytes - at, 4 - at % 4);
    CheckCell(touch, block.cells[at / 4], static_cast<uint8_t>(((1u << bytes) - 1) << at % 4));
    at += bytes;
  }
}

void CheckGlobal(const Touch& touch) {
  MachineState& machine = *current.machine;
  const auto address = reinterpret_cast<uintptr_t>(touch.p);
  Allocation* const found = Find(machine, address);
  if (!found && IsOfProgram(touch, address)) return;
  if (!found || address + touch.bytes > reinterpret_cast<uintptr_t>(found->base) + found->bytes)
    FailOutside(touch, address);
  Allocation& allocation = *found;
  const size_t offset = address - reinterpret_cast<uintptr_t>(allocation.base);
  if (touch.is_write && allocation.is_read_only)
    Fail(Start(touch) + "read-only " + OffsetIn(allocation, offset) + ", at " + PlaceOf(touch));
  const std::string text = OfGrains(allocation, offset, touch.bytes, [&](Grain& grain) {
    if (grain.is_forbidden) return std::string("what is forbidden");
    return CheckGrain(machine, grain, touch.is_write);
  });
  if (!text.empty()) Fail(Start(touch) + text + ": " + OffsetIn(allocation, offset) + ", at " + PlaceOf(touch));
  if (!touch.is_atomic && !allocation.is_read_only) CheckLaunch(touch, allocation, offset);
}

void CheckTouch(const Touch& touch) {
  const Thread* const thread = current.thread;
  if (!thread) return;  // the host's own code
  const auto address = reinterpret_cast<uintptr_t>(touch.p);
  if (address - reinterpret_cast<uintptr_t>(thread->stack) < kStackBytes) return;
  ++current.machine->counts.accesses;
  if (++current.machine->accesses_since_switch > current.machine->options.accesses_max)
    Fail(NameOf(*thread) + " spins without an acquire at " + PlaceOf(touch));
  const size_t offset = address - reinterpret_cast<uintptr_t>(thread->block->shared);
  if (offset < thread->block->shared_bytes) return CheckShared(touch, offset);
  CheckGlobal(touch);
}

void CheckStreamTouch(MachineState& machine, const void* p, size_t bytes, bool is_write) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  Allocation* const allocation = Find(machine, address);
  if (!allocation || bytes == 0) return;  // the host's
  const size_t offset = address - reinterpret_cast<uintptr_t>(allocation->base);
  std::string text;
  if (offset + bytes > allocation->bytes) {
    text = "past the end";
  } else {
    text = OfGrains(*allocation, offset, bytes, [&](Grain& grain) { return CheckGrain(machine, grain, is_write); });
  }
  if (!text.empty())
    machine.violation = "a copy of " + std::to_string(bytes) + " bytes " + Verb(is_write) + " " + text + ": " +
                        OffsetIn(*allocation, offset);
}

// --- the host's side ---

void* Machine::Allocate(std::string name, size_t bytes) {
  Allocation a;
  a.name = std::move(name);
  a.bytes = bytes;
  a.store = std::make_unique_for_overwrite<char[]>(bytes + 2 * kGrain);
  const auto store = reinterpret_cast<uintptr_t>(a.store.get());
  a.base = a.store.get() + (kGrain - store % kGrain) % kGrain;
  a.grains.resize(bytes / kGrain + 1);
  std::memset(a.base, 0xff, bytes);
  char* const base = a.base;
  state_->allocations.emplace(reinterpret_cast<uintptr_t>(base), std::move(a));
  return base;
}

void Machine::Free(void* memory) {
  state_->last = nullptr;
  state_->allocations.erase(reinterpret_cast<uintptr_t>(memory));
}

void Machine::SetReadOnly(const void* memory, bool is_read_only) {
  state_->allocations.at(reinterpret_cast<uintptr_t>(memory)).is_read_only = is_read_only;
}

void Machine::SetForbidden(const void* begin, size_t bytes, bool is_forbidden) {
  const auto address = reinterpret_cast<uintptr_t>(begin);
  Allocation* const allocation = Find(*state_, address);
  if (!allocation || bytes == 0) return;
  OfGrains(*allocation, address - reinterpret_cast<uintptr_t>(allocation->base), bytes, [&](Grain& grain) {
    grain.is_forbidden = is_forbidden;
    return std::string();
  });
}

}  // namespace openlora::cuda_sim
