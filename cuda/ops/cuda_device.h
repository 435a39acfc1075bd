#pragma once

#include <memory>

#include "ops/context.h"
#include "ops/device.h"
#include "ops/uploads.h"

namespace openlora {

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(std::shared_ptr<CudaContext> context) : context_(context), rings_(std::move(context)) {}

  bool is_host() const override { return false; }
  int64_t FreeBytes() override { return context_->FreeBytes(); }
  Status Allocate(size_t bytes, void** data) override {
    OPENLORA_RETURN_IF_ERROR(context_->Allocate("the engine", bytes, data));
    return context_->Fill(*data, 0, bytes);
  }
  void Free(void* data, size_t) override { context_->Free(data); }
  Status Upload(void* destination, const void* source, size_t bytes) override {
    return context_->Upload(destination, source, bytes);
  }
  std::unique_ptr<Uploads> BeginUploads() override { return std::make_unique<CudaUploads>(&rings_); }

 private:
  std::shared_ptr<CudaContext> context_;
  UploadRings rings_;
};

}  // namespace openlora
