#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "memory/adapter_residency.h"

namespace openlora {

// What the loader thread did for an adapter.
struct LoaderResult {
  Adapter* adapter = nullptr;
  bool is_check = false;  // a registration's check, else a load into its frames
  Status status;
  AdapterIdentity identity;  // of a check that succeeded
};

// One thread that reads adapters' files beside compute: checks at registration, and loads into reserved frames. Loads
// go first, since requests wait for them. An adapter that is queued here stays unchanged until its result is taken.
class AdapterLoader {
 public:
  AdapterLoader(const AdapterResidency* residency, const FramePool* pool, Device* device,
                std::vector<std::string> base_files, std::function<void(LoaderResult)> on_result);
  ~AdapterLoader();  // gives up what is queued
  AdapterLoader(const AdapterLoader&) = delete;
  AdapterLoader& operator=(const AdapterLoader&) = delete;

  void Check(Adapter* adapter) { Queue(&checks_, adapter); }
  void Load(Adapter* adapter) { Queue(&loads_, adapter); }

 private:
  void Queue(std::deque<Adapter*>* queue, Adapter* adapter);
  void Main();
  LoaderResult Run(Adapter* adapter, bool is_check) const;

  const TileFormat format_;
  const std::vector<SiteShape> shapes_;
  const FramePool* pool_;
  Device* device_;
  const std::vector<std::string> base_files_;
  const std::function<void(LoaderResult)> on_result_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Adapter*> checks_, loads_;
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

}  // namespace openlora
