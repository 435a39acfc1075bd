#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "base/status.h"
#include "ops/device.h"

namespace openlora {

// kKv: a sequence reads it, or several do; kPrefix: the prefix index alone has it.
enum class FrameUse : uint8_t { kFree, kKv, kPrefix, kAdapter, kRetiring };
inline constexpr int kFrameUses = 5;

// The one pool of equal frames that KV cache and adapters share. Every frame has one owner at a time; a frame given
// back is free again only when every step that could read it has completed. Engine thread only.
class FramePool {
 public:
  FramePool() = default;
  ~FramePool();
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;

  // `beside_bytes`: of each frame, in memory of its own: the scales of an int8 KV frame (ops/kv_view.h).
  // `poisons_freed`: frames given back are filled with 0xff, and so is what stands beside them: NaN in every dtype but
  // int8, whose scales are (tests).
  Status Open(Device* device, int64_t frame_bytes, int64_t beside_bytes, int64_t frames, bool poisons_freed);

  uint8_t* memory() const { return memory_; }
  uint8_t* Frame(uint32_t frame) const { return memory_ + frame * frame_bytes_; }
  int64_t frame_bytes() const { return frame_bytes_; }
  uint8_t* beside() const { return beside_; }
  uint8_t* Beside(uint32_t frame) const { return beside_ + frame * beside_bytes_; }
  int64_t beside_bytes() const { return beside_bytes_; }
  // What `count` frames take of the memory that is there, whoever holds them.
  int64_t BytesOf(int64_t count) const { return count * (frame_bytes_ + beside_bytes_); }
  int64_t frames_total() const { return static_cast<int64_t>(use_.size()); }
  int64_t frames(FrameUse use) const { return count_[static_cast<size_t>(use)]; }
  int64_t frames_free() const { return frames(FrameUse::kFree); }
  FrameUse use(uint32_t frame) const { return use_[frame]; }
  // Handed out since the pool was opened.
  uint64_t frames_taken() const { return frames_taken_; }

  // KV frames come as they are from now on.
  void LeaveKv() { zeroes_kv_ = false; }

  // Appends `count` frames to `taken`, all or none. KV frames come zeroed: attention multiplies V slots that nobody has
  // written by zero, and zero times NaN is NaN. What stands beside them is zeroed likewise.
  bool Take(int64_t count, FrameUse use, std::vector<uint32_t>* taken);
  // Gives frames back; they become free when Reclaim is told that `step` has completed.
  void Retire(std::span<const uint32_t> frames, FrameUse use, uint64_t step);
  // Frames change hands with what they hold.
  void Move(std::span<const uint32_t> frames, FrameUse from, FrameUse to);
  void Reclaim(uint64_t completed_step);

  // Counts every frame again: the sums agree and no frame has two owners.
  bool IsConsistent() const;

 private:
  void Fill(uint32_t frame, const std::vector<uint8_t>& with);

  struct Retired {
    uint64_t step;
    uint32_t frame;
  };

  Device* device_ = nullptr;
  uint8_t* memory_ = nullptr;
  uint8_t* beside_ = nullptr;
  int64_t frame_bytes_ = 0;
  int64_t beside_bytes_ = 0;
  bool poisons_freed_ = false;
  bool zeroes_kv_ = true;
  std::vector<FrameUse> use_;     // by frame
  std::vector<uint32_t> free_;    // a stack: the frame freed last is warm
  std::deque<Retired> retiring_;  // ascending steps
  std::array<int64_t, kFrameUses> count_{};
  uint64_t frames_taken_ = 0;
  std::vector<uint8_t> fill_;    // zeros for one frame, or for what stands beside it
  std::vector<uint8_t> poison_;  // likewise of 0xff
};

}  // namespace openlora
