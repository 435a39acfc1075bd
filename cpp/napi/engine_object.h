#pragma once

#include <napi.h>

#include <array>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "engine/engine.h"
#include "napi/marshal.h"

namespace openlora {

// What one open engine needs on the JS thread. It lives until the engine has closed or its environment is torn down,
// whichever comes first; the engine's thread never touches JavaScript.
struct Session {
  std::unique_ptr<Engine> engine;
  napi_env env = nullptr;
  napi_threadsafe_function events = nullptr;
  // Opens, registrations, holds, requests and closes without their event. The process stays alive while there are any.
  int64_t work_in_flight = 0;
  // Of what has not had its last event: such a number can't be given again.
  std::unordered_set<int64_t> requests, adapters;
  // What the engine still reads of JavaScript's memory: nothing once it is open.
  std::array<Napi::ObjectReference, 2> token_owners;
  bool is_closing = false;
};

// Makes the machine that computes. On the engine's thread.
using OpenBackend = Status (*)(const BackendOptions& options, Backend* backend);

// NativeEngine of src/native/binding.ts.
class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  // The class's constructor, kept by the addon's per-environment data.
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Open(const Napi::CallbackInfo& info, const Napi::FunctionReference& constructor,
                          OpenBackend open_backend);

  explicit EngineObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {}

 private:
  void RegisterAdapter(const Napi::CallbackInfo& info);
  void UnregisterAdapter(const Napi::CallbackInfo& info);
  void HoldAdapter(const Napi::CallbackInfo& info);
  Napi::Value AdapterTier(const Napi::CallbackInfo& info);
  void Submit(const Napi::CallbackInfo& info);
  void Cancel(const Napi::CallbackInfo& info);
  void Pause(const Napi::CallbackInfo& info);
  Napi::Value Stats(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);
  Engine* Live() const;  // null once closed

  std::shared_ptr<Session> session_;
  std::vector<BaseTensor> base_tensors_;
  EngineStats last_stats_;
};

}  // namespace openlora
