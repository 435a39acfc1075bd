#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "ops/machine.h"

namespace openlora {

// With the images of the folder OPENLORA_CUDA_IMAGES. Where there is no GPU the program ends with status 77, which
// ctest takes for skipped.
inline std::unique_ptr<cuda_gpu::Machine> OpenGpu(const cuda_gpu::Options& options) {
  const char* const folder = std::getenv("OPENLORA_CUDA_IMAGES");
  cuda_gpu::Images images;
  std::unique_ptr<cuda_gpu::Machine> opened;
  Status status = cuda_gpu::Images::Read(folder == nullptr ? "cuda_images" : folder, &images);
  if (status.ok()) status = cuda_gpu::Machine::Open(options, images, &opened);
  if (status.ok()) return opened;
  std::printf("skipped: %s: %s\n", status.code(), status.message().c_str());
  std::exit(status.code() == std::string(kErrCudaDriver) ? 77 : 1);
}

// The one of all tests of kernels.
inline cuda_gpu::Machine& GpuUnderTest() {
  static const std::unique_ptr<cuda_gpu::Machine> gpu = [] {
    std::unique_ptr<cuda_gpu::Machine> opened = OpenGpu({.is_managed = true});
    std::printf("on %s, compute capability %.1f\n", opened->name().c_str(), opened->architecture() / 10.0);
    return opened;
  }();
  return *gpu;
}

// As the simulator's machine looks to tests of kernels.
class TestMachine {
 public:
  struct Options {
    uint64_t seed = 1;
  };
  struct Counts {
    uint64_t accesses = 0, threads = 0, async_copies = 0, matrix_replays = 0;
  };

  TestMachine() = default;
  explicit TestMachine(const Options&) {}
  TestMachine(const TestMachine&) = delete;
  TestMachine& operator=(const TestMachine&) = delete;

  cuda_gpu::Machine& gpu() const { return gpu_; }
  void* Allocate(const std::string& name, size_t bytes) {
    void* const memory = gpu_.Allocate(name, bytes);
    if (memory == nullptr) {
      std::printf("no memory for %s: %s\n", name.c_str(), violation().c_str());
      std::exit(1);
    }
    return memory;
  }
  void Free(void* memory) { gpu_.Free(memory); }
  void SetReadOnly(const void*, bool) {}
  void SetForbidden(const void*, size_t, bool) {}
  void SynchronizeStream(int stream) { gpu_.SynchronizeStream(stream); }
  std::string violation() const { return gpu_.status().message(); }
  Counts counts() const { return {}; }

 private:
  cuda_gpu::Machine& gpu_ = GpuUnderTest();
};

}  // namespace openlora
