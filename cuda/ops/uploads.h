#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "ops/context.h"
#include "ops/device.h"

namespace openlora {

// Pinned chunks, filled and copied by turns: one is filled again once its last copy is over.
class UploadRing {
 public:
  static constexpr size_t kChunkBytes = 1 << 20;
  static constexpr size_t kChunks = 4;

  explicit UploadRing(CudaContext& context) : context_(context) {}
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  // The next chunk, of up to kChunkBytes.
  Status Take(uint8_t** memory);
  // The copies out of the chunk that was taken last have been put into their stream.
  void EndChunk();

 private:
  CudaContext& context_;
  void* memory_ = nullptr;
  std::array<int, kChunks> events_{-1, -1, -1, -1};
  size_t next_ = 0;
};

// The rings of a device: as many as ever were at work at once.
class UploadRings {
 public:
  explicit UploadRings(std::shared_ptr<CudaContext> context) : context_(std::move(context)) {}

  CudaContext& context() const { return *context_; }
  std::unique_ptr<UploadRing> Take();
  void Give(std::unique_ptr<UploadRing> ring);

 private:
  std::shared_ptr<CudaContext> context_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<UploadRing>> free_;
};

// An event of the copying stream after each part.
class CudaLanding final : public Landing {
 public:
  explicit CudaLanding(CudaContext& context) : context_(context) {}
  ~CudaLanding() override;
  CudaLanding(const CudaLanding&) = delete;
  CudaLanding& operator=(const CudaLanding&) = delete;

  void EndPart() { events_.push_back(context_.RecordCopies()); }
  bool IsDone() override;
  void Wait() override;
  // What is launched from now on comes after the part.
  void HoldBack(int32_t part) { context_.WaitForCopies(events_[static_cast<size_t>(part)]); }

 private:
  CudaContext& context_;
  std::vector<int> events_;
  bool is_done_ = false;
};

class CudaUploads final : public Uploads {
 public:
  explicit CudaUploads(UploadRings* rings)
      : rings_(rings), ring_(rings->Take()), landing_(std::make_shared<CudaLanding>(rings->context())) {}
  ~CudaUploads() override { rings_->Give(std::move(ring_)); }
  CudaUploads(const CudaUploads&) = delete;
  CudaUploads& operator=(const CudaUploads&) = delete;

  Status Stage(size_t bytes, uint8_t** memory) override;
  void Copy(void* destination, const void* staged, size_t bytes) override {
    rings_->context().CopyBeside(destination, staged, bytes);
  }
  void EndPart() override {
    ring_->EndChunk();
    landing_->EndPart();
  }
  std::shared_ptr<Landing> Leave() override { return landing_; }

 private:
  UploadRings* rings_;
  std::unique_ptr<UploadRing> ring_;
  std::shared_ptr<CudaLanding> landing_;
};

}  // namespace openlora
