#include "ops/backend.h"

#include <charconv>
#include <string_view>

#include "gpu/machine.h"
#include "ops/cuda_device.h"
#include "ops/cuda_ops.h"

namespace openlora {
namespace {

constexpr std::string_view kPrefix = "cuda:";

bool ReadIndex(std::string_view device, int* index) {
  if (!device.starts_with(kPrefix)) return false;
  const char* const end = device.data() + device.size();
  const auto [rest, error] = std::from_chars(device.data() + kPrefix.size(), end, *index);
  return error == std::errc() && rest == end && *index >= 0;
}

}  // namespace

bool IsForCuda() { return true; }

Status CheckCuda() { return cuda_gpu::CheckDriver(); }

Status OpenCuda(const std::string& device, WeightFormat dtype, const std::string& images, CudaBackend* backend) {
  int index = 0;
  if (!ReadIndex(device, &index))
    return Error(kErrCudaDevice, "device is %s, known are cpu and cuda:0, cuda:1, …", device.c_str());
  if (dtype != WeightFormat(DType::kBF16) && dtype != WeightFormat(DType::kF16))
    return Error(kErrCudaUnsupported, "weights in %s: on a GPU they are in bf16 or f16", NameOf(dtype));
  OPENLORA_RETURN_IF_ERROR(cuda_gpu::CheckDriver());
  cuda_gpu::Images read;
  OPENLORA_RETURN_IF_ERROR(cuda_gpu::Images::Read(images, &read));
  std::unique_ptr<cuda_gpu::Machine> machine;
  OPENLORA_RETURN_IF_ERROR(cuda_gpu::Machine::Open({.device = index}, read, &machine));
  backend->name = machine->name();
  auto context = std::make_shared<CudaContext>(std::move(machine));
  backend->device = std::make_unique<CudaDevice>(context);
  backend->ops = std::make_unique<CudaOps>(context, dtype.dtype());
  return Ok();
}

}  // namespace openlora
