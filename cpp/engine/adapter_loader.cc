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
      on_result_(std::move(on_result)) {
  checker_ = std::thread([this] { Main(&checks_); });
  try {
    loader_ = std::thread([this] { Main(&loads_); });
  } catch (...) {
    Stop();
    throw;  // std::system_error: the engine's thread has it guarded
  }
}

AdapterLoader::~AdapterLoader() { Stop(); }

void AdapterLoader::Stop() {
  is_stopping_ = true;
  for (Line* line : {&checks_, &loads_}) line->Stop();
  for (std::thread* thread : {&checker_, &loader_}) {
    if (thread->joinable()) thread->join();
  }
}

void AdapterLoader::Line::Add(Adapter* adapter) {
  {
    const std::lock_guard lock(mutex_);
    adapters_.push_back(adapter);
  }
  wake_.notify_one();
}

void AdapterLoader::Line::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
  }
  wake_.notify_one();
}

Adapter* AdapterLoader::Line::Next() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return is_stopped_ || !adapters_.empty(); });
  if (is_stopped_) return nullptr;
  Adapter* adapter = adapters_.front();
  adapters_.pop_front();
  return adapter;
}

void AdapterLoader::Main(Line* line) {
  while (Adapter* adapter = line->Next()) on_result_(Run(adapter, line == &checks_));
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
