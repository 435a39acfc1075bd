#pragma once

#include <cstdint>
#include <list>
#include <vector>

namespace openlora {

struct Adapter;

// Adapters whose packs are in the page cache, the one used longest ago first, bounded by bytes: what one would hold in
// memory of one's own elsewhere. A resident adapter stays in it until others push it out. It only counts; whoever
// leaves is for the loader to drop from the page cache. Two adapters of one content count twice. Engine thread only.
class HostTier {
 public:
  explicit HostTier(int64_t bytes_max) : bytes_max_(bytes_max) {}

  // Its pack is in the page cache and was used now. Those that leave in return are appended; `adapter` itself if it
  // alone is too large.
  void Use(Adapter* adapter, std::vector<Adapter*>* left);
  // It is there no more, or needn't be.
  void Remove(Adapter* adapter);

  int64_t bytes_max() const { return bytes_max_; }
  int64_t bytes() const { return bytes_; }
  int64_t adapters() const { return static_cast<int64_t>(list_.size()); }

 private:
  int64_t bytes_max_;
  int64_t bytes_ = 0;
  std::list<Adapter*> list_;
};

}  // namespace openlora
