#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device/shape.h"

namespace openlora::cuda_sim {

struct Options {
  uint64_t seed = 1;                    // of every choice; the same seed replays a run
  int resident_blocks_max = 3;          // that run at once: 1 to so many, drawn for each launch
  uint64_t switches_max = 100'000'000;  // of a launch: one that takes more is stuck
  uint64_t accesses_max = 10'000'000;   // of a thread without a switch: one that makes more spins
};

struct Counts {
  uint64_t launches = 0;
  uint64_t threads = 0;
  uint64_t switches = 0;
  uint64_t accesses = 0;  // checked, of memory that isn't a thread's own
  uint64_t collectives = 0;
  uint64_t mmas = 0;
  uint64_t async_copies = 0;
  uint64_t matrix_phases = 0;   // ldmatrix: eight rows
  uint64_t matrix_replays = 0;  // the further ones that bank conflicts cost
};

struct MachineState;

// Executes kernels on the CPU, a fiber for each thread, in an order drawn from a seed. The first violation found is
// kept, and nothing runs after it, as after a sticky error of a GPU.
class Machine {
 public:
  explicit Machine(const Options& options = {});
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Device memory, aligned to 256. Fresh bytes are 0xff: NaN as bf16, f16 and f32, out of range as an index. The host
  // may touch it while nothing runs; on streams that is what CopyTo and CopyFrom are for.
  void* Allocate(std::string name, size_t bytes);
  void Free(void* memory);
  // What kernels may do with an allocation.
  void SetReadOnly(const void* memory, bool is_read_only);
  // Ranges that no kernel may touch, freed frames, say. Grains of 256 bytes.
  void SetForbidden(const void* begin, size_t bytes, bool is_forbidden);

  // Streams begin at 0. What is put into one runs when somebody waits for it and not before: the latest moment that
  // events allow. Whatever is not ordered by streams, events and the host's waiting may not touch the same 256 bytes,
  // unless it only reads them.
  int MakeStream();
  void Launch(int stream, const dev::Shape& shape, std::function<void()> kernel);
  void Copy(int stream, void* to, const void* from, size_t bytes);  // one side may be the host's
  void Fill(int stream, void* to, uint8_t value, size_t bytes);
  int Record(int stream);                   // an event
  void RecordAgain(int stream, int event);  // the same one: whoever was told to wait for it waits for what it was
  void Wait(int stream, int event);         // what comes later in the stream runs after it
  bool Query(int event);                    // whether it has happened; each call may let something run
  void SynchronizeEvent(int event);         // the host waits
  void SynchronizeStream(int stream);

  // What was put into `stream` from the one call to the other isn't run but kept, with its order; put into a stream any
  // number of times afterwards.
  void BeginCapture(int stream);
  int EndCapture(int stream);  // a graph
  void LaunchGraph(int graph, int stream);

  const std::string& violation() const;  // with its place and seed; empty: none
  const Counts& counts() const;

 private:
  std::unique_ptr<MachineState> state_;
};

}  // namespace openlora::cuda_sim
