#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace openlora {

// Memory of the machine that computes.
class Device {
 public:
  virtual ~Device() = default;

  // The ops read any memory of the process, a mapped file's too: what is in it needs no Upload.
  virtual bool is_host() const = 0;
  // That a pool may be made of where nobody says how large it is; 0: unknown.
  virtual int64_t FreeBytes() { return 0; }
  // Zeroed, aligned to 4 KiB at least. ERR_OUT_OF_MEMORY when there isn't that much.
  virtual Status Allocate(size_t bytes, void** data) = 0;
  virtual void Free(void* data, size_t bytes) = 0;
  // Copies host memory to device memory; done on return. Any thread may call it.
  virtual Status Upload(void* destination, const void* source, size_t bytes) = 0;
};

}  // namespace openlora
