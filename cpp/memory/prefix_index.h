#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "memory/eviction_order.h"
#include "memory/frame_pool.h"

namespace openlora {

struct TokensLess {
  using is_transparent = void;
  bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  }
};

// A full block of KV that sequences may share: the frames of all layers for frame_tokens tokens, which continue those
// of `parent`. The first blocks of a realm continue its root, which holds no frames.
struct PrefixBlock {
  PrefixBlock* parent = nullptr;  // null: a root
  // By their tokens, all of which are compared: what isn't the same is never found, whatever it hashes to.
  std::map<std::vector<int32_t>, std::unique_ptr<PrefixBlock>, TokensLess> children;
  const std::vector<int32_t>* tokens = nullptr;  // the key in the parent's children
  const std::string* realm = nullptr;            // of a root
  std::vector<uint32_t> frames;                  // by layer
  uint64_t hash = 0;                             // for GhostBlocks alone
  int32_t references = 0;                        // sequences that hold it; whoever does holds its parent as well
  Evictable eviction;

  bool is_root() const { return parent == nullptr; }
};

// The longest known beginning of some tokens: `blocks` blocks up to `tail`.
struct PrefixHit {
  PrefixBlock* tail = nullptr;
  int32_t blocks = 0;
};

// What was dropped lately, by hash: whether it comes back tells what dropping is worth. Nothing is shared by it.
class GhostBlocks {
 public:
  explicit GhostBlocks(int64_t size) : size_(size) {}
  void Add(uint64_t hash, bool was_fresh);
  // Whether it was fresh; nothing: it isn't known.
  std::optional<bool> Find(uint64_t hash) const {
    const auto found = known_.find(hash);
    return found == known_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  int64_t size_;
  std::unordered_map<uint64_t, bool> known_;
  std::deque<uint64_t> line_;
};

// Blocks of KV by what they were computed from: a realm (who may share, with which adapters: everything beside the
// tokens that KV depends on) and the tokens from the first on. A block is held by sequences (its frames are kKv) or by
// the index alone (kPrefix); the latter may be dropped, children before parents. What the index takes of memory beside
// the frames is less than a kilobyte for each block. Engine thread only.
class PrefixIndex {
 public:
  // `block_cost`: of computing a block again, as BlockCost gives it.
  PrefixIndex(FramePool* pool, EvictionOrder* order, int32_t layers, int32_t frame_tokens, double block_cost)
      : pool_(pool),
        order_(order),
        layers_(layers),
        frame_tokens_(frame_tokens),
        block_cost_(block_cost),
        ghosts_(pool->frames_total() / layers) {}
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // Goes on from `known` (nothing: from the realm's root) as far as there are blocks of `tokens`.
  PrefixHit Find(const std::string& realm, PrefixHit known, std::span<const int32_t> tokens) const;
  // The block of `tokens` behind `parent` (null: the realm's root), held once more. Made out of `frames`, which are kKv
  // and become the block's, if there is none.
  PrefixBlock* Add(const std::string& realm, PrefixBlock* parent, std::span<const int32_t> tokens,
                   std::span<const uint32_t> frames);
  // One block; its parent is held by the same sequence before. `is_use`: another request wanted what one had computed.
  void Hold(PrefixBlock* block, bool is_use);
  // Of a sequence that goes: its last block first.
  void LetGo(PrefixBlock* block);
  // A listed block. Its frames are free once `step` has completed.
  void Drop(PrefixBlock* block, uint64_t step);

  int64_t blocks() const { return blocks_; }
  // By block, what holds it by the caller's count; all others are held by nobody. Also appends every frame.
  bool IsConsistent(const std::unordered_map<const PrefixBlock*, int32_t>& references,
                    std::vector<uint32_t>* frames) const;

 private:
  bool IsSound(const PrefixBlock& block, int32_t references) const;

  FramePool* pool_;
  EvictionOrder* order_;
  int32_t layers_;
  int32_t frame_tokens_;
  double block_cost_;
  GhostBlocks ghosts_;
  std::unordered_map<std::string, std::unique_ptr<PrefixBlock>> realms_;  // roots with children
  int64_t blocks_ = 0;
};

}  // namespace openlora
