#pragma once

#include "ops/device.h"

namespace openlora {

// This machine's memory: anonymous pages, zeroed, 2 MiB aligned with huge pages advised where they're large.
class CpuDevice final : public Device {
 public:
  bool is_host() const override { return true; }
  Status Allocate(size_t bytes, void** data) override;
  void Free(void* data, size_t bytes) override;
  Status Upload(void* destination, const void* source, size_t bytes) override;
};

}  // namespace openlora
