#include "ops/uploads.h"

#include <utility>

namespace openlora {

UploadRing::~UploadRing() {
  for (const int event : events_) {
    if (event < 0) continue;
    context_.SynchronizeEvent(event);
    context_.GiveEvent(event);
  }
  if (memory_ != nullptr) context_.FreeHost(memory_);
}

Status UploadRing::Take(uint8_t** memory) {
  if (memory_ == nullptr) OPENLORA_RETURN_IF_ERROR(context_.AllocateHost(kChunks * kChunkBytes, &memory_));
  if (events_[next_] >= 0) context_.SynchronizeEvent(events_[next_]);
  *memory = static_cast<uint8_t*>(memory_) + next_ * kChunkBytes;
  return context_.status();
}

void UploadRing::EndChunk() {
  if (events_[next_] >= 0) context_.GiveEvent(events_[next_]);
  events_[next_] = context_.RecordCopies();
  next_ = (next_ + 1) % kChunks;
}

std::unique_ptr<UploadRing> UploadRings::Take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return std::make_unique<UploadRing>(*context_);
  std::unique_ptr<UploadRing> ring = std::move(free_.back());
  free_.pop_back();
  return ring;
}

void UploadRings::Give(std::unique_ptr<UploadRing> ring) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(ring));
}

// Events are used again: whoever waited for one has done so, or has told its stream to.
CudaLanding::~CudaLanding() {
  for (const int event : events_) context_.GiveEvent(event);
}

bool CudaLanding::IsDone() {
  if (!is_done_) is_done_ = events_.empty() || context_.Query(events_.back());
  return is_done_;
}

void CudaLanding::Wait() {
  if (!is_done_ && !events_.empty()) context_.SynchronizeEvent(events_.back());
  is_done_ = true;
}

Status CudaUploads::Stage(size_t bytes, uint8_t** memory) {
  if (bytes > UploadRing::kChunkBytes)
    return Error(kErrInternal, "a part of %zu bytes: chunks have %zu", bytes, UploadRing::kChunkBytes);
  return ring_->Take(memory);
}

}  // namespace openlora
