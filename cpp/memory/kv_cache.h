#pragma once

#include <cstdint>
#include <vector>

#include "memory/frame_pool.h"

namespace openlora {

// The frames of one sequence: frames[block * layers + layer].
struct KvTable {
  std::vector<uint32_t> frames;
  int32_t blocks = 0;
};

// Hands out KV frames in blocks: one frame for each layer, frame_tokens positions each.
class KvCache {
 public:
  KvCache(FramePool* pool, int32_t layers, int32_t frame_tokens)
      : pool_(pool), layers_(layers), frame_tokens_(frame_tokens) {}

  int32_t frame_tokens() const { return frame_tokens_; }
  // Frames that a sequence of `tokens` tokens holds in all.
  int64_t FramesFor(int64_t tokens) const { return (tokens + frame_tokens_ - 1) / frame_tokens_ * layers_; }
  int64_t FramesMissing(const KvTable& table, int64_t tokens) const {
    const int64_t missing = FramesFor(tokens) - static_cast<int64_t>(table.frames.size());
    return missing > 0 ? missing : 0;
  }
  // Makes room for `tokens` tokens in all; all or nothing.
  bool Extend(KvTable* table, int64_t tokens) {
    const int64_t missing = FramesMissing(*table, tokens);
    if (!pool_->Take(missing, FrameUse::kKv, &table->frames)) return false;
    table->blocks = static_cast<int32_t>(static_cast<int64_t>(table->frames.size()) / layers_);
    return true;
  }
  void Release(KvTable* table, uint64_t step) {
    pool_->Retire(table->frames, FrameUse::kKv, step);
    table->frames.clear();
    table->blocks = 0;
  }

 private:
  FramePool* pool_;
  int32_t layers_;
  int32_t frame_tokens_;
};

}  // namespace openlora
