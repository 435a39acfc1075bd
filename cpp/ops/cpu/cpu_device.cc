#include "ops/cpu/cpu_device.h"

#include <cstring>

#include "base/pages.h"

namespace openlora {

Status CpuDevice::Allocate(size_t bytes, void** data) {
  *data = AllocatePages(bytes);
  if (*data == nullptr) return Error(kErrOutOfMemory, "cannot allocate %zu bytes of memory", bytes);
  return Ok();
}

void CpuDevice::Free(void* data, size_t bytes) { FreePages(data, bytes); }

Status CpuDevice::Upload(void* destination, const void* source, size_t bytes) {
  if (bytes != 0) std::memcpy(destination, source, bytes);
  return Ok();
}

}  // namespace openlora
