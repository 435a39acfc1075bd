#include "memory/kv_cache.h"

#include <algorithm>

namespace openlora {

PrefixHit KvCache::Find(const KvTable& table, const std::string& realm, std::span<const int32_t> tokens) const {
  return prefixes_ == nullptr ? PrefixHit{} : prefixes_->Find(realm, table.shared, tokens);
}

void KvCache::RetireOwned(KvTable* table, uint64_t step) {
  const auto shared = static_cast<size_t>(FramesOf(table->shared));
  pool_->Retire(std::span(table->frames).subspan(shared), FrameUse::kKv, step);
  table->frames.resize(shared);
}

void KvCache::Attach(KvTable* table, const PrefixHit& hit, bool is_use, uint64_t step) {
  RetireOwned(table, step);
  std::vector<PrefixBlock*> chain;
  for (PrefixBlock* block = hit.tail; block != table->shared.tail && !block->is_root(); block = block->parent)
    chain.push_back(block);
  for (auto block = chain.rbegin(); block != chain.rend(); ++block) {
    prefixes_->Hold(*block, is_use);
    table->frames.insert(table->frames.end(), (*block)->frames.begin(), (*block)->frames.end());
  }
  table->shared = hit;
}

void KvCache::Publish(KvTable* table, const std::string& realm, std::span<const int32_t> tokens, uint64_t step) {
  if (prefixes_ == nullptr) return;
  PrefixHit& shared = table->shared;
  const auto size = static_cast<size_t>(frame_tokens_);
  for (size_t from = static_cast<size_t>(shared.blocks) * size; from + size <= tokens.size(); from += size) {
    const auto frames =
        std::span(table->frames).subspan(static_cast<size_t>(FramesOf(shared)), static_cast<size_t>(layers_));
    PrefixBlock* block = prefixes_->Add(realm, shared.tail, tokens.subspan(from, size), frames);
    if (!std::equal(frames.begin(), frames.end(), block->frames.begin())) {
      pool_->Retire(frames, FrameUse::kKv, step);
      std::copy(block->frames.begin(), block->frames.end(), frames.begin());
    }
    shared = {block, shared.blocks + 1};
  }
}

void KvCache::Release(KvTable* table, uint64_t step) {
  RetireOwned(table, step);
  for (PrefixBlock *block = table->shared.tail, *parent; block != nullptr && !block->is_root(); block = parent) {
    parent = block->parent;
    prefixes_->LetGo(block);
  }
  *table = {};
}

}  // namespace openlora
