#include "engine/engine.h"

#include <chrono>

#include "base/clock.h"
#include "base/guarded.h"
#include "engine/adapter_loader.h"

namespace openlora {
namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;  // clang 14 doesn't deduce aggregates

}  // namespace

Engine::Engine(EngineOptions options, std::function<void()> wake)
    : max_queued_(options.max_queued), outbox_(std::move(wake)) {
  const Status status = Guarded([&] {
    thread_ = std::thread([this, moved = std::move(options)]() mutable { Main(std::move(moved)); });
    return Ok();
  });
  if (!status.ok()) End(status);
}

Engine::~Engine() {
  Close();
  if (thread_.joinable()) thread_.join();
}

void Engine::Submit(Request request) {
  // The core counts again; this bounds the inbox when JavaScript submits faster than steps go by.
  if (submitted_.load(std::memory_order_relaxed) >= max_queued_) {
    return outbox_.PushNow(
        FailedEvent{request.id, Error(kErrOverloaded, "%d requests wait, maxQueued is %d", max_queued_, max_queued_)});
  }
  ReadAhead(request);
  request.submitted_ms = NowMs();
  submitted_.fetch_add(1, std::memory_order_relaxed);
  Post(std::move(request));
}

// A step may run, and the core sees the request only after it: what is on disk may be in the page cache by then. So may
// what the host tier has: the system may have taken it back from there.
void Engine::ReadAhead(const Request& request) {
  const std::lock_guard lock(published_mutex_);
  if (loader_ == nullptr) return;
  for (const AdapterUse& use : request.adapters) {
    const auto found = adapters_.find(use.handle);
    if (found == adapters_.end()) continue;
    const auto& [tier, has_pack, key] = found->second;
    if (has_pack && (tier == Tier::kRegistered || tier == Tier::kHost)) loader_->ReadAhead(key);
  }
}

void Engine::Connect(EngineCore* core, AdapterLoader* loader) {
  const std::lock_guard lock(published_mutex_);
  loader_ = loader;
  if (loader != nullptr) {
    core->Connect(loader);
  } else {
    core->Disconnect();
  }
}

void Engine::Post(Message message) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(message));
  }
  wake_.notify_one();
}

void Engine::Close() {
  is_closing_ = true;
  {
    const std::lock_guard lock(mutex_);
    has_news_ = true;
  }
  wake_.notify_one();
}

EventBatch Engine::Take() {
  EventBatch batch = outbox_.Take();
  {
    const std::lock_guard lock(mutex_);
    has_news_ = true;
  }
  wake_.notify_one();
  return batch;
}

EngineStats Engine::Stats() const {
  const std::lock_guard lock(published_mutex_);
  return stats_;
}

bool Engine::FindTier(int64_t handle, Tier* tier) const {
  const std::lock_guard lock(published_mutex_);
  const auto found = adapters_.find(handle);
  if (found == adapters_.end()) return false;
  *tier = found->second.tier;
  return true;
}

void Engine::Main(EngineOptions options) {
  End(Guarded([&] { return Serve(std::move(options)); }));
}

// The last events.
void Engine::End(const Status& status) {
  const Status closed = status.ok() ? Status(kErrClosed, "the base was disposed") : status;
  std::vector<Message> left;  // nobody will look at these any more
  {
    const std::lock_guard lock(mutex_);
    left.swap(inbox_);
  }
  for (const Message& message : left) {
    if (const Request* request = std::get_if<Request>(&message)) outbox_.Push(FailedEvent{request->id, closed});
    if (const auto* adapter = std::get_if<RegisterMessage>(&message))
      outbox_.Push(AdapterFailedEvent{adapter->handle, closed});
    if (const auto* hold = std::get_if<HoldMessage>(&message)) outbox_.Push(AdapterHeldEvent{hold->ticket, closed});
  }
  if (!is_open_) outbox_.Push(OpenFailedEvent{closed});
  outbox_.Push(ClosedEvent{status});
  outbox_.Flush();
}

Status Engine::Serve(EngineOptions options) {
  EngineCore core(std::move(options), &outbox_);
  OPENLORA_RETURN_IF_ERROR(core.Open(is_closing_));
  is_open_ = true;
  Status status;
  {
    AdapterLoader loader(core.store(), &core.pool(), [this](LoaderResult result) { Post(std::move(result)); });
    Connect(&core, &loader);
    status = Guarded([&] {
      Loop(&core);
      return Ok();
    });
    Connect(&core, nullptr);
  }
  core.Close(status.ok() ? Status(kErrClosed, "the base was disposed") : status);
  return status;
}

void Engine::Loop(EngineCore* core) {
  Publish(core);
  outbox_.Flush();  // that it is open: who then reads the counters finds what is held
  bool has_work = false;
  while (!is_closing_) {
    if (!has_work) Wait(*core);
    Receive(core);
    if (is_closing_) return;
    has_work = core->Step();
    // Who reads a result and then the counters finds them counted.
    Publish(core);
    outbox_.Flush();
  }
}

void Engine::Wait(const EngineCore& core) {
  const double deadline_ms = core.NextDeadlineMs();
  std::unique_lock lock(mutex_);
  const auto has_come = [this] { return !inbox_.empty() || has_news_; };
  if (deadline_ms < 0) {
    wake_.wait(lock, has_come);
  } else {
    wake_.wait_for(lock, std::chrono::duration<double, std::milli>(deadline_ms), has_come);
  }
}

void Engine::Receive(EngineCore* core) {
  std::vector<Message> messages;
  {
    const std::lock_guard lock(mutex_);
    messages.swap(inbox_);
    has_news_ = false;
  }
  for (Message& message : messages) Handle(core, std::move(message));
}

void Engine::Handle(EngineCore* core, Message message) {
  std::visit(Overloaded{
                 [&](RegisterMessage& m) { core->Register(m.handle, std::move(m.manifest)); },
                 [&](const UnregisterMessage& m) { core->Unregister(m.handle); },
                 [&](const HoldMessage& m) { core->Hold(m.handle, m.ticket, m.kind); },
                 [&](Request& request) {
                   submitted_.fetch_sub(1, std::memory_order_relaxed);
                   core->Submit(std::move(request));
                 },
                 [&](const CancelMessage& m) { core->Cancel(m.request); },
                 [&](const PauseMessage& m) { core->SetPaused(m.request, m.is_paused); },
                 [&](LoaderResult& result) { core->FinishLoader(std::move(result)); },
             },
             message);
}

void Engine::Publish(EngineCore* core) {
  const EngineStats stats = core->Stats();
  const std::vector<int64_t> changed = core->residency().TakeChanged();
  const std::lock_guard lock(published_mutex_);
  stats_ = stats;
  for (const int64_t handle : changed) {
    const Adapter* adapter = core->residency().Find(handle);
    if (adapter != nullptr) {
      adapters_[handle] = {core->TierOf(*adapter), adapter->content.has_pack, adapter->content.key};
    } else {
      adapters_.erase(handle);
    }
  }
}

}  // namespace openlora
