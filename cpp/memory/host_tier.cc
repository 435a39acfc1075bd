#include "memory/host_tier.h"

#include "memory/adapter_residency.h"

namespace openlora {

void HostTier::Use(Adapter* adapter, std::vector<Adapter*>* left) {
  if (adapter->is_host) {
    list_.splice(list_.end(), list_, adapter->host_place);
    return;
  }
  if (adapter->content.pack_bytes > bytes_max_) {
    left->push_back(adapter);
    return;
  }
  adapter->host_place = list_.insert(list_.end(), adapter);
  adapter->is_host = true;
  bytes_ += adapter->content.pack_bytes;
  while (bytes_ > bytes_max_) {
    Adapter* const oldest = list_.front();
    Remove(oldest);
    left->push_back(oldest);
  }
}

void HostTier::Remove(Adapter* adapter) {
  if (!adapter->is_host) return;
  list_.erase(adapter->host_place);
  adapter->host_place = {};
  adapter->is_host = false;
  bytes_ -= adapter->content.pack_bytes;
}

}  // namespace openlora
