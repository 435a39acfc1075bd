#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memory/frame_pool.h"
#include "memory/prefix_index.h"

namespace openlora {

// The frames of one sequence: frames[block * layers + layer]. Those of the first blocks may stand in the prefix index
// and be other sequences' too; they are full, and nobody writes them. The others are the sequence's own.
struct KvTable {
  std::vector<uint32_t> frames;
  PrefixHit shared;
};

// Hands out KV frames in blocks: one frame for each layer, frame_tokens positions each.
class KvCache {
 public:
  // `prefixes`: null to share nothing.
  KvCache(FramePool* pool, int32_t layers, int32_t frame_tokens, PrefixIndex* prefixes = nullptr)
      : pool_(pool), prefixes_(prefixes), layers_(layers), frame_tokens_(frame_tokens) {}

  int32_t frame_tokens() const { return frame_tokens_; }
  int32_t layers() const { return layers_; }
  const PrefixIndex* prefixes() const { return prefixes_; }
  // Frames that a sequence of `tokens` tokens holds in all.
  int64_t FramesFor(int64_t tokens) const { return (tokens + frame_tokens_ - 1) / frame_tokens_ * layers_; }
  int64_t FramesMissing(const KvTable& table, int64_t tokens) const {
    const int64_t missing = FramesFor(tokens) - static_cast<int64_t>(table.frames.size());
    return missing > 0 ? missing : 0;
  }
  // Of its own.
  int64_t FramesOwned(const KvTable& table) const {
    return static_cast<int64_t>(table.frames.size()) - FramesOf(table.shared);
  }
  int64_t FramesOf(const PrefixHit& hit) const { return int64_t{hit.blocks} * layers_; }

  // Known blocks of `tokens`, those that the table shares included.
  PrefixHit Find(const KvTable& table, const std::string& realm, std::span<const int32_t> tokens) const;
  // The table has the frames of `hit` and no others: its own go. `is_use`: see PrefixIndex::Hold.
  void Attach(KvTable* table, const PrefixHit& hit, bool is_use, uint64_t step);
  // The blocks that `tokens` fill, all of them computed, can be found from now on. A block that was there already takes
  // the place of the table's: the bits are the same.
  void Publish(KvTable* table, const std::string& realm, std::span<const int32_t> tokens, uint64_t step);
  // Makes room for `tokens` tokens in all; all or nothing.
  bool Extend(KvTable* table, int64_t tokens) {
    return pool_->Take(FramesMissing(*table, tokens), FrameUse::kKv, &table->frames);
  }
  void Release(KvTable* table, uint64_t step);
  void Drop(PrefixBlock* block, uint64_t step) { prefixes_->Drop(block, step); }

 private:
  void RetireOwned(KvTable* table, uint64_t step);

  FramePool* pool_;
  PrefixIndex* prefixes_;
  int32_t layers_;
  int32_t frame_tokens_;
};

}  // namespace openlora
