#include "memory/prefix_index.h"

#include <functional>
#include <utility>

#include "base/check.h"

namespace openlora {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15;
  return hash ^ (hash >> 32);
}

// For GhostBlocks alone: of the realm and all tokens from the first on.
uint64_t HashOf(const PrefixBlock& parent, std::span<const int32_t> tokens) {
  uint64_t hash = parent.hash;
  for (const int32_t token : tokens) hash = Mix(hash, static_cast<uint32_t>(token));
  return hash;
}

}  // namespace

void GhostBlocks::Add(uint64_t hash, bool was_fresh) {
  if (!known_.insert_or_assign(hash, was_fresh).second) return;
  line_.push_back(hash);
  if (static_cast<int64_t>(line_.size()) <= size_) return;
  known_.erase(line_.front());
  line_.pop_front();
}

// Flat: a chain may be thousands of blocks long.
PrefixIndex::~PrefixIndex() {
  std::vector<std::unique_ptr<PrefixBlock>> left;
  for (auto& [realm, root] : realms_) left.push_back(std::move(root));
  while (!left.empty()) {
    const std::unique_ptr<PrefixBlock> block = std::move(left.back());
    left.pop_back();
    for (auto& [tokens, child] : block->children) left.push_back(std::move(child));
    block->children.clear();
  }
}

PrefixHit PrefixIndex::Find(const std::string& realm, PrefixHit known, std::span<const int32_t> tokens) const {
  PrefixHit hit = known;
  const PrefixBlock* at = known.tail;
  if (at == nullptr) {
    const auto root = realms_.find(realm);
    if (root == realms_.end()) return hit;
    at = root->second.get();
  }
  const auto size = static_cast<size_t>(frame_tokens_);
  for (size_t from = static_cast<size_t>(known.blocks) * size; from + size <= tokens.size(); from += size) {
    const auto child = at->children.find(tokens.subspan(from, size));
    if (child == at->children.end()) break;
    at = hit.tail = child->second.get();
    ++hit.blocks;
  }
  return hit;
}

PrefixBlock* PrefixIndex::Add(const std::string& realm, PrefixBlock* parent, std::span<const int32_t> tokens,
                              std::span<const uint32_t> frames) {
  if (parent == nullptr) {
    const auto [root, is_new] = realms_.try_emplace(realm);
    if (is_new) {
      root->second = std::make_unique<PrefixBlock>();
      root->second->realm = &root->first;
      root->second->hash = std::hash<std::string>()(realm);
    }
    parent = root->second.get();
  }
  const auto [place, is_new] = parent->children.try_emplace({tokens.begin(), tokens.end()});
  if (!is_new) {
    Hold(place->second.get(), true);
    return place->second.get();
  }
  place->second = std::make_unique<PrefixBlock>();
  PrefixBlock* block = place->second.get();
  block->parent = parent;
  block->tokens = &place->first;
  block->frames.assign(frames.begin(), frames.end());
  block->references = 1;
  block->eviction.block = block;
  block->hash = HashOf(*parent, tokens);
  block->eviction.cost = block_cost_;
  const std::optional<bool> ghost = ghosts_.Find(block->hash);
  block->eviction.is_fresh = ghost.value_or(false);
  order_->Enter(&block->eviction, ghost.has_value());
  order_->Use(&block->eviction);
  ++blocks_;
  return block;
}

void PrefixIndex::Hold(PrefixBlock* block, bool is_use) {
  if (is_use) order_->Use(&block->eviction);
  if (++block->references > 1) return;
  pool_->Move(block->frames, FrameUse::kPrefix, FrameUse::kKv);
  if (block->eviction.is_listed) order_->Remove(&block->eviction);
}

void PrefixIndex::LetGo(PrefixBlock* block) {
  OPENLORA_CHECK(block->references > 0);
  if (--block->references > 0) return;
  pool_->Move(block->frames, FrameUse::kKv, FrameUse::kPrefix);
  if (block->children.empty()) order_->Add(&block->eviction);
}

void PrefixIndex::Drop(PrefixBlock* block, uint64_t step) {
  OPENLORA_CHECK(block->references == 0 && block->children.empty());
  ghosts_.Add(block->hash, block->eviction.is_fresh);
  order_->Leave(&block->eviction);
  pool_->Retire(block->frames, FrameUse::kPrefix, step);
  PrefixBlock* parent = block->parent;
  parent->children.erase(parent->children.find(*block->tokens));
  --blocks_;
  if (!parent->children.empty()) return;
  if (parent->is_root()) {
    realms_.erase(realms_.find(*parent->realm));
  } else if (parent->references == 0) {
    order_->Add(&parent->eviction);
  }
}

bool PrefixIndex::IsSound(const PrefixBlock& block, int32_t references) const {
  const bool is_listed = references == 0 && block.children.empty();
  const FrameUse use = references > 0 ? FrameUse::kKv : FrameUse::kPrefix;
  return block.references == references && block.eviction.is_listed == is_listed &&
         block.frames.size() == static_cast<size_t>(layers_) &&
         std::all_of(block.frames.begin(), block.frames.end(),
                     [&](uint32_t frame) { return pool_->use(frame) == use; });
}

bool PrefixIndex::IsConsistent(const std::unordered_map<const PrefixBlock*, int32_t>& references,
                               std::vector<uint32_t>* frames) const {
  std::vector<const PrefixBlock*> left;
  for (const auto& [realm, root] : realms_) {
    if (root->children.empty()) return false;
    left.push_back(root.get());
  }
  int64_t counted = 0;
  while (!left.empty()) {
    const PrefixBlock* block = left.back();
    left.pop_back();
    for (const auto& [tokens, child] : block->children) {
      const auto found = references.find(child.get());
      if (child->parent != block || !IsSound(*child, found == references.end() ? 0 : found->second)) return false;
      frames->insert(frames->end(), child->frames.begin(), child->frames.end());
      left.push_back(child.get());
      ++counted;
    }
  }
  return counted == blocks_;
}

}  // namespace openlora
