#include "engine/adapter_loader.h"

#include "base/guarded.h"

namespace openlora {

AdapterLoader::AdapterLoader(const AdapterResidency* residency, const FramePool* pool, Device* device,
                             std::vector<std::string> base_files, std::function<void(LoaderResult)> on_result)
    : format_(residency->format()),
      shapes_(residency->shapes()),
      pool_(pool),
      device_(device),
      base_files_(std::move(base_files)),
      on_result_(std::move(on_result)),
      thread_([this] { Main(); }) {}

AdapterLoader::~AdapterLoader() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void AdapterLoader::Queue(std::deque<Adapter*>* queue, Adapter* adapter) {
  {
    const std::lock_guard lock(mutex_);
    queue->push_back(adapter);
  }
  wake_.notify_one();
}

void AdapterLoader::Main() {
  for (;;) {
    Adapter* adapter = nullptr;
    bool is_check = false;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return is_stopping_ || !checks_.empty() || !loads_.empty(); });
      if (is_stopping_) return;
      is_check = loads_.empty();
      std::deque<Adapter*>& queue = is_check ? checks_ : loads_;
      adapter = queue.front();
      queue.pop_front();
    }
    on_result_(Run(adapter, is_check));
  }
}

LoaderResult AdapterLoader::Run(Adapter* adapter, bool is_check) const {
  LoaderResult result{adapter, is_check, {}, {}};
  result.status = Guarded([&] {
    return is_check ? CheckAdapter(adapter->manifest, shapes_, base_files_, is_stopping_, &result.identity)
                    : FillTiles(adapter->manifest, adapter->identity, adapter->layout, adapter->frames, format_, *pool_,
                                device_, is_stopping_);
  });
  return result;
}

}  // namespace openlora
