#include <algorithm>
#include <cstdlib>
#include <utility>

#include "sim/device_sim.h"
#include "sim/fiber.h"
#include "sim/machine_state.h"

namespace openlora::cuda_sim {

Current current;

namespace {

constexpr int kThreadsMax = 1024;
constexpr int kSharedBytesMax = 227 << 10;  // of a block, compute capability 9.0
constexpr int kSharedAlign = 128;
constexpr int kPollingShare = 16;  // one of so many picks goes to a thread that polls

// How the next thread is picked; drawn for each launch.
enum Order {
  kRandom,
  kNewest,           // a warp runs ahead as far as it can
  kPriorityOfWarps,  // random priorities that change at random (PCT: Burckhardt et al., ASPLOS 2010)
  kPriorityOfThreads,
  kOrders,
};

void ToScheduler() {
  Thread& thread = *std::exchange(current.thread, nullptr);
  OpenloraSwitchFiber(&thread.resume, current.machine->resume);
}

void CheckNothingInFlight(const Thread& thread) {
  for (const auto& group : thread.groups)
    if (!group.empty())
      Fail(NameOf(thread) + " exited with an async copy on its way, issued at " + PlaceOf(group.front().site));
  if (!thread.open.empty())
    Fail(NameOf(thread) + " exited with an async copy never committed, issued at " + PlaceOf(thread.open.front().site));
}

void ThreadMain() {
  (*current.machine->kernel)();
  Thread& thread = *current.thread;
  CheckNothingInFlight(thread);
  thread.state = State::kDone;
  --thread.block->live;
  CompleteBlockBarrier(*thread.block);
  ToScheduler();
  std::abort();
}

std::unique_ptr<Block> Admit(MachineState& machine, int index) {
  if (machine.idle_blocks.empty()) machine.idle_blocks.push_back(std::make_unique<Block>());
  std::unique_ptr<Block> block = std::move(machine.idle_blocks.back());
  machine.idle_blocks.pop_back();
  const auto& [blocks, threads, shared_bytes, is_cooperative] = machine.shape;
  block->index = index;
  block->live = threads;
  ++block->epoch;  // what its cells and clocks hold is of earlier launches
  block->time = 1;
  block->seen.clear();
  block->shared_store.assign(static_cast<size_t>(shared_bytes) + kSharedAlign, static_cast<char>(0xff));
  const auto store = reinterpret_cast<uintptr_t>(block->shared_store.data());
  block->shared = block->shared_store.data() + (kSharedAlign - store % kSharedAlign) % kSharedAlign;
  block->shared_bytes = static_cast<size_t>(shared_bytes);
  block->cells.resize((block->shared_bytes + 3) / 4);
  for (SharedCell& cell : block->cells) cell.copying = kNobody;
  block->barriers = {};
  block->bulk_barriers.clear();
  for (size_t i = static_cast<size_t>(threads); i < block->threads.size(); ++i) GiveStack(block->threads[i].stack);
  block->threads.resize(static_cast<size_t>(threads));
  uint64_t priority = 0;
  for (int i = 0; i < threads; ++i) {
    Thread& thread = block->threads[static_cast<size_t>(i)];
    if (!thread.stack) thread.stack = TakeStack();
    if (i % kWarp == 0 || machine.order == kPriorityOfThreads) priority = machine.Random();
    char* const stack = thread.stack;
    thread = Thread();
    thread.resume = PrepareStack(stack, &ThreadMain);
    thread.stack = stack;
    thread.block = block.get();
    thread.index = static_cast<uint16_t>(i);
    thread.priority = priority;
    MakeRunnable(thread);
  }
  machine.counts.threads += static_cast<uint64_t>(threads);
  return block;
}

Thread* Pick(MachineState& machine) {
  std::vector<Thread*>& runnable = machine.runnable;
  std::deque<Thread*>& polling = machine.polling;
  if (!polling.empty() && (runnable.empty() || machine.Random() % kPollingShare == 0)) {
    Thread* const thread = polling.front();
    polling.pop_front();
    return thread;
  }
  size_t at = runnable.size() - 1;
  if (machine.order == kRandom) at = machine.Random() % runnable.size();
  if (machine.order == kPriorityOfWarps || machine.order == kPriorityOfThreads) {
    for (size_t i = 0; i < runnable.size(); ++i)
      if (runnable[i]->priority > runnable[at]->priority) at = i;
    if (machine.Random() % 64 == 0) runnable[at]->priority = machine.Random();
  }
  Thread* const thread = runnable[at];
  runnable[at] = runnable.back();
  runnable.pop_back();
  return thread;
}

std::string Waits(const MachineState& machine) {
  std::map<std::string, int> waiting;
  for (const auto& block : machine.resident)
    for (const Thread& thread : block->threads)
      if (thread.state != State::kDone) ++waiting[PlaceOf(thread.site)];
  std::string text;
  for (const auto& [place, threads] : waiting)
    text += " " + std::to_string(threads) + " threads wait at " + place + ";";
  return text;
}

std::vector<int> OrderOfBlocks(MachineState& machine) {
  std::vector<int> order(static_cast<size_t>(machine.shape.blocks));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[machine.Random() % i]);
  return order;
}

void RetireBlock(MachineState& machine, Block* block) {
  auto& resident = machine.resident;
  const auto at = std::find_if(resident.begin(), resident.end(), [&](const auto& r) { return r.get() == block; });
  machine.idle_blocks.push_back(std::move(*at));
  resident.erase(at);
}

void RunBlocks(MachineState& machine) {
  const std::vector<int> order = OrderOfBlocks(machine);
  size_t resident_max = 1 + machine.Random() % static_cast<uint64_t>(machine.options.resident_blocks_max);
  if (machine.shape.is_cooperative) resident_max = order.size();
  size_t next = 0;
  uint64_t switches = 0;
  while (machine.violation.empty()) {
    while (machine.resident.size() < resident_max && next < order.size())
      machine.resident.push_back(Admit(machine, order[next++]));
    if (machine.resident.empty()) break;
    if (machine.runnable.empty() && !LandBulkCopies(machine) && machine.polling.empty()) {
      if (machine.violation.empty()) machine.violation = "deadlock:" + Waits(machine);
      break;
    }
    if (++switches > machine.options.switches_max) {
      machine.violation = "no end in sight:" + Waits(machine);
      break;
    }
    Thread* const thread = Pick(machine);
    current.thread = thread;
    machine.accesses_since_switch = 0;
    OpenloraSwitchFiber(&machine.resume, thread->resume);
    if (thread->state == State::kDone && thread->block->live == 0) RetireBlock(machine, thread->block);
  }
  machine.counts.switches += switches;
}

}  // namespace

void RunLaunch(MachineState& machine, const dev::Shape& shape, const std::function<void()>& kernel) {
  ++machine.counts.launches;
  if (shape.blocks < 1 || shape.threads < 1 || shape.threads > kThreadsMax || shape.shared_bytes > kSharedBytesMax) {
    machine.violation = "a launch of " + std::to_string(shape.blocks) + " blocks of " + std::to_string(shape.threads) +
                        " threads with " + std::to_string(shape.shared_bytes) +
                        " bytes of shared memory, which no device takes";
    return;
  }
  machine.shape = shape;
  machine.kernel = &kernel;
  machine.order = static_cast<int>((machine.options.seed + machine.counts.launches) % kOrders);
  machine.released.clear();
  current = {&machine, nullptr};
  RunBlocks(machine);
  current = {};
  // Fibers of a launch that failed are dropped: device code has no destructors.
  for (auto& block : machine.resident) machine.idle_blocks.push_back(std::move(block));
  machine.resident.clear();
  machine.runnable.clear();
  machine.polling.clear();
}

void ReleaseStacks(MachineState& machine) {
  for (auto& block : machine.idle_blocks)
    for (Thread& thread : block->threads) GiveStack(thread.stack);
}

void Fail(std::string what) {
  current.machine->violation = std::move(what);
  ToScheduler();
  std::abort();
}

void Suspend(State state, const Site& site) {
  current.thread->state = state;
  current.thread->site = site;
  ToScheduler();
}

void Yield(const Site& site) {
  current.machine->polling.push_back(current.thread);
  Suspend(State::kRunnable, site);
}

void MakeRunnable(Thread& thread) {
  thread.state = State::kRunnable;
  current.machine->runnable.push_back(&thread);
}

std::string NameOf(const Thread& thread) {
  return "block " + std::to_string(thread.block->index) + " warp " + std::to_string(thread.index / kWarp) + " lane " +
         std::to_string(thread.index % kWarp);
}

std::string PlaceOf(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

}  // namespace openlora::cuda_sim

namespace openlora::dev {

using cuda_sim::current;

int ThreadIndex() { return current.thread->index; }
int BlockIndex() { return current.thread->block->index; }
int BlockThreads() { return current.machine->shape.threads; }
int GridBlocks() { return current.machine->shape.blocks; }

void* SharedBytes(size_t bytes, size_t align) {
  const cuda_sim::Block& block = *current.thread->block;
  if (bytes > block.shared_bytes)
    cuda_sim::Fail("the kernel's shared struct has " + std::to_string(bytes) + " bytes, the launch gave " +
                   std::to_string(block.shared_bytes));
  if (align > 128) cuda_sim::Fail("shared memory aligned to more than 128 bytes");
  return block.shared;
}

}  // namespace openlora::dev
