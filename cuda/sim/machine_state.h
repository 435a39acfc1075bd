#pragma once

// What the machine's files share: threads and blocks (schedule.cc), barriers and collectives (collectives.cc), copies
// (async_copy.cc), memory and what may touch it (memory.cc), the compiler's hooks (hooks.cc), streams (streams.cc).

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <source_location>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/prng.h"
#include "sim/machine.h"

namespace openlora::cuda_sim {

using Site = std::source_location;
// What of every thread of a block (and, last, of its bulk copies) has been seen: the time of its own steps.
using Clock = std::vector<uint32_t>;

inline constexpr int kWarp = 32;
inline constexpr uint16_t kNobody = 0xffff;
inline constexpr int kBarriers = 16;  // 0: of the whole block

enum class State : uint8_t { kRunnable, kAtBarrier, kInWarp, kAtMbarrier, kDone };
enum class Collective : uint8_t { kSync, kShuffle, kBallot, kMatrix, kMatrixTrans, kMmaBF16, kMmaF16 };

struct AsyncCopy {
  char* to;
  const char* from;
  uint32_t bytes;
  uint32_t valid;
  Site site;
};

struct Block;
struct Thread {
  void* resume = nullptr;
  char* stack = nullptr;
  Block* block = nullptr;
  uint16_t index = 0;
  State state = State::kDone;
  uint64_t priority = 0;
  Site site;  // where it waits
  // The collective in which it waits, and its operands.
  Collective collective = Collective::kSync;
  uint32_t mask = 0;
  const void* in = nullptr;
  void* out = nullptr;
  const void* mbarrier = nullptr;
  uint32_t parity = 0;
  Clock clock;  // of `clock_epoch`; later ones begin anew
  uint32_t clock_epoch = ~0u;
  std::vector<AsyncCopy> open;  // not yet committed
  std::deque<std::vector<AsyncCopy>> groups;
};

// A past access to 4 bytes of shared memory since the last barrier of the block.
struct SharedAccess {
  uint32_t time;
  uint32_t place;  // a pc, or a line and kIsLine
  uint16_t thread;
  uint8_t bytes;  // a bit for each
  bool is_write;
};
inline constexpr uint32_t kIsLine = 1u << 31;

struct SharedCell {
  uint32_t epoch = 0;
  uint16_t copying = kNobody;  // the thread whose async copy is on its way here
  std::vector<SharedAccess> past;
};

struct Barrier {
  int arrived = 0;
  int expected = 0;
  Clock clock;
  std::vector<Thread*> waiting;
  Site site;
};

struct BulkBarrier {
  int arrivals = 0;
  int pending = 0;
  int64_t bytes_expected = 0;
  uint32_t phase = 0;  // completed ones
  std::vector<AsyncCopy> copies;
  Clock clock;
  Clock completed;
};

struct Block {
  int index = 0;
  int live = 0;
  uint32_t epoch = 0;            // barriers of the whole block
  uint32_t time = 1;             // releases made
  std::map<int, uint32_t> seen;  // of other blocks' releases
  std::vector<char> shared_store;
  char* shared = nullptr;
  size_t shared_bytes = 0;
  std::vector<SharedCell> cells;
  std::vector<Thread> threads;
  std::array<Barrier, kBarriers> barriers;
  std::map<const void*, BulkBarrier> bulk_barriers;
};

// The last access of a kind to 2 bytes of global memory.
struct GlobalAccess {
  uint64_t launch = 0;
  uint32_t epoch = 0;
  uint32_t time = 0;
  uint32_t place = 0;
  uint32_t block = 0;
  uint32_t block_time = 0;
  uint16_t thread = 0;
};
struct GlobalCell {
  GlobalAccess write;
  GlobalAccess read;
};

// Which work of the streams touched 256 bytes last.
struct Grain {
  int write_stream = -1;
  uint32_t write_time = 0;
  std::vector<uint32_t> read_time;  // by stream
  uint64_t known_write = 0;         // the work that needs no further check
  uint64_t known_read = 0;
  bool is_forbidden = false;
};
inline constexpr size_t kGrain = 256;

struct Allocation {
  std::string name;
  char* base = nullptr;
  size_t bytes = 0;
  std::unique_ptr<char[]> store;
  bool is_read_only = false;
  std::vector<GlobalCell> cells;  // made with the first access that isn't a read of read-only memory
  std::vector<Grain> grains;
};

// A launch or a copy in a stream. Times are the streams' own: the n-th thing in it.
struct Work {
  uint64_t number = 0;  // of all
  int stream = 0;
  uint32_t time = 0;
  std::vector<uint32_t> clock;  // of every stream: what is ordered before this
  std::function<void()> run;
};
struct Event {
  int stream = 0;
  std::vector<uint32_t> clock;  // what is done when it happens
};
struct Captured {
  enum class Kind : uint8_t { kWork, kRecord, kWait } kind;
  int stream;
  int event = -1;
  std::function<void()> run;
};
struct Graph {
  std::vector<Captured> captured;
  std::map<int, int> streams;  // captured -> its own; -1: where it is launched
};
struct Stream {
  std::deque<Work> waiting;
  uint32_t enqueued = 0;
  uint32_t done = 0;
  std::vector<uint32_t> clock;  // of what comes next
};

struct MachineState {
  explicit MachineState(const Options& o) : options(o) {}
  uint64_t Random() { return Philox(options.seed, draws++); }

  Options options;
  Counts counts;
  uint64_t draws = 0;
  std::string violation;
  // Memory.
  std::map<uintptr_t, Allocation> allocations;  // by base
  Allocation* last = nullptr;
  // The launch that runs.
  dev::Shape shape;
  std::function<void()> const* kernel = nullptr;
  int order = 0;  // of threads: see Pick
  void* resume = nullptr;
  uint64_t accesses_since_switch = 0;
  std::vector<std::unique_ptr<Block>> idle_blocks;
  std::vector<std::unique_ptr<Block>> resident;
  std::vector<Thread*> runnable;
  std::deque<Thread*> polling;  // let everybody else go first, or no schedule would ever end
  std::unordered_map<const void*, std::map<int, uint32_t>> released;
  // Streams.
  std::vector<Stream> streams;
  std::vector<Event> events;
  std::vector<uint32_t> host_clock;
  std::vector<Graph> graphs;
  std::vector<int> capturing;  // streams, the origin first
  std::vector<Captured> captured;
  uint64_t works = 0;
  const Work* work = nullptr;  // that runs
};

// The machine and the thread that run now: the compiler's hooks and dev:: have no other way to them. A process runs one
// machine at a time, in one thread.
struct Current {
  MachineState* machine = nullptr;
  Thread* thread = nullptr;
};
extern Current current;

// Ends the launch, from within a thread of it.
[[noreturn]] void Fail(std::string what);
std::string NameOf(const Thread& thread);
std::string PlaceOf(const Site& site);
std::string PlaceOf(uintptr_t pc);

// schedule.cc
void RunLaunch(MachineState& machine, const dev::Shape& shape, const std::function<void()>& kernel);
void ReleaseStacks(MachineState& machine);
void Suspend(State state, const Site& site);  // until somebody makes this thread runnable
void Yield(const Site& site);                 // anybody may come first
void MakeRunnable(Thread& thread);

// collectives.cc
Clock& ClockOf(Thread& thread);
void MergeClock(Clock& into, Thread& thread);
void AcquireClock(Thread& thread, const Clock& from);
void CompleteBlockBarrier(Block& block);

// async_copy.cc: lands bulk copies; whether a thread can run since.
bool LandBulkCopies(MachineState& machine);

// memory.cc
struct Touch {
  const void* p;
  size_t bytes;
  bool is_write;
  bool is_atomic = false;
  uintptr_t pc = 0;  // where no site is
  const Site* site = nullptr;
  Thread* by = nullptr;  // null: the current one
};
void CheckTouch(const Touch& touch);
void CheckGlobal(const Touch& touch);
void CheckShared(const Touch& touch, size_t offset);
// Of a copy of a stream, by the host: device memory alone is checked.
void CheckStreamTouch(MachineState& machine, const void* p, size_t bytes, bool is_write);

}  // namespace openlora::cuda_sim
