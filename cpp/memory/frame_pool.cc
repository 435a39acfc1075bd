#include "memory/frame_pool.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace openlora {

FramePool::~FramePool() {
  if (memory_ != nullptr) device_->Free(memory_, static_cast<size_t>(frame_bytes_ * frames_total()));
}

Status FramePool::Open(Device* device, int64_t frame_bytes, int64_t frames, bool poisons_freed) {
  void* memory = nullptr;
  OPENLORA_RETURN_IF_ERROR(device->Allocate(static_cast<size_t>(frame_bytes * frames), &memory));
  device_ = device;
  memory_ = static_cast<uint8_t*>(memory);
  frame_bytes_ = frame_bytes;
  poisons_freed_ = poisons_freed;
  use_.assign(static_cast<size_t>(frames), FrameUse::kFree);
  free_.resize(static_cast<size_t>(frames));
  std::iota(free_.rbegin(), free_.rend(), 0u);  // the lowest frame on top
  count_[static_cast<size_t>(FrameUse::kFree)] = frames;
  fill_.assign(static_cast<size_t>(frame_bytes), 0);
  if (poisons_freed) poison_.assign(static_cast<size_t>(frame_bytes), 0xff);
  return Ok();
}

bool FramePool::Take(int64_t count, FrameUse use, std::vector<uint32_t>* taken) {
  if (count > frames_free()) return false;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t frame = free_.back();
    free_.pop_back();
    OPENLORA_CHECK(use_[frame] == FrameUse::kFree);
    use_[frame] = use;
    // A failed upload means a lost device, which the step that follows reports.
    if (use == FrameUse::kKv) (void)device_->Upload(Frame(frame), fill_.data(), fill_.size());
    taken->push_back(frame);
  }
  count_[static_cast<size_t>(FrameUse::kFree)] -= count;
  count_[static_cast<size_t>(use)] += count;
  return true;
}

void FramePool::Retire(std::span<const uint32_t> frames, FrameUse use, uint64_t step) {
  OPENLORA_CHECK(retiring_.empty() || retiring_.back().step <= step);
  for (const uint32_t frame : frames) {
    OPENLORA_CHECK(use_[frame] == use);
    use_[frame] = FrameUse::kRetiring;
    retiring_.push_back({step, frame});
  }
  count_[static_cast<size_t>(use)] -= static_cast<int64_t>(frames.size());
  count_[static_cast<size_t>(FrameUse::kRetiring)] += static_cast<int64_t>(frames.size());
}

void FramePool::Reclaim(uint64_t completed_step) {
  while (!retiring_.empty() && retiring_.front().step <= completed_step) {
    const uint32_t frame = retiring_.front().frame;
    retiring_.pop_front();
    if (poisons_freed_) (void)device_->Upload(Frame(frame), poison_.data(), poison_.size());
    use_[frame] = FrameUse::kFree;
    free_.push_back(frame);
    --count_[static_cast<size_t>(FrameUse::kRetiring)];
    ++count_[static_cast<size_t>(FrameUse::kFree)];
  }
}

bool FramePool::IsConsistent() const {
  std::array<int64_t, kFrameUses> counted{};
  for (const FrameUse use : use_) ++counted[static_cast<size_t>(use)];
  std::vector<bool> is_listed(use_.size(), false);
  for (const uint32_t frame : free_) {
    if (use_[frame] != FrameUse::kFree || is_listed[frame]) return false;
    is_listed[frame] = true;
  }
  return counted == count_ && static_cast<int64_t>(free_.size()) == frames_free();
}

}  // namespace openlora
