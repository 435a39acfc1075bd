#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "device/errors.h"
#include "device/shape.h"
#include "gpu/images.h"

namespace openlora::cuda_gpu {

inline constexpr int kArchitectureMin = 80;

struct Options {
  int device = 0;
  // Memory that the host may touch as well, while nothing runs: for tests. Fresh bytes are 0xff then, as in the
  // simulator.
  bool is_managed = false;
};

// ERR_CUDA_DRIVER where no device can be used, with the driver's version, which is what is missing most often.
Status CheckDriver();

// A GPU through the CUDA runtime, with the calls of cuda_sim::Machine. The first error is kept, and nothing runs after
// it. Several threads may allocate, free, launch, copy, fill, use events and synchronise streams; all else is for one
// at a time.
class Machine {
 public:
  static Status Open(const Options& options, const Images& images, std::unique_ptr<Machine>* machine);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  int architecture() const;  // 90: compute capability 9.0
  int multiprocessors() const;
  std::string name() const;
  Status MemoryBytes(size_t* free, size_t* total);

  // Device memory, aligned to 256; null where there isn't that much, which is no error that is kept.
  void* Allocate(const std::string& name, size_t bytes);
  void Free(void* memory);

  // Host memory that the device copies from and to by itself; null where there isn't that much.
  void* AllocateHost(size_t bytes);
  void FreeHost(void* memory);

  // Stream 0 is there from the beginning. None waits for the default stream.
  int MakeStream();
  // `kernel`: "space::Name". The parameters are copied.
  void Launch(int stream, const dev::Shape& shape, const char* kernel, const void* params);
  void Copy(int stream, void* to, const void* from, size_t bytes);
  void Fill(int stream, void* to, uint8_t value, size_t bytes);
  int Record(int stream);
  void RecordAgain(int stream, int event);
  void Wait(int stream, int event);
  bool Query(int event);
  void SynchronizeEvent(int event);
  void SynchronizeStream(int stream);
  // Between two events that have happened.
  double MillisecondsBetween(int begin, int end);

  void BeginCapture(int stream);
  int EndCapture(int stream);
  void LaunchGraph(int graph, int stream);

  Status status() const;

 private:
  struct State;
  explicit Machine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace openlora::cuda_gpu
