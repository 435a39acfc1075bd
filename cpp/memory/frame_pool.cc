#include "memory/frame_pool.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace openlora {

FramePool::~FramePool() {
  if (memory_ != nullptr) device_->Free(memory_, static_cast<size_t>(frame_bytes_ * frames_total()));
  if (beside_ != nullptr) device_->Free(beside_, static_cast<size_t>(beside_bytes_ * frames_total()));
}

Status FramePool::Open(Device* device, int64_t frame_bytes, int64_t beside_bytes, int64_t frames, bool poisons_freed) {
  device_ = device;
  frame_bytes_ = frame_bytes;
  beside_bytes_ = beside_bytes;
  poisons_freed_ = poisons_freed;
  use_.assign(static_cast<size_t>(frames), FrameUse::kFree);
  void* memory = nullptr;
  OPENLORA_RETURN_IF_ERROR(device->Allocate(static_cast<size_t>(frame_bytes * frames), &memory));
  memory_ = static_cast<uint8_t*>(memory);
  if (beside_bytes > 0) {
    OPENLORA_RETURN_IF_ERROR(device->Allocate(static_cast<size_t>(beside_bytes * frames), &memory));
    beside_ = static_cast<uint8_t*>(memory);
  }
  free_.resize(static_cast<size_t>(frames));
  std::iota(free_.rbegin(), free_.rend(), 0u);  // the lowest frame on top
  count_[static_cast<size_t>(FrameUse::kFree)] = frames;
  const auto fill_bytes = static_cast<size_t>(std::max(frame_bytes, beside_bytes));
  fill_.assign(fill_bytes, 0);
  if (poisons_freed) poison_.assign(fill_bytes, 0xff);
  return Ok();
}

bool FramePool::Take(int64_t count, FrameUse use, std::vector<uint32_t>* taken) {
  if (count > frames_free()) return false;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t frame = free_.back();
    free_.pop_back();
    OPENLORA_CHECK(use_[frame] == FrameUse::kFree);
    use_[frame] = use;
    if (use == FrameUse::kKv && zeroes_kv_) Fill(frame, fill_);
    taken->push_back(frame);
  }
  count_[static_cast<size_t>(FrameUse::kFree)] -= count;
  count_[static_cast<size_t>(use)] += count;
  frames_taken_ += static_cast<uint64_t>(count);
  return true;
}

// A failed upload means a lost device, which the step that follows reports.
void FramePool::Fill(uint32_t frame, const std::vector<uint8_t>& with) {
  (void)device_->Upload(Frame(frame), with.data(), static_cast<size_t>(frame_bytes_));
  if (beside_bytes_ > 0) (void)device_->Upload(Beside(frame), with.data(), static_cast<size_t>(beside_bytes_));
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

void FramePool::Move(std::span<const uint32_t> frames, FrameUse from, FrameUse to) {
  for (const uint32_t frame : frames) {
    OPENLORA_CHECK(use_[frame] == from);
    use_[frame] = to;
  }
  count_[static_cast<size_t>(from)] -= static_cast<int64_t>(frames.size());
  count_[static_cast<size_t>(to)] += static_cast<int64_t>(frames.size());
}

void FramePool::Reclaim(uint64_t completed_step) {
  while (!retiring_.empty() && retiring_.front().step <= completed_step) {
    const uint32_t frame = retiring_.front().frame;
    retiring_.pop_front();
    if (poisons_freed_) Fill(frame, poison_);
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
  for (const Retired& retired : retiring_) {
    if (use_[retired.frame] != FrameUse::kRetiring || is_listed[retired.frame]) return false;
    is_listed[retired.frame] = true;
  }
  return counted == count_ && static_cast<int64_t>(free_.size()) == frames_free() &&
         static_cast<int64_t>(retiring_.size()) == frames(FrameUse::kRetiring);
}

}  // namespace openlora
