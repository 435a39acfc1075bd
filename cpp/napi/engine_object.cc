#include "napi/engine_object.h"

#include <algorithm>

#include "napi/marshal.h"

namespace openlora {
namespace {

using SessionHolder = std::shared_ptr<Session>;  // what the thread-safe function's context points to

void AddWork(Session* session) {
  if (session->work_in_flight++ == 0) napi_ref_threadsafe_function(session->env, session->events);
}

void EndWork(Session* session, int64_t count) {
  if (count == 0 || session->work_in_flight == 0) return;
  session->work_in_flight = std::max<int64_t>(0, session->work_in_flight - count);
  if (session->work_in_flight == 0) napi_unref_threadsafe_function(session->env, session->events);
}

bool EndsWork(const ControlEvent& event) {
  return std::holds_alternative<OpenedEvent>(event) || std::holds_alternative<OpenFailedEvent>(event) ||
         std::holds_alternative<AdapterReadyEvent>(event) || std::holds_alternative<AdapterFailedEvent>(event) ||
         std::holds_alternative<AdapterHeldEvent>(event) || std::holds_alternative<EndEvent>(event) ||
         std::holds_alternative<FailedEvent>(event);
}

// What has had its last event is forgotten, and what is open lets go of what it was opened with.
void Forget(Session* session, const ControlEvent& event) {
  if (std::holds_alternative<OpenedEvent>(event)) session->token_owners = {};
  if (const auto* end = std::get_if<EndEvent>(&event)) session->requests.erase(end->request);
  if (const auto* failed = std::get_if<FailedEvent>(&event)) session->requests.erase(failed->request);
  if (const auto* failed = std::get_if<AdapterFailedEvent>(&event)) session->adapters.erase(failed->handle);
  if (const auto* retired = std::get_if<AdapterRetiredEvent>(&event)) session->adapters.erase(retired->handle);
}

// The environment goes, perhaps in the middle of a step: no JavaScript runs any more.
void TearDown(void* data) {
  Session* session = static_cast<Session*>(data);
  session->engine.reset();
  session->token_owners = {};
}

void DeleteHolder(napi_env, void* data, void*) { delete static_cast<SessionHolder*>(data); }

void Finish(Session* session) {
  napi_remove_env_cleanup_hook(session->env, TearDown, session);
  session->engine.reset();  // its thread has ended or is about to
  session->token_owners = {};
  session->work_in_flight = 0;
  napi_unref_threadsafe_function(session->env, session->events);
  napi_release_threadsafe_function(session->events, napi_tsfn_release);
}

void CallJs(napi_env env, napi_value callback, void* context, void*) {
  // Node before 24.16 drains the queue after DeleteHolder when an environment goes: `context` is gone then.
  if (env == nullptr || callback == nullptr) return;
  const SessionHolder session = *static_cast<SessionHolder*>(context);
  if (session->engine == nullptr) return;
  const EventBatch batch = session->engine->Take();
  if (batch.records.empty() && batch.events.empty()) return;
  const bool is_closed = !batch.events.empty() && std::holds_alternative<ClosedEvent>(batch.events.back());
  const auto ended = std::count_if(batch.events.begin(), batch.events.end(), EndsWork);
  for (const ControlEvent& event : batch.events) Forget(session.get(), event);
  {
    const Napi::HandleScope scope(env);
    const Napi::Value records = WriteRecords(env, batch.records);
    if (records.IsEmpty()) return;  // a worker that is being terminated
    const Napi::Array events = WriteEvents(env, batch.events);
    const napi_value arguments[] = {records, events};
    napi_value receiver, ignored;
    napi_get_undefined(env, &receiver);
    // An exception of the callback is pending afterwards, and Node reports it as uncaught.
    napi_call_function(env, receiver, callback, 2, arguments, &ignored);
  }
  EndWork(session.get(), ended);
  if (is_closed) Finish(session.get());
}

Napi::Object ObjectArgument(const Napi::CallbackInfo& info, size_t index) {
  const Napi::Value value = info[index];
  return value.IsObject() ? value.As<Napi::Object>() : Napi::Object::New(info.Env());
}

void ThrowTypeError(Napi::Env env, const std::string& message) {
  // What a getter of an argument threw goes before; a second exception would be fatal.
  if (!env.IsExceptionPending()) Napi::TypeError::New(env, message).ThrowAsJavaScriptException();
}

}  // namespace

Napi::Function EngineObject::Define(Napi::Env env) {
  return DefineClass(
      env, "Engine",
      {InstanceMethod<&EngineObject::RegisterAdapter>("registerAdapter"),
       InstanceMethod<&EngineObject::UnregisterAdapter>("unregisterAdapter"),
       InstanceMethod<&EngineObject::HoldAdapter>("holdAdapter"),
       InstanceMethod<&EngineObject::AdapterTier>("adapterTier"), InstanceMethod<&EngineObject::Submit>("submit"),
       InstanceMethod<&EngineObject::Cancel>("cancel"), InstanceMethod<&EngineObject::Pause>("pause"),
       InstanceMethod<&EngineObject::Stats>("stats"), InstanceMethod<&EngineObject::Close>("close")});
}

Napi::Value EngineObject::Open(const Napi::CallbackInfo& info, const Napi::FunctionReference& constructor,
                               OpenBackend open_backend) {
  const Napi::Env env = info.Env();
  OpenArguments arguments;
  const std::string mismatch = ReadOpen(ObjectArgument(info, 0), &arguments);
  if (!mismatch.empty() || !info[1].IsFunction()) {
    ThrowTypeError(env, mismatch.empty() ? "onEvents must be a function" : mismatch);
    return env.Undefined();
  }
  const Napi::Object object = constructor.New({});
  EngineObject* self = Unwrap(object);
  self->base_tensors_ = arguments.options.tensors;
  auto session = std::make_shared<Session>();
  session->env = env;
  session->token_owners = std::move(arguments.token_owners);
  auto* holder = new SessionHolder(session);
  const napi_value name = Napi::String::New(env, "openlora");
  const napi_status status = napi_create_threadsafe_function(env, info[1], nullptr, name, 0, 1, nullptr, DeleteHolder,
                                                             holder, CallJs, &session->events);
  if (status != napi_ok) {
    delete holder;
    ThrowTypeError(env, "the event callback can't be registered");
    return env.Undefined();
  }
  session->work_in_flight = 1;
  napi_add_env_cleanup_hook(env, TearDown, session.get());
  arguments.options.open_backend = [open_backend, options = arguments.backend](Backend* backend) {
    return open_backend(options, backend);
  };
  const napi_threadsafe_function events = session->events;
  session->engine = std::make_unique<Engine>(std::move(arguments.options), [events] {
    napi_call_threadsafe_function(events, nullptr, napi_tsfn_nonblocking);
  });
  self->session_ = std::move(session);
  return object;
}

Engine* EngineObject::Live() const {
  return session_ == nullptr || session_->is_closing ? nullptr : session_->engine.get();
}

void EngineObject::RegisterAdapter(const Napi::CallbackInfo& info) {
  Engine* engine = Live();
  if (engine == nullptr) return;
  int64_t handle = 0;
  AdapterManifest manifest;
  const std::string mismatch = ReadAdapter(ObjectArgument(info, 0), base_tensors_, &handle, &manifest);
  if (!mismatch.empty()) return ThrowTypeError(info.Env(), mismatch);
  if (!session_->adapters.insert(handle).second)
    return ThrowTypeError(info.Env(), "adapter.handle must be one that no adapter has");
  AddWork(session_.get());
  engine->Register(handle, std::move(manifest));
}

void EngineObject::UnregisterAdapter(const Napi::CallbackInfo& info) {
  if (Engine* engine = Live(); engine != nullptr && info[0].IsNumber())
    engine->Unregister(info[0].As<Napi::Number>().Int64Value());
}

void EngineObject::HoldAdapter(const Napi::CallbackInfo& info) {
  Engine* engine = Live();
  if (engine == nullptr) return;
  HoldKind kind = HoldKind::kHost;
  if (!info[0].IsNumber() || !info[1].IsNumber() || !ReadHoldKind(info[2], &kind))
    return ThrowTypeError(info.Env(), "holdAdapter takes a handle, a ticket, and host, device or pin");
  AddWork(session_.get());
  engine->Hold(info[0].As<Napi::Number>().Int64Value(), info[1].As<Napi::Number>().Int64Value(), kind);
}

Napi::Value EngineObject::AdapterTier(const Napi::CallbackInfo& info) {
  Engine* engine = Live();
  Tier tier = Tier::kRegistered;
  if (engine == nullptr || !info[0].IsNumber() || !engine->FindTier(info[0].As<Napi::Number>().Int64Value(), &tier))
    return info.Env().Undefined();
  return Napi::String::New(info.Env(), NameOf(tier));
}

void EngineObject::Submit(const Napi::CallbackInfo& info) {
  Engine* engine = Live();
  if (engine == nullptr) return;
  Request request;
  const std::string mismatch = ReadRequest(ObjectArgument(info, 0), &request);
  if (!mismatch.empty()) return ThrowTypeError(info.Env(), mismatch);
  if (!session_->requests.insert(request.id).second)
    return ThrowTypeError(info.Env(), "request.id must be one that no request has");
  AddWork(session_.get());
  engine->Submit(std::move(request));
}

void EngineObject::Cancel(const Napi::CallbackInfo& info) {
  if (Engine* engine = Live(); engine != nullptr && info[0].IsNumber())
    engine->Cancel(info[0].As<Napi::Number>().Int64Value());
}

void EngineObject::Pause(const Napi::CallbackInfo& info) {
  if (Engine* engine = Live(); engine != nullptr && info[0].IsNumber() && info[1].IsBoolean())
    engine->SetPaused(info[0].As<Napi::Number>().Int64Value(), info[1].As<Napi::Boolean>().Value());
}

Napi::Value EngineObject::Stats(const Napi::CallbackInfo& info) {
  if (session_ != nullptr && session_->engine != nullptr) last_stats_ = session_->engine->Stats();
  return WriteStats(info.Env(), last_stats_);
}

void EngineObject::Close(const Napi::CallbackInfo&) {
  Engine* engine = Live();
  if (engine == nullptr) return;
  session_->is_closing = true;
  AddWork(session_.get());
  engine->Close();
}

}  // namespace openlora
