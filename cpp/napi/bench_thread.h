#pragma once

#include <napi.h>

namespace openlora {

// NativeAddon.bench of src/native/binding.ts: a measurement in a thread of its own, which ends with its environment.
Napi::Value StartBench(const Napi::CallbackInfo& info);

}  // namespace openlora
