// What the machine must find, in every order of threads, and what it must not.

#include <gtest/gtest.h>

#include <regex>

#include "cuda/faulty.h"
#include "cuda/sim_buffer.h"

namespace openlora {
namespace {

using faulty::Fault;

struct Found {
  Fault fault;
  const char* text;  // a regular expression of the violation
};

constexpr Found kFound[] = {
    {Fault::kNoBarrier, "race on shared memory: block 0 .* at faulty.cuh:\\d+ .* at faulty.cuh:\\d+, no barrier"},
    {Fault::kNoWarpBarrier, "race on shared memory"},
    {Fault::kShuffleOrdersNothing, "race on shared memory"},
    {Fault::kCopyNotWaitedFor,
     "reads shared memory at faulty.cuh:\\d+ while an async copy of block 0 .* is on its way"},
    {Fault::kCopyNotCommitted, "exited with an async copy never committed, issued at faulty.cuh:\\d+"},
    {Fault::kCopyLeftInFlight, "exited with an async copy on its way, issued at faulty.cuh:\\d+"},
    {Fault::kCopyMisaligned, "misaligned async copy at faulty.cuh:\\d+"},
    {Fault::kSharedOutOfBounds,
     "index out of its array's bounds at .*faulty.cuh:\\d+|past the end of shared memory|outside of device memory"},
    {Fault::kGlobalOutOfBounds,
     "writes 4 bytes outside of device memory at faulty.cuh:\\d+ \\(data of 1024 bytes, offset 1\\d\\d\\d\\)"},
    {Fault::kReadOnlyWritten, "writes read-only input, offset \\d+, at faulty.cuh:\\d+"},
    {Fault::kForbidden, "reads what is forbidden: input, offset \\d+, at faulty.cuh:\\d+"},
    {Fault::kMisaligned, "misaligned access at .*faulty.cuh:\\d+"},
    {Fault::kArrayOutOfBounds, "index out of its array's bounds at .*faulty.cuh:\\d+"},
    {Fault::kDivergentBarrier, "divergent barrier"},
    {Fault::kDivergentCollective, "divergent collective|waits in a collective"},
    {Fault::kLaneExited, "for lane 7, which has exited|deadlock: 31 threads"},
    {Fault::kDeadlock, "deadlock: 64 threads wait at faulty.cuh:\\d+"},
    {Fault::kTwoBlocksWrite, "race on data, offset \\d+: .* of block \\d wrote at faulty.cuh:\\d+ in the same launch"},
    {Fault::kBlockReadsAnothers, "race on data"},
    {Fault::kWrittenAfterAnotherRead, "race on data"},
    {Fault::kFlagWithoutRelease, "race on data, offset 0"},
    {Fault::kSpinWithoutAcquire, "spins without an acquire at faulty.cuh:\\d+"},
    {Fault::kMbarrierUninitialised, "mbarrier used before it was initialised, at faulty.cuh:\\d+"},
    {Fault::kBulkBytesShort, "deadlock: .*threads? wait at faulty.cuh:\\d+"},
    {Fault::kSharedTooSmall, "shared struct has 4096 bytes, the launch gave 2048"},
};
static_assert(std::size(kFound) == static_cast<size_t>(Fault::kCount) - 1);

class MachineTest : public testing::Test {
 protected:
  struct Memory {
    explicit Memory(cuda_sim::Machine& machine)
        : data(machine, "data", size_t{256}),
          input(machine, "input", std::vector<float>(256, 64.0f)),
          flag(machine, "flag", size_t{1}) {
      flag.Zero();
    }
    faulty::Params Params(Fault fault) const { return {fault, data.data(), input.data(), flag.data()}; }
    SimBuffer<float> data;
    SimBuffer<float> input;
    SimBuffer<uint32_t> flag;
  };
  static constexpr dev::Shape kShape{
      .blocks = 2, .threads = 64, .shared_bytes = faulty::kSharedBytes, .is_cooperative = true};
  static constexpr dev::Shape kOneBlock{.blocks = 1, .threads = 64, .shared_bytes = faulty::kSharedBytes};
};

TEST_F(MachineTest, EveryFaultIsFoundInEveryOrder) {
  for (const auto& [fault, text] : kFound)
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      cuda_sim::Machine machine({.seed = seed, .accesses_max = 100'000});
      const Memory memory(machine);
      machine.SetForbidden(memory.input.data() + 192, 256, true);
      const std::string found = RunKernel(machine, faulty::Run, kShape, memory.Params(fault));
      EXPECT_TRUE(std::regex_search(found, std::regex(text)))
          << "fault " << static_cast<int>(fault) << ", wanted " << text << ", got " << found;
      EXPECT_NE(found.find("[seed " + std::to_string(seed) + ", work 1]"), std::string::npos) << found;
    }
}

TEST_F(MachineTest, WhatHasNoFaultIsNotFound) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    cuda_sim::Machine machine({.seed = seed});
    const Memory memory(machine);
    EXPECT_EQ(RunKernel(machine, faulty::Run, kShape, memory.Params(Fault::kNone)), "");
    EXPECT_GT(machine.counts().accesses, 0u);
  }
}

TEST_F(MachineTest, ASeedReplaysARun) {
  const auto run = [](uint64_t seed) {
    cuda_sim::Machine machine({.seed = seed});
    const Memory memory(machine);
    std::string text = RunKernel(machine, faulty::Run, kShape, memory.Params(Fault::kNoBarrier));
    return text + " after " + std::to_string(machine.counts().accesses);
  };
  bool has_other = false;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    EXPECT_EQ(run(seed), run(seed));
    has_other |= run(seed) != run(seed + 1);
  }
  EXPECT_TRUE(has_other);
}

TEST_F(MachineTest, NothingRunsAfterAViolation) {
  cuda_sim::Machine machine;
  const Memory memory(machine);
  const std::string first = RunKernel(machine, faulty::Run, kShape, memory.Params(Fault::kTwoBlocksWrite));
  ASSERT_NE(first, "");
  EXPECT_EQ(RunKernel(machine, faulty::Run, kShape, memory.Params(Fault::kNone)), first);
  EXPECT_EQ(machine.counts().launches, 1u);
}

TEST_F(MachineTest, AShapeThatNoDeviceTakesIsRefused) {
  for (const dev::Shape& shape :
       {dev::Shape{.blocks = 0}, dev::Shape{.threads = 1056}, dev::Shape{.shared_bytes = 233 << 10}}) {
    cuda_sim::Machine machine;
    const Memory memory(machine);
    EXPECT_NE(RunKernel(machine, faulty::Run, shape, memory.Params(Fault::kNone)).find("which no device takes"),
              std::string::npos);
  }
}

class StreamTest : public MachineTest {
 protected:
  // Reads input, writes data.
  void Launch(cuda_sim::Machine& machine, int stream, const Memory& memory) {
    dev::Launch(faulty::Run, kOneBlock, {&machine, stream}, memory.Params(Fault::kNone));
  }
};

TEST_F(StreamTest, WorkRunsWhenTheHostWaitsAndNotBefore) {
  cuda_sim::Machine machine;
  const Memory memory(machine);
  const int other = machine.MakeStream();
  Launch(machine, 0, memory);
  machine.SynchronizeStream(other);
  EXPECT_EQ(machine.counts().launches, 0u);
  machine.SynchronizeStream(0);
  EXPECT_EQ(machine.counts().launches, 1u);
  EXPECT_EQ(memory.data[0], 64.0f);
  EXPECT_EQ(machine.violation(), "");
}

TEST_F(StreamTest, AFrameReusedByACopyWhileAKernelMayReadItIsFoundInEitherOrder) {
  const std::vector<float> host(256, 1.0f);
  for (const bool copy_first : {true, false}) {
    cuda_sim::Machine machine;
    const Memory memory(machine);
    const int copies = machine.MakeStream();
    Launch(machine, 0, memory);
    machine.Copy(copies, memory.input.data(), host.data(), 1024);
    machine.SynchronizeStream(copy_first ? copies : 0);
    machine.SynchronizeStream(copy_first ? 0 : copies);
    EXPECT_NE(machine.violation().find("with no event between"), std::string::npos) << machine.violation();
  }
}

TEST_F(StreamTest, AnEventOrdersTwoStreams) {
  const std::vector<float> host(256, 1.0f);
  std::vector<float> read(64);
  cuda_sim::Machine machine;
  const Memory memory(machine);
  const int copies = machine.MakeStream();
  Launch(machine, 0, memory);
  machine.Wait(copies, machine.Record(0));
  machine.Copy(copies, memory.input.data(), host.data(), 1024);
  machine.Wait(0, machine.Record(copies));
  Launch(machine, 0, memory);
  machine.Copy(0, read.data(), memory.data.data(), 256);
  machine.SynchronizeStream(0);
  EXPECT_EQ(machine.violation(), "");
  EXPECT_EQ(read, std::vector<float>(64, 1.0f));
}

TEST_F(StreamTest, TheHostsWaitOrdersWhatItPutsInAfterwards) {
  const std::vector<float> host(256, 1.0f);
  cuda_sim::Machine machine;
  const Memory memory(machine);
  const int copies = machine.MakeStream();
  Launch(machine, 0, memory);
  const int event = machine.Record(0);
  while (!machine.Query(event)) {
  }
  machine.Copy(copies, memory.input.data(), host.data(), 1024);
  machine.SynchronizeStream(copies);
  EXPECT_EQ(machine.violation(), "");
}

TEST_F(StreamTest, ACopyOutOfBoundsIsFound) {
  const std::vector<float> host(257);
  cuda_sim::Machine machine;
  const Memory memory(machine);
  machine.Copy(0, memory.data.data(), host.data(), 1028);
  machine.SynchronizeStream(0);
  EXPECT_NE(machine.violation().find("past the end: data"), std::string::npos) << machine.violation();
}

TEST_F(StreamTest, AGraphRunsWithItsBranchesAsOftenAsItIsLaunched) {
  std::vector<float> host(64, -1.0f);
  cuda_sim::Machine machine;
  const Memory memory(machine), branch(machine);
  const int side = machine.MakeStream();
  machine.BeginCapture(0);
  machine.Wait(side, machine.Record(0));
  Launch(machine, side, branch);
  Launch(machine, 0, memory);
  machine.Wait(0, machine.Record(side));
  machine.Copy(0, host.data(), branch.data.data(), 256);
  const int graph = machine.EndCapture(0);
  machine.SynchronizeStream(0);
  EXPECT_EQ(machine.counts().launches, 0u);
  for (int i = 0; i < 3; ++i) machine.LaunchGraph(graph, 0);
  machine.SynchronizeStream(0);
  EXPECT_EQ(machine.violation(), "");
  EXPECT_EQ(machine.counts().launches, 6u);
  EXPECT_EQ(host, std::vector<float>(64, 64.0f));
}

TEST_F(StreamTest, ABranchOfAGraphThatIsNotJoinedBeforeItsResultIsReadIsFound) {
  std::vector<float> host(64);
  cuda_sim::Machine machine;
  const Memory memory(machine);
  const int side = machine.MakeStream();
  machine.BeginCapture(0);
  machine.Wait(side, machine.Record(0));
  Launch(machine, side, memory);
  machine.Copy(0, host.data(), memory.data.data(), 256);
  const int graph = machine.EndCapture(0);
  machine.LaunchGraph(graph, 0);
  machine.SynchronizeStream(0);
  EXPECT_NE(machine.violation().find("with no event between"), std::string::npos) << machine.violation();
}

}  // namespace
}  // namespace openlora
