#pragma once

#include <node_api.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fuzz/fuzz_input.h"

// As much of Node-API as cpp/napi/marshal.cc and object_reader.cc call, over values that live in memory: what a target
// builds of its input takes the place of what JavaScript hands over. One environment is one call from JavaScript.

namespace openlora::fuzz {

// What reading a property or an element does.
enum class Getter : uint8_t {
  kNone,    // gives the value
  kThrows,  // throws the value
  kEnds,    // ends the environment, as a worker that is terminated: nothing runs after it, and no exception is pending
};

struct Slot {
  napi_value value = nullptr;  // null: undefined
  Getter getter = Getter::kNone;
};

}  // namespace openlora::fuzz

// A JavaScript value. `napi_value` is declared by node_api.h as a pointer to it.
struct napi_value__ {
  using Slot = openlora::fuzz::Slot;
  enum class Shape : uint8_t { kPlain, kArray, kTyped };

  napi_valuetype type = napi_undefined;
  double number = 0;
  bool boolean = false;
  std::string text;  // UTF-8
  // Of objects and functions alone:
  Shape shape = Shape::kPlain;
  std::map<std::string, Slot> properties;
  std::vector<Slot> elements;  // of arrays; those up to `length` are undefined
  size_t length = 0;           // of arrays and typed arrays
  napi_typedarray_type kind = napi_uint8_array;
  // Exactly as long as the elements: AddressSanitizer sees a read beyond it. Without elements it is null, as that of a
  // detached buffer is, or a pointer that nobody may read.
  std::unique_ptr<uint8_t[]> bytes;
  uint8_t* data = nullptr;

  bool IsObject() const { return type == napi_object || type == napi_function; }
};

struct napi_env__ {
  using Getter = openlora::fuzz::Getter;

  napi_value Make(napi_valuetype type);
  napi_value Number(double number);
  napi_value Text(std::string text);
  napi_value Object() { return Make(napi_object); }
  napi_value Array();
  // `length` elements, whose bytes are zero.
  napi_value Typed(napi_typedarray_type kind, size_t length);
  // Any property of any object, any element: `read` of it. Fails where the environment is gone or an exception pending.
  napi_status Read(const openlora::fuzz::Slot* slot, napi_value* result);
  napi_status Fail(napi_status status);
  bool CanRun() const { return exception == nullptr && !is_ended; }

  napi_value exception = nullptr;  // pending
  bool is_ended = false;
  std::vector<const openlora::fuzz::Slot*> reads;  // in their order; null: of what isn't there
  int late_reads = 0;                              // while an exception was pending, or after the end
  int scopes = 0;                                  // open ones
  int references = 0;                              // that exist
  napi_extended_error_info last_error = {};

 private:
  std::deque<napi_value__> values_;
};

namespace openlora::fuzz {

size_t BytesOf(napi_typedarray_type kind);

}  // namespace openlora::fuzz
