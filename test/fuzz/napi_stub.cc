#include "fuzz/napi_stub.h"

#include <cmath>

// A call that the readers don't make, however sound or spoilt what they read: the writers of marshal.cc do.
#define NAPI_NEVER(name, ...)              \
  napi_status name(__VA_ARGS__) {          \
    FUZZ_CHECK(false, "%s called", #name); \
    return napi_generic_failure;           \
  }

struct napi_ref__ {
  napi_value value;
};

// Those that node's own sources hold back while an exception is pending or the environment ends.
#define RETURN_UNLESS_IT_RUNS(env) \
  if (!(env)->CanRun()) return (env)->Fail(napi_pending_exception)

namespace openlora::fuzz {

size_t BytesOf(napi_typedarray_type kind) {
  switch (kind) {
    case napi_int8_array:
    case napi_uint8_array:
    case napi_uint8_clamped_array:
      return 1;
    case napi_int16_array:
    case napi_uint16_array:
      return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      return 4;
    default:
      return 8;
  }
}

}  // namespace openlora::fuzz

napi_value napi_env__::Make(napi_valuetype type) {
  values_.emplace_back().type = type;
  return &values_.back();
}

napi_value napi_env__::Number(double number) {
  const napi_value value = Make(napi_number);
  value->number = number;
  return value;
}

napi_value napi_env__::Text(std::string text) {
  const napi_value value = Make(napi_string);
  value->text = std::move(text);
  return value;
}

napi_value napi_env__::Array() {
  const napi_value value = Object();
  value->shape = napi_value__::Shape::kArray;
  return value;
}

napi_value napi_env__::Typed(napi_typedarray_type kind, size_t length) {
  const napi_value value = Object();
  value->shape = napi_value__::Shape::kTyped;
  value->kind = kind;
  value->length = length;
  value->bytes = std::make_unique<uint8_t[]>(length * openlora::fuzz::BytesOf(kind));
  value->data = value->bytes.get();
  return value;
}

napi_status napi_env__::Fail(napi_status status) {
  last_error = {nullptr, nullptr, 0, status};
  return status;
}

napi_status napi_env__::Read(const openlora::fuzz::Slot* slot, napi_value* result) {
  if (!CanRun()) {
    ++late_reads;
    return Fail(napi_pending_exception);
  }
  reads.push_back(slot);
  const napi_value value = slot == nullptr || slot->value == nullptr ? Make(napi_undefined) : slot->value;
  switch (slot == nullptr ? Getter::kNone : slot->getter) {
    case Getter::kThrows:
      exception = value;
      return Fail(napi_pending_exception);
    case Getter::kEnds:
      is_ended = true;
      return Fail(napi_pending_exception);
    default:
      *result = value;
      return Fail(napi_ok);
  }
}

namespace {

const openlora::fuzz::Slot* Find(napi_value object, const std::string& name) {
  const auto found = object->properties.find(name);
  return found == object->properties.end() ? nullptr : &found->second;
}

napi_status MakeError(napi_env env, napi_value message, napi_value* result) {
  *result = env->Object();
  (*result)->properties["message"] = {message};
  return env->Fail(napi_ok);
}

}  // namespace

extern "C" {

napi_status napi_typeof(napi_env env, napi_value value, napi_valuetype* result) {
  *result = value->type;
  return env->Fail(napi_ok);
}

napi_status napi_is_array(napi_env env, napi_value value, bool* result) {
  *result = value->shape == napi_value__::Shape::kArray;
  return env->Fail(napi_ok);
}

napi_status napi_is_typedarray(napi_env env, napi_value value, bool* result) {
  *result = value->shape == napi_value__::Shape::kTyped;
  return env->Fail(napi_ok);
}

napi_status napi_get_named_property(napi_env env, napi_value object, const char* name, napi_value* result) {
  if (env->CanRun() && !object->IsObject()) return env->Fail(napi_object_expected);
  return env->Read(Find(object, name), result);
}

napi_status napi_get_element(napi_env env, napi_value object, uint32_t index, napi_value* result) {
  if (env->CanRun() && !object->IsObject()) return env->Fail(napi_object_expected);
  return env->Read(index < object->elements.size() ? &object->elements[index] : nullptr, result);
}

napi_status napi_get_array_length(napi_env env, napi_value value, uint32_t* result) {
  if (value->shape != napi_value__::Shape::kArray) return env->Fail(napi_array_expected);
  *result = static_cast<uint32_t>(value->length);
  return env->Fail(napi_ok);
}

napi_status napi_get_typedarray_info(napi_env env, napi_value value, napi_typedarray_type* type, size_t* length,
                                     void** data, napi_value* buffer, size_t* offset) {
  if (value->shape != napi_value__::Shape::kTyped) return env->Fail(napi_invalid_arg);
  FUZZ_CHECK(buffer == nullptr && offset == nullptr, "the stub has no buffers");
  if (type != nullptr) *type = value->kind;
  if (length != nullptr) *length = value->length;
  if (data != nullptr) *data = value->data;
  return env->Fail(napi_ok);
}

napi_status napi_get_value_bool(napi_env env, napi_value value, bool* result) {
  if (value->type != napi_boolean) return env->Fail(napi_boolean_expected);
  *result = value->boolean;
  return env->Fail(napi_ok);
}

napi_status napi_get_value_double(napi_env env, napi_value value, double* result) {
  if (value->type != napi_number) return env->Fail(napi_number_expected);
  *result = value->number;
  return env->Fail(napi_ok);
}

// The lower 32 bits of the whole part, as ToInt32; 0 of what is not finite.
napi_status napi_get_value_int32(napi_env env, napi_value value, int32_t* result) {
  if (value->type != napi_number) return env->Fail(napi_number_expected);
  const double bits = std::isfinite(value->number) ? std::fmod(std::trunc(value->number), 4294967296.0) : 0;
  *result = static_cast<int32_t>(static_cast<uint32_t>(static_cast<int64_t>(bits)));
  return env->Fail(napi_ok);
}

napi_status napi_get_value_string_utf8(napi_env env, napi_value value, char* buffer, size_t size, size_t* result) {
  if (value->type != napi_string) return env->Fail(napi_string_expected);
  if (buffer == nullptr) {
    *result = value->text.size();
  } else if (size > 0) {
    const size_t copied = std::min(size - 1, value->text.size());
    std::copy_n(value->text.data(), copied, buffer);
    buffer[copied] = '\0';
    if (result != nullptr) *result = copied;
  }
  return env->Fail(napi_ok);
}

napi_status napi_create_object(napi_env env, napi_value* result) {
  *result = env->Object();
  return env->Fail(napi_ok);
}

napi_status napi_create_string_utf8(napi_env env, const char* text, size_t length, napi_value* result) {
  *result = env->Text(length == NAPI_AUTO_LENGTH ? std::string(text) : std::string(text, length));
  return env->Fail(napi_ok);
}

napi_status napi_open_handle_scope(napi_env env, napi_handle_scope* result) {
  ++env->scopes;
  *result = reinterpret_cast<napi_handle_scope>(env);
  return env->Fail(napi_ok);
}

napi_status napi_close_handle_scope(napi_env env, napi_handle_scope) {
  --env->scopes;
  return env->Fail(napi_ok);
}

napi_status napi_create_reference(napi_env env, napi_value value, uint32_t, napi_ref* result) {
  if (!value->IsObject() && value->type != napi_symbol) return env->Fail(napi_invalid_arg);
  ++env->references;
  *result = new napi_ref__{value};
  return env->Fail(napi_ok);
}

napi_status napi_delete_reference(napi_env env, napi_ref reference) {
  --env->references;
  delete reference;
  return env->Fail(napi_ok);
}

napi_status napi_get_reference_value(napi_env env, napi_ref reference, napi_value* result) {
  *result = reference->value;
  return env->Fail(napi_ok);
}

// What was thrown is wrapped in an object where it is none: the following five.
napi_status napi_define_properties(napi_env env, napi_value object, size_t count,
                                   const napi_property_descriptor* list) {
  RETURN_UNLESS_IT_RUNS(env);
  for (size_t i = 0; i < count; ++i) object->properties[list[i].utf8name] = {list[i].value};
  return env->Fail(napi_ok);
}

napi_status napi_has_property(napi_env env, napi_value object, napi_value key, bool* result) {
  RETURN_UNLESS_IT_RUNS(env);
  *result = Find(object, key->text) != nullptr;
  return env->Fail(napi_ok);
}

napi_status napi_get_property(napi_env env, napi_value object, napi_value key, napi_value* result) {
  RETURN_UNLESS_IT_RUNS(env);
  *result = Find(object, key->text)->value;
  return env->Fail(napi_ok);
}

napi_status napi_create_error(napi_env env, napi_value, napi_value message, napi_value* result) {
  return MakeError(env, message, result);
}

napi_status napi_create_type_error(napi_env env, napi_value, napi_value message, napi_value* result) {
  return MakeError(env, message, result);
}

napi_status napi_throw(napi_env env, napi_value error) {
  RETURN_UNLESS_IT_RUNS(env);
  env->exception = error;
  return env->Fail(napi_ok);
}

napi_status napi_is_exception_pending(napi_env env, bool* result) {
  *result = env->exception != nullptr;
  return env->Fail(napi_ok);
}

napi_status napi_get_and_clear_last_exception(napi_env env, napi_value* result) {
  *result = env->exception == nullptr ? env->Make(napi_undefined) : env->exception;
  env->exception = nullptr;
  return env->Fail(napi_ok);
}

napi_status napi_get_last_error_info(node_api_basic_env env, const napi_extended_error_info** result) {
  *result = &env->last_error;
  return napi_ok;
}

void napi_fatal_error(const char* location, size_t, const char* message, size_t) {
  FUZZ_CHECK(false, "napi_fatal_error: %s: %s", location, message);
  std::abort();
}

NAPI_NEVER(napi_get_null, napi_env, napi_value*)
NAPI_NEVER(napi_create_double, napi_env, double, napi_value*)
NAPI_NEVER(napi_create_array_with_length, napi_env, size_t, napi_value*)
NAPI_NEVER(napi_create_arraybuffer, napi_env, size_t, void**, napi_value*)
NAPI_NEVER(napi_set_element, napi_env, napi_value, uint32_t, napi_value)
NAPI_NEVER(napi_set_named_property, napi_env, napi_value, const char*, napi_value)

}  // extern "C"
