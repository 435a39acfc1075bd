#pragma once

#include <napi.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/engine_options.h"
#include "engine/outbox.h"
#include "engine/request.h"
#include "memory/adapter_manifest.h"

// The values of src/native/binding.ts, in both directions. The SDK has validated what users wrote; what is checked here
// is that the two sides of the boundary agree, so a mismatch is a TypeError that names the field.

namespace openlora {

// Reads the properties of one object. The first that is missing, of another type, or whose getter throws is remembered,
// and nothing is read after it. What a getter threw stays pending.
class ObjectReader {
 public:
  ObjectReader(Napi::Object object, std::string path) : object_(object), path_(std::move(path)) {}

  double Number(const char* name);
  int64_t Integer(const char* name);  // ERR if not a safe integer
  int32_t Int32(const char* name);
  bool Bool(const char* name);
  std::string String(const char* name);
  DType DTypeOf(const char* name);
  DType HeldDTypeOf(const char* name);  // of what int8 can hold too: adapters, KV
  WeightFormat WeightFormatOf(const char* name);
  ObjectReader Object(const char* name);
  // Calls each(i, value) for the elements of an array, until one is refused.
  template <typename Each>
  void ForEach(const char* name, const Each& each) {
    const Napi::Value list = ok() ? Get(name) : Napi::Value();
    if (ok() && !list.IsArray()) Refuse(name, "an array");
    if (!ok()) return;
    const auto array = list.As<Napi::Array>();
    const uint32_t length = array.Length();
    NotePending(name);
    for (uint32_t i = 0; ok() && i < length; ++i) {
      const Napi::Value value = array.Get(i);
      NotePending(name);
      if (ok()) each(i, value);
    }
  }
  std::vector<std::string> Strings(const char* name);
  std::vector<int32_t> Int32s(const char* name);
  // Copies a typed array of T.
  template <typename T>
  std::vector<T> Typed(const char* name);
  // The same without a copy: good for as long as *owner is, and on any thread.
  template <typename T>
  std::span<const T> Borrowed(const char* name, Napi::ObjectReference* owner);

  bool ok() const { return error_.empty(); }
  const std::string& error() const { return error_; }
  void Adopt(const ObjectReader& part) {
    if (ok()) error_ = part.error_;
  }
  void Refuse(const char* name, const char* wanted);
  std::string PathOf(const char* name) const { return path_ + "." + name; }

 private:
  Napi::Value Get(const char* name);
  void NotePending(const char* name);

  Napi::Object object_;
  std::string path_;
  std::string error_;
};

// What the composition root makes a backend of.
struct BackendOptions {
  std::string device;       // "cpu", "cuda:0", …
  std::string cuda_images;  // folder of device images
  std::string simd;         // as the SDK names it
  int32_t threads = 0;      // 0: as many as may run
  WeightFormat dtype = DType::kF32;
};

// What `open` was given. The engine reads tokens out of `token_owners` until it is open: copying them takes
// milliseconds, most of them page faults.
struct OpenArguments {
  EngineOptions options;
  std::array<Napi::ObjectReference, 2> token_owners;
  BackendOptions backend;
};

// Each returns an empty string, or what doesn't fit.
std::string ReadOpen(Napi::Object object, OpenArguments* arguments);
// `base`: the tensors that `open` was given, to find what a saved base tensor must equal.
std::string ReadAdapter(Napi::Object object, const std::vector<BaseTensor>& base, int64_t* handle,
                        AdapterManifest* manifest);
// False unless it is a kind's name.
bool ReadHoldKind(const Napi::Value& value, HoldKind* kind);
std::string ReadRequest(Napi::Object object, Request* request);

// Null for none; an empty value where the environment can run no JavaScript any more.
Napi::Value WriteRecords(Napi::Env env, const std::vector<uint8_t>& records);
Napi::Array WriteEvents(Napi::Env env, const std::vector<ControlEvent>& events);
Napi::Object WriteStats(Napi::Env env, const EngineStats& stats);
const char* NameOf(Tier tier);

}  // namespace openlora
