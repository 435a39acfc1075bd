#include "ops/backend.h"

#include <charconv>
#include <string_view>

#include "bench/op_bench.h"
#include "gpu/machine.h"
#include "ops/cuda_device.h"
#include "ops/cuda_ops.h"

namespace openlora {
namespace {

constexpr std::string_view kPrefix = "cuda:";

Status ReadIndex(std::string_view device, int* index) {
  const char* const end = device.data() + device.size();
  if (device.starts_with(kPrefix)) {
    const auto [rest, error] = std::from_chars(device.data() + kPrefix.size(), end, *index);
    if (error == std::errc() && rest == end && *index >= 0) return Ok();
  }
  return Error(kErrCudaDevice, "device is %.*s, known are cpu and cuda:0, cuda:1, …", static_cast<int>(device.size()),
               device.data());
}

Status OpenMachine(const std::string& device, const std::string& images, std::unique_ptr<cuda_gpu::Machine>* machine) {
  int index = 0;
  OPENLORA_RETURN_IF_ERROR(ReadIndex(device, &index));
  OPENLORA_RETURN_IF_ERROR(cuda_gpu::CheckDriver());
  cuda_gpu::Images read;
  OPENLORA_RETURN_IF_ERROR(cuda_gpu::Images::Read(images, &read));
  return cuda_gpu::Machine::Open({.device = index}, read, machine);
}

}  // namespace

bool IsForCuda() { return true; }

Status CheckCuda() { return cuda_gpu::CheckDriver(); }

Status OpenCuda(const std::string& device, WeightFormat dtype, const std::string& images, CudaBackend* backend) {
  if (dtype != WeightFormat(DType::kBF16) && dtype != WeightFormat(DType::kF16))
    return Error(kErrCudaUnsupported, "weights in %s: on a GPU they are in bf16 or f16", NameOf(dtype));
  std::unique_ptr<cuda_gpu::Machine> machine;
  OPENLORA_RETURN_IF_ERROR(OpenMachine(device, images, &machine));
  backend->name = machine->name();
  auto context = std::make_shared<CudaContext>(std::move(machine));
  backend->device = std::make_unique<CudaDevice>(context);
  backend->ops = std::make_unique<CudaOps>(context, dtype.dtype());
  return Ok();
}

Status MeasureCudaOps(const CudaBenchOptions& options, const std::function<void(const std::string&)>& begun,
                      const std::function<void(const CudaOpResult&)>& report) {
  std::unique_ptr<cuda_gpu::Machine> machine;
  OPENLORA_RETURN_IF_ERROR(OpenMachine(options.device, options.images, &machine));
  begun(machine->name());
  return BenchCudaOps(std::make_shared<CudaContext>(std::move(machine)), options, report);
}

Status MeasureCudaCopies(const std::string& device, int rounds, std::string* name, std::vector<double>* gbs) {
  constexpr size_t kBytes = size_t{1} << 30;
  int index = 0;
  OPENLORA_RETURN_IF_ERROR(ReadIndex(device, &index));
  std::unique_ptr<cuda_gpu::Machine> machine;
  OPENLORA_RETURN_IF_ERROR(cuda_gpu::Machine::Open({.device = index}, {}, &machine));
  *name = machine->name();
  void* const from = machine->Allocate("what is copied", kBytes);
  void* const to = from == nullptr ? nullptr : machine->Allocate("its copy", kBytes);
  if (to == nullptr) machine->Free(from);
  if (to == nullptr && machine->status().ok())
    return Error(kErrOutOfMemory, "the device has no %zu bytes to measure copies", 2 * kBytes);
  machine->Fill(0, from, 1, kBytes);
  for (int round = -1; round < rounds; ++round) {  // one to warm up
    const int begin = machine->Record(0);
    machine->Copy(0, to, from, kBytes);
    const int end = machine->Record(0);
    machine->SynchronizeEvent(end);
    OPENLORA_RETURN_IF_ERROR(machine->status());
    if (round >= 0) gbs->push_back(2.0 * kBytes / 1e6 / machine->MillisecondsBetween(begin, end));
  }
  machine->Free(to);
  machine->Free(from);
  return machine->status();
}

}  // namespace openlora
