#pragma once

#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "fuzz/napi_stub.h"

// The wire types of src/native/binding.ts once more: which objects are sound, and what they hold.

namespace openlora::fuzz {

enum class Type : uint8_t {
  kNumber,  // any, kept as it is
  kFloat,   // any, kept as f32
  kInt32,
  kLong,  // a safe integer
  kSeed,  // one that is not negative
  kId,    // in [1, 2^32)
  kEnum,  // of a table: 0 to names - 1
  kBool,
  kText,
  kName,    // one of `names`
  kTexts,   // an array of them
  kStops,   // none of them empty
  kInt32s,  // a plain array
  kBytes,
  kWords,
  kTokens,  // words; one beyond 2^31 is kept as -1, which no vocabulary has
  kFloats,
  kTable,    // a Float64Array of rows, whose columns are `fields`
  kObject,   // with `fields`
  kObjects,  // an array of them
};

struct Field {
  const char* name;
  Type type;
  std::vector<const char*> names = {};
  std::vector<Field> fields = {};
};
using Fields = std::vector<Field>;

// A struct's content or an object's, value by value: equal if the lists are.
class Content {
 public:
  void Whole(int64_t value) { values_.push_back(std::to_string(value)); }
  void Real(double value) { values_.push_back("d" + std::to_string(std::bit_cast<uint64_t>(value))); }
  void Float(float value) { values_.push_back("f" + std::to_string(std::bit_cast<uint32_t>(value))); }
  void Text(const std::string& value) { values_.push_back("'" + value); }
  void Texts(const std::vector<std::string>& values) {
    Whole(static_cast<int64_t>(values.size()));
    for (const std::string& value : values) Text(value);
  }
  template <typename List>
  void Wholes(const List& values) {
    Whole(static_cast<int64_t>(values.size()));
    for (const auto value : values) Whole(value);
  }
  void Floats(const std::vector<float>& values) {
    Whole(static_cast<int64_t>(values.size()));
    for (const float value : values) Float(value);
  }
  void CheckEqual(const Content& other) const {
    for (size_t i = 0; i < std::max(values_.size(), other.values_.size()); ++i) {
      const std::string one = i < values_.size() ? values_[i] : "nothing";
      const std::string two = i < other.values_.size() ? other.values_[i] : "nothing";
      FUZZ_CHECK(one == two, "value %zu is %s, of the object %s", i, one.c_str(), two.c_str());
    }
  }

 private:
  std::vector<std::string> values_;
};

template <typename T>
std::vector<T> ElementsOf(napi_value typed) {
  std::vector<T> elements(typed->length);
  if (!elements.empty()) std::memcpy(elements.data(), typed->data, typed->length * sizeof(T));
  return elements;
}

// What an object holds by its fields, and what is wrong with it.
class Model {
 public:
  Model(napi_value object, const Fields& fields, const std::string& path) { ReadObject(object, fields, path); }

  // The beginnings of errors, any of which may be reported; empty: the object is sound.
  std::set<std::string> faults;
  // Whose values alone are a fault: nothing is read after the first of them.
  std::set<const Slot*> faulty;
  // Everything but the tables, in the order of the fields.
  Content content;
  // By path; those that have whole rows, whatever is in them.
  std::map<std::string, std::vector<std::vector<double>>> tables;
  // By path: how long the arrays and typed arrays are that are what they should be.
  std::map<std::string, size_t> lengths;

  void Refuse(const std::string& path) { faults.insert(path + " must be "); }
  bool Explains(const std::string& error) const {
    return std::any_of(faults.begin(), faults.end(), [&](const std::string& fault) {
      return fault.ends_with(" threw") ? error == fault : error.starts_with(fault);
    });
  }

 private:
  void ReadObject(napi_value object, const Fields& fields, const std::string& path) {
    for (const Field& field : fields) {
      const auto found = object->properties.find(field.name);
      const Slot* slot = found == object->properties.end() ? nullptr : &found->second;
      const std::string place = path + "." + field.name;
      if (!CanRead(slot, place)) continue;
      if (slot == nullptr || slot->value == nullptr || !ReadValue(slot->value, field, place)) RefuseSlot(slot, place);
    }
  }
  // Notes what a getter does in its place.
  bool CanRead(const Slot* slot, const std::string& path) {
    if (slot == nullptr || slot->getter == Getter::kNone) return true;
    if (slot->getter == Getter::kEnds) {
      RefuseSlot(slot, path);
    } else {
      faults.insert(path + " threw");
      faulty.insert(slot);
    }
    return false;
  }
  void RefuseSlot(const Slot* slot, const std::string& path) {
    Refuse(path);
    if (slot != nullptr) faulty.insert(slot);
  }

  static bool IsWhole(double value, double low, double high) {
    return value >= low && value <= high && value == std::trunc(value);
  }
  static bool IsSound(double value, const Field& field) {
    constexpr double kSafe = 9007199254740991.0;
    switch (field.type) {
      case Type::kInt32:
        return IsWhole(value, -2147483648.0, 2147483647.0);
      case Type::kLong:
        return IsWhole(value, -kSafe, kSafe);
      case Type::kSeed:
        return IsWhole(value, 0, kSafe);
      case Type::kId:
        return IsWhole(value, 1, 4294967295.0);
      case Type::kEnum:
        return IsWhole(value, 0, static_cast<double>(field.names.size()) - 1);
      default:
        return true;
    }
  }

  // False unless the value itself is of its type; what is wrong inside it is noted.
  bool ReadValue(napi_value value, const Field& field, const std::string& path) {
    switch (field.type) {
      case Type::kNumber:
      case Type::kFloat:
      case Type::kInt32:
      case Type::kLong:
      case Type::kSeed:
      case Type::kId:
        return ReadNumber(value, field);
      case Type::kBool:
        content.Whole(value->boolean ? 1 : 0);
        return value->type == napi_boolean;
      case Type::kText:
        content.Text(value->text);
        return value->type == napi_string;
      case Type::kName:
        content.Text(value->text);
        return value->type == napi_string && std::any_of(field.names.begin(), field.names.end(),
                                                         [&](const char* name) { return value->text == name; });
      case Type::kObject:
        if (value->IsObject()) ReadObject(value, field.fields, path);
        return value->IsObject();
      case Type::kTexts:
      case Type::kStops:
      case Type::kInt32s:
      case Type::kObjects:
        return ReadArray(value, field, path);
      default:
        return ReadTyped(value, field, path);
    }
  }
  bool ReadNumber(napi_value value, const Field& field) {
    if (value->type != napi_number || !IsSound(value->number, field)) return false;
    if (field.type == Type::kNumber) {
      content.Real(value->number);
    } else if (field.type == Type::kFloat) {
      content.Float(static_cast<float>(value->number));
    } else {
      content.Whole(static_cast<int64_t>(value->number));
    }
    return true;
  }
  bool ReadArray(napi_value value, const Field& field, const std::string& path) {
    if (value->shape != napi_value__::Shape::kArray) return false;
    content.Whole(static_cast<int64_t>(value->length));
    lengths[path] = value->length;
    for (size_t i = 0; i < value->length; ++i) {
      const Slot* slot = i < value->elements.size() ? &value->elements[i] : nullptr;
      if (!CanRead(slot, path)) continue;
      if (slot == nullptr || slot->value == nullptr || !ReadElement(slot->value, field, path, i))
        RefuseSlot(slot, path);
      if (slot == nullptr) break;  // and so on, perhaps four billion times
    }
    return true;
  }
  bool ReadElement(napi_value element, const Field& field, const std::string& path, size_t i) {
    if (field.type == Type::kInt32s) return ReadNumber(element, {nullptr, Type::kInt32});
    if (field.type == Type::kObjects) {
      if (element->IsObject()) ReadObject(element, field.fields, path + "[" + std::to_string(i) + "]");
      return element->IsObject();
    }
    content.Text(element->text);
    // An empty stop string is seen when all are read.
    if (field.type == Type::kStops && element->text.empty()) Refuse(path);
    return element->type == napi_string;
  }
  bool ReadTyped(napi_value value, const Field& field, const std::string& path) {
    const napi_typedarray_type kind = field.type == Type::kBytes    ? napi_uint8_array
                                      : field.type == Type::kWords  ? napi_uint32_array
                                      : field.type == Type::kTokens ? napi_uint32_array
                                      : field.type == Type::kFloats ? napi_float32_array
                                                                    : napi_float64_array;
    if (value->shape != napi_value__::Shape::kTyped || value->kind != kind) return false;
    lengths[path] = value->length;
    if (field.type == Type::kTable) return ReadTable(ElementsOf<double>(value), field.fields, path);
    if (field.type == Type::kBytes) content.Wholes(ElementsOf<uint8_t>(value));
    if (field.type == Type::kWords) content.Wholes(ElementsOf<uint32_t>(value));
    if (field.type == Type::kTokens) {
      std::vector<int64_t> tokens;
      for (const uint32_t token : ElementsOf<uint32_t>(value))
        tokens.push_back(token < 0x80000000 ? int64_t{token} : -1);
      content.Wholes(tokens);
    }
    if (field.type == Type::kFloats) content.Floats(ElementsOf<float>(value));
    return true;
  }
  bool ReadTable(const std::vector<double>& numbers, const Fields& columns, const std::string& path) {
    if (numbers.size() % columns.size() != 0) return false;
    auto& rows = tables[path];
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (i % columns.size() == 0) rows.emplace_back();
      rows.back().push_back(numbers[i]);
      const Field& column = columns[i % columns.size()];
      if (!IsSound(numbers[i], column)) Refuse(path + "[" + std::to_string(rows.size() - 1) + "]." + column.name);
    }
    return true;
  }
};

}  // namespace openlora::fuzz
