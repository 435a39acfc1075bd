#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/engine_core.h"
#include "engine/engine_options.h"
#include "engine/outbox.h"

namespace openlora {

class AdapterLoader;

// The engine and its thread. Calls come from any thread, copy what they are given and return at once; what comes of
// them is in the outbox. After Close they do nothing.
class Engine {
 public:
  // Starts loading. `wake`: see Outbox; called from the engine's threads until the ClosedEvent was handed over.
  Engine(EngineOptions options, std::function<void()> wake);
  ~Engine();  // closes, and waits for the thread: for a step at the most
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void Register(int64_t handle, AdapterManifest manifest) { Post(RegisterMessage{handle, std::move(manifest)}); }
  void Unregister(int64_t handle) { Post(UnregisterMessage{handle}); }
  void Hold(int64_t handle, int64_t ticket, HoldKind kind) { Post(HoldMessage{handle, ticket, kind}); }
  void Submit(Request request);
  void Cancel(int64_t request) { Post(CancelMessage{request}); }
  void SetPaused(int64_t request, bool is_paused) { Post(PauseMessage{request, is_paused}); }
  void Close();

  // What was handed over since the last call. A sequence whose reader is behind goes on after it.
  EventBatch Take();
  EngineStats Stats() const;
  // By handle, as of the last step; false if unknown.
  bool FindTier(int64_t handle, Tier* tier) const;

 private:
  struct RegisterMessage {
    int64_t handle;
    AdapterManifest manifest;
  };
  struct UnregisterMessage {
    int64_t handle;
  };
  struct HoldMessage {
    int64_t handle;
    int64_t ticket;
    HoldKind kind;
  };
  struct CancelMessage {
    int64_t request;
  };
  struct PauseMessage {
    int64_t request;
    bool is_paused;
  };
  using Message =
      std::variant<RegisterMessage, UnregisterMessage, HoldMessage, Request, CancelMessage, PauseMessage, LoaderResult>;

  // What an adapter is to other threads, as of the last step.
  struct Published {
    Tier tier = Tier::kRegistered;
    bool has_pack = false;
    Sha256::Digest key{};  // of its pack
  };

  void Post(Message message);
  void ReadAhead(const Request& request);
  void Connect(EngineCore* core, AdapterLoader* loader);
  void Main(EngineOptions options);
  void End(const Status& status);
  Status Serve(EngineOptions options);
  void Loop(EngineCore* core);
  void Wait(const EngineCore& core);
  void Receive(EngineCore* core);
  void Handle(EngineCore* core, Message message);
  void Publish(EngineCore* core);

  const int32_t max_queued_;
  Outbox outbox_;
  std::atomic<bool> is_closing_{false};
  std::atomic<bool> is_open_{false};
  std::atomic<int64_t> submitted_{0};  // requests accepted by Submit that the core hasn't seen

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Message> inbox_;
  bool has_news_ = false;  // the reader took its events, or Close was called

  mutable std::mutex published_mutex_;
  EngineStats stats_;
  std::unordered_map<int64_t, Published> adapters_;  // by handle
  AdapterLoader* loader_ = nullptr;                  // while there is one

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace openlora
