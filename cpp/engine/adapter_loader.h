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

// Reads adapters' files beside compute: one thread checks them at registration, one loads them into reserved frames,
// since requests wait for loads. An adapter that is queued here stays unchanged until its result is taken.
class AdapterLoader {
 public:
  AdapterLoader(const AdapterResidency* residency, const FramePool* pool, Device* device,
                std::vector<std::string> base_files, std::function<void(LoaderResult)> on_result);
  ~AdapterLoader();  // gives up what is queued
  AdapterLoader(const AdapterLoader&) = delete;
  AdapterLoader& operator=(const AdapterLoader&) = delete;

  void Check(Adapter* adapter) { checks_.Add(adapter); }
  void Load(Adapter* adapter) { loads_.Add(adapter); }

 private:
  // What one thread has to do, in the order in which it came.
  class Line {
   public:
    void Add(Adapter* adapter);
    void Stop();
    Adapter* Next();  // waits; null when stopped

   private:
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Adapter*> adapters_;
    bool is_stopped_ = false;
  };

  void Main(Line* line);
  void Stop();
  LoaderResult Run(Adapter* adapter, bool is_check) const;

  const TileFormat format_;
  const std::vector<SiteShape> shapes_;
  const FramePool* pool_;
  Device* device_;
  const std::vector<std::string> base_files_;
  const std::function<void(LoaderResult)> on_result_;
  std::atomic<bool> is_stopping_{false};
  Line checks_, loads_;
  std::thread checker_, loader_;
};

}  // namespace openlora
