#include <napi.h>

#include "napi/engine_object.h"
#include "ops/cpu/cpu_features.h"

namespace openlora {
namespace {

// The composition root: what an environment (the main thread, or one worker) has of us.
struct AddonData {
  Napi::FunctionReference engine_constructor;
};

Napi::Value Probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  Napi::Array features = Napi::Array::New(env), levels = Napi::Array::New(env);
  for (const std::string& name : CpuFeatureNames()) features.Set(features.Length(), name);
  for (const SimdLevel level : AvailableSimdLevels()) levels.Set(levels.Length(), NameOf(level));
  result.Set("isUsable", true);
  result.Set("reason", "");
  result.Set("cpuFeatures", features);
  result.Set("simdLevels", levels);
  return result;
}

Napi::Value Open(const Napi::CallbackInfo& info) { return EngineObject::Open(info, info.Env().GetInstanceData<AddonData>()->engine_constructor); }

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData;
  data->engine_constructor = Napi::Persistent(EngineObject::Define(env));
  env.SetInstanceData(data);
  exports.Set("version", OPENLORA_VERSION);
  exports.Set("probe", Napi::Function::New<Probe>(env, "probe"));
  exports.Set("open", Napi::Function::New<Open>(env, "open"));
  return exports;
}

}  // namespace
}  // namespace openlora

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) { return openlora::Init(env, exports); }

NODE_API_MODULE(openlora, InitAddon)
