#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <type_traits>

#include "device/kernel.h"
#include "gpu/machine.h"

namespace openlora {

inline constexpr bool kIsSimulated = false;

// The one GPU of all tests, with the images of the folder OPENLORA_CUDA_IMAGES. Where there is none the program ends
// with status 77, which ctest takes for skipped.
inline cuda_gpu::Machine& GpuUnderTest() {
  static const std::unique_ptr<cuda_gpu::Machine> gpu = [] {
    const char* const folder = std::getenv("OPENLORA_CUDA_IMAGES");
    cuda_gpu::Images images;
    std::unique_ptr<cuda_gpu::Machine> opened;
    Status status = cuda_gpu::Images::Read(folder == nullptr ? "cuda_images" : folder, &images);
    if (status.ok()) status = cuda_gpu::Machine::Open({.is_managed = true}, images, &opened);
    if (!status.ok()) {
      std::printf("skipped: %s: %s\n", status.code(), status.message().c_str());
      std::exit(status.code() == std::string(kErrCudaDriver) ? 77 : 1);
    }
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
  void Launch(int stream, const dev::Shape& shape, const char* kernel, const void* params) {
    gpu_.Launch(stream, shape, kernel, params);
  }
  void SynchronizeStream(int stream) { gpu_.SynchronizeStream(stream); }
  std::string violation() const { return gpu_.status().message(); }
  Counts counts() const { return {}; }

 private:
  cuda_gpu::Machine& gpu_ = GpuUnderTest();
};

namespace dev {

struct Stream {
  TestMachine* machine = nullptr;
  int index = 0;
};

template <class Params>
void Launch(const Kernel<Params>& kernel, const Shape& shape, Stream stream,
            const std::type_identity_t<Params>& params) {
  static_assert(std::is_trivially_copyable_v<Params>);
  stream.machine->Launch(stream.index, shape, kernel.name, &params);
}

}  // namespace dev
}  // namespace openlora
