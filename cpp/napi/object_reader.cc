#include <cmath>

#include "napi/marshal.h"

namespace openlora {

void ObjectReader::Refuse(const char* name, const char* wanted) {
  if (ok()) error_ = PathOf(name) + " must be " + wanted;
}

Napi::Value ObjectReader::Get(const char* name) {
  const Napi::Value value = object_.Get(name);
  NotePending(name);
  return ok() ? value : Napi::Value();
}

void ObjectReader::NotePending(const char* name) {
  if (ok() && object_.Env().IsExceptionPending()) error_ = PathOf(name) + " threw";
}

double ObjectReader::Number(const char* name) {
  const Napi::Value value = ok() ? Get(name) : Napi::Value();
  if (ok() && !value.IsNumber()) Refuse(name, "a number");
  return ok() ? value.As<Napi::Number>().DoubleValue() : 0;
}

int64_t ObjectReader::Integer(const char* name) {
  const double value = Number(name);
  if (ok() && (std::floor(value) != value || std::fabs(value) > 9007199254740991.0)) Refuse(name, "a safe integer");
  return ok() ? static_cast<int64_t>(value) : 0;
}

int32_t ObjectReader::Int32(const char* name) {
  const int64_t value = Integer(name);
  if (ok() && (value < INT32_MIN || value > INT32_MAX)) Refuse(name, "a 32-bit integer");
  return ok() ? static_cast<int32_t>(value) : 0;
}

bool ObjectReader::Bool(const char* name) {
  const Napi::Value value = ok() ? Get(name) : Napi::Value();
  if (ok() && !value.IsBoolean()) Refuse(name, "a boolean");
  return ok() && value.As<Napi::Boolean>().Value();
}

std::string ObjectReader::String(const char* name) {
  const Napi::Value value = ok() ? Get(name) : Napi::Value();
  if (ok() && !value.IsString()) Refuse(name, "a string");
  return ok() ? value.As<Napi::String>().Utf8Value() : std::string();
}

DType ObjectReader::DTypeOf(const char* name) {
  const std::string value = String(name);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (value == NameOf(dtype)) return dtype;
  }
  Refuse(name, "f32, f16 or bf16");
  return DType::kF32;
}

DType ObjectReader::HeldDTypeOf(const char* name) {
  const std::string value = String(name);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8}) {
    if (value == NameOf(dtype)) return dtype;
  }
  Refuse(name, "f32, f16, bf16 or int8");
  return DType::kF32;
}

WeightFormat ObjectReader::WeightFormatOf(const char* name) {
  const std::string value = String(name);
  for (const auto kind : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16, WeightFormat::kInt8,
                          WeightFormat::kInt4, WeightFormat::kBF16Dot}) {
    if (value == NameOf(WeightFormat(kind))) return kind;
  }
  Refuse(name, "f32, f16, bf16, int8, int4 or bf16-dot");
  return WeightFormat::kF32;
}

ObjectReader ObjectReader::Object(const char* name) {
  const Napi::Value value = ok() ? Get(name) : Napi::Value();
  if (ok() && !value.IsObject()) Refuse(name, "an object");
  ObjectReader part(ok() ? value.As<Napi::Object>() : Napi::Object::New(object_.Env()), PathOf(name));
  part.error_ = error_;
  return part;
}

std::vector<std::string> ObjectReader::Strings(const char* name) {
  std::vector<std::string> strings;
  ForEach(name, [&](uint32_t, const Napi::Value& value) {
    if (!value.IsString()) return Refuse(name, "an array of strings");
    strings.push_back(value.As<Napi::String>().Utf8Value());
  });
  return strings;
}

std::vector<int32_t> ObjectReader::Int32s(const char* name) {
  std::vector<int32_t> values;
  ForEach(name, [&](uint32_t, const Napi::Value& value) {
    const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
    if (std::floor(number) != number || number < INT32_MIN || number > INT32_MAX)
      return Refuse(name, "an array of 32-bit integers");
    values.push_back(static_cast<int32_t>(number));
  });
  return values;
}

template <typename T>
std::span<const T> ObjectReader::Borrowed(const char* name, Napi::ObjectReference* owner) {
  const Napi::Value value = ok() ? Get(name) : Napi::Value();
  constexpr napi_typedarray_type kType = std::is_same_v<T, uint8_t>    ? napi_uint8_array
                                         : std::is_same_v<T, uint32_t> ? napi_uint32_array
                                         : std::is_same_v<T, double>   ? napi_float64_array
                                                                       : napi_float32_array;
  if (ok() && (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != kType))
    Refuse(name, "a typed array of its declared kind");
  if (!ok()) return {};
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  if (owner != nullptr) *owner = Napi::Persistent(value.As<Napi::Object>());
  const size_t length = array.ElementLength();
  // Null where the buffer was detached.
  return {length == 0 ? nullptr : array.Data(), length};
}

template <typename T>
std::vector<T> ObjectReader::Typed(const char* name) {
  const std::span<const T> elements = Borrowed<T>(name, nullptr);
  return {elements.begin(), elements.end()};
}

template std::span<const uint8_t> ObjectReader::Borrowed(const char*, Napi::ObjectReference*);
template std::span<const uint32_t> ObjectReader::Borrowed(const char*, Napi::ObjectReference*);
template std::vector<uint8_t> ObjectReader::Typed(const char*);
template std::vector<uint32_t> ObjectReader::Typed(const char*);
template std::vector<float> ObjectReader::Typed(const char*);
template std::vector<double> ObjectReader::Typed(const char*);

}  // namespace openlora
