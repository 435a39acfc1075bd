#include <algorithm>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/engine_core.h"

namespace openlora {
namespace {

// The table begins with the frames of its chain in the index, each of whose blocks it is counted for.
bool HoldsChain(const KvTable& table, size_t layers, std::unordered_map<const PrefixBlock*, int32_t>* references) {
  int32_t left = table.shared.blocks;
  if (table.frames.size() < static_cast<size_t>(left) * layers) return false;
  for (const PrefixBlock* block = table.shared.tail; block != nullptr && !block->is_root(); block = block->parent) {
    if (--left < 0 || block->frames.size() != layers) return false;
    const auto frames = std::span(table.frames).subspan(static_cast<size_t>(left) * layers, layers);
    if (!std::equal(frames.begin(), frames.end(), block->frames.begin())) return false;
    ++(*references)[block];
  }
  return left == 0;
}

}  // namespace

Status EngineCore::CheckInvariants() const {
  std::unordered_map<const Adapter*, int32_t> pins, references;
  for (const auto& [id, sequence] : sequences_) {
    for (const Adapter* adapter : sequence->adapters) {
      ++references[adapter];
      pins[adapter] += sequence->has_pins ? 1 : 0;
    }
    if (!sequence->request.has_penalties()) continue;
    int32_t counted = 0;
    for (const SeenToken& seen : sequence->seen.tokens()) counted += seen.count;
    if (counted != sequence->output())
      return Error(kErrInternal, "request %lld has %d tokens, its penalties count %d", static_cast<long long>(id),
                   sequence->output(), counted);
  }
  for (const auto& [handle, adapter] : residency_->adapters()) {
    const bool is_listed = adapter->state == AdapterState::kResident && adapter->pins == 0;
    pins[adapter.get()] += adapter->is_pinned ? 1 : 0;
    if (adapter->pins != pins[adapter.get()] || adapter->references != references[adapter.get()] ||
        adapter->eviction.is_listed != is_listed)
      return Error(kErrInternal, "adapter %lld has %d pins and %d references, its sequences make %d and %d",
                   static_cast<long long>(handle), adapter->pins, adapter->references, pins[adapter.get()],
                   references[adapter.get()]);
  }
  return CheckFrames();
}

// free + kv + prefix + adapters (resident and loading) + retiring = total, and no frame has two owners.
Status EngineCore::CheckFrames() const {
  std::unordered_map<const PrefixBlock*, int32_t> references;
  std::vector<uint32_t> frames;  // of all owners
  const auto layers = static_cast<size_t>(options_.model.layers);
  for (const auto& [id, sequence] : sequences_) {
    const KvTable& table = sequence->kv;
    if (!HoldsChain(table, layers, &references))
      return Error(kErrInternal, "request %lld has other frames than the prefix that it shares",
                   static_cast<long long>(id));
    frames.insert(frames.end(), table.frames.begin() + static_cast<std::ptrdiff_t>(kv_->FramesOf(table.shared)),
                  table.frames.end());
  }
  const bool owns_kv =
      std::all_of(frames.begin(), frames.end(), [this](uint32_t frame) { return pool_.use(frame) == FrameUse::kKv; });
  if (!owns_kv || (prefixes_ != nullptr && !prefixes_->IsConsistent(references, &frames)))
    return Status(kErrInternal, "a block of KV is counted for others than those that hold it");
  for (const auto& [handle, adapter] : residency_->adapters()) {
    for (const uint32_t frame : adapter->frames) {
      if (pool_.use(frame) != FrameUse::kAdapter)
        return Error(kErrInternal, "adapter %lld has a frame that isn't its own", static_cast<long long>(handle));
      frames.push_back(frame);
    }
  }
  const auto owned = static_cast<int64_t>(frames.size());
  std::sort(frames.begin(), frames.end());
  const bool is_unique = std::adjacent_find(frames.begin(), frames.end()) == frames.end();
  const int64_t idle = pool_.frames_free() + pool_.frames(FrameUse::kRetiring);
  if (!pool_.IsConsistent() || !is_unique || owned + idle != pool_.frames_total())
    return Error(kErrInternal, "of %lld frames %lld are free or retiring, %lld are owned%s",
                 static_cast<long long>(pool_.frames_total()), static_cast<long long>(idle),
                 static_cast<long long>(owned), is_unique ? "" : ", one of them twice");
  return Ok();
}

}  // namespace openlora
