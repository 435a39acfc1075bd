#pragma once

#include "fuzz/marshal_model.h"

// Objects of the addon's boundary out of a fuzzer's bytes: sound ones, then spoilt.

namespace openlora::fuzz {

class Objects {
 public:
  Objects(napi_env env, FuzzInput* input) : env_(env), input_(input) {}

  napi_value Build(const Fields& fields) {
    const napi_value object = env_->Object();
    for (const Field& field : fields) object->properties[field.name] = {Value(field)};
    return object;
  }
  // A typed array whose elements are any.
  napi_value Typed(napi_typedarray_type kind, size_t length) {
    const napi_value typed = env_->Typed(kind, length);
    for (size_t i = 0; i < length * BytesOf(kind); ++i) typed->data[i] = input_->Byte();
    if (length == 0) typed->data = input_->Bool() ? nullptr : reinterpret_cast<uint8_t*>(uintptr_t{8});
    return typed;
  }
  napi_value Table(const Fields& columns, size_t rows) {
    const napi_value table = env_->Typed(napi_float64_array, rows * columns.size());
    for (size_t i = 0; i < table->length; ++i) SetCell(table, i, Number(columns[i % columns.size()]));
    return table;
  }
  static void SetCell(napi_value table, size_t at, double value) {
    std::memcpy(table->data + at * sizeof(value), &value, sizeof(value));
  }
  static void Append(napi_value array, napi_value element) {
    array->elements.push_back({element});
    array->length = array->elements.size();
  }
  napi_value Texts(size_t count) {
    const napi_value array = env_->Array();
    while (array->length < count) Append(array, env_->Text(input_->Text(6)));
    return array;
  }

  // Changes something somewhere below `object`.
  void Spoil(napi_value object) {
    std::vector<Slot*> slots;
    Collect(object, &slots);
    if (slots.empty()) return;
    Slot* slot = slots[input_->Any<uint16_t>() % slots.size()];
    switch (input_->Byte() % 8) {
      case 0:
        slot->value = Odd();
        slot->getter = Getter::kThrows;
        return;
      case 1:
        slot->getter = Getter::kEnds;
        return;
      case 2:
        slot->value = nullptr;
        return;
      case 3:
      case 4:
        slot->value = Odd();
        return;
      case 5:
        return Resize(slot);
      default:
        return Change(slot);
    }
  }

 private:
  double Number(const Field& field) {
    const bool is_any = input_->OneIn(8);
    switch (field.type) {
      case Type::kInt32:
        return is_any ? input_->Any<int32_t>() : input_->Range(-1, 99);
      case Type::kLong:
        return static_cast<double>(is_any ? input_->Any<int64_t>() / 1024 : input_->Range(0, 99));
      case Type::kSeed:
        return static_cast<double>(is_any ? input_->Any<uint64_t>() / 2048 : uint64_t{input_->Byte()});
      case Type::kId:
        return is_any ? std::max<uint32_t>(1, input_->Any<uint32_t>()) : input_->Range(1, 99);
      case Type::kEnum:
        return input_->Range(0, static_cast<int32_t>(field.names.size()) - 1);
      default:
        return is_any ? input_->Any<double>() : input_->Range(-9, 99) / 8.0;
    }
  }
  napi_value Value(const Field& field) {
    switch (field.type) {
      case Type::kBool:
        return Bool(input_->Bool());
      case Type::kText:
        return env_->Text(input_->Text(6));
      case Type::kName:
        return env_->Text(field.names[input_->Byte() % field.names.size()]);
      case Type::kTexts:
        return Texts(Count());
      case Type::kBytes:
        return Typed(napi_uint8_array, Count());
      case Type::kWords:
      case Type::kTokens:
        return Typed(napi_uint32_array, Count());
      case Type::kFloats:
        return Typed(napi_float32_array, Count());
      case Type::kTable:
        return Table(field.fields, Count());
      case Type::kObject:
        return Build(field.fields);
      case Type::kStops:
      case Type::kInt32s:
      case Type::kObjects:
        return Array(field);
      default:
        return env_->Number(Number(field));
    }
  }
  size_t Count() { return static_cast<size_t>(input_->Range(0, 3)); }
  napi_value Bool(bool is_true) {
    const napi_value value = env_->Make(napi_boolean);
    value->boolean = is_true;
    return value;
  }
  napi_value Array(const Field& field) {
    const napi_value array = env_->Array();
    for (size_t count = Count(); count > 0; --count)
      Append(array, field.type == Type::kStops    ? env_->Text("s" + input_->Text(4))
                    : field.type == Type::kInt32s ? env_->Number(Number({nullptr, Type::kInt32}))
                                                  : Build(field.fields));
    return array;
  }

  double OddNumber() {
    constexpr double kOdd[] = {0,
                               -0.0,
                               -1,
                               0.5,
                               std::numeric_limits<double>::quiet_NaN(),
                               std::numeric_limits<double>::infinity(),
                               -std::numeric_limits<double>::infinity(),
                               2147483647.0,
                               2147483648.0,
                               -2147483649.0,
                               4294967295.0,
                               4294967296.0,
                               9007199254740991.0,
                               9007199254740992.0,
                               -9007199254740992.0,
                               9223372036854775808.0,
                               1e300};
    return input_->OneIn(3) ? input_->Any<double>() : input_->Pick(kOdd);
  }
  // What a property can be, whatever it should be.
  napi_value Odd() {
    constexpr napi_valuetype kPlain[] = {napi_undefined, napi_null,     napi_symbol,
                                         napi_bigint,    napi_function, napi_object};
    constexpr napi_typedarray_type kKinds[] = {napi_uint8_array,   napi_uint8_clamped_array, napi_int16_array,
                                               napi_int32_array,   napi_uint32_array,        napi_float32_array,
                                               napi_float64_array, napi_biguint64_array,     napi_uint16_array};
    switch (input_->Byte() % 8) {
      case 0:
      case 1:
        return env_->Make(input_->Pick(kPlain));
      case 2:
        return Bool(input_->Bool());
      case 3:
        return env_->Number(OddNumber());
      case 4:
        return env_->Text(input_->Bool() ? "f32" : input_->Text(6));
      case 5: {
        const napi_value array = env_->Array();
        if (input_->Bool()) Append(array, input_->Bool() ? env_->Object() : env_->Number(OddNumber()));
        if (input_->OneIn(3)) array->length = 0xFFFFFFFF;
        return array;
      }
      default: {
        const napi_typedarray_type kind = input_->Pick(kKinds);
        return Typed(kind, Count());
      }
    }
  }
  static void Collect(napi_value value, std::vector<Slot*>* slots) {
    const auto add = [slots](Slot* slot) {
      slots->push_back(slot);
      if (slot->value != nullptr) Collect(slot->value, slots);
    };
    for (auto& [name, slot] : value->properties) add(&slot);
    for (Slot& slot : value->elements) add(&slot);
  }
  void Resize(Slot* slot) {
    const napi_value old = slot->value;
    if (old == nullptr) return;
    if (old->shape == napi_value__::Shape::kTyped) {
      // A copy of the beginning, zeros behind it; none of it: as if it were detached.
      const napi_value typed = env_->Typed(old->kind, input_->Byte() % 20);
      std::copy_n(old->data, std::min(old->length, typed->length) * BytesOf(old->kind), typed->data);
      slot->value = typed;
    } else if (old->shape == napi_value__::Shape::kArray && input_->Bool()) {
      old->length = std::min<size_t>(old->length + input_->Byte() % 3, 0xFFFFFFFF);  // as JavaScript's are
    } else if (old->shape == napi_value__::Shape::kArray && !old->elements.empty()) {
      old->elements.pop_back();
      old->length = old->elements.size();
    }
  }
  // One number, or one byte of a typed array, or a letter.
  void Change(Slot* slot) {
    const napi_value value = slot->value;
    if (value == nullptr) return;
    if (value->type == napi_number) {
      value->number = OddNumber();
    } else if (value->type == napi_string) {
      value->text = input_->Text(8);
    } else if (value->shape == napi_value__::Shape::kTyped && value->length > 0) {
      const size_t at = input_->Byte() % value->length;
      if (value->kind == napi_float64_array) {
        SetCell(value, at, OddNumber());
      } else {
        value->data[at] = input_->Byte();
      }
    }
  }

  napi_env env_;
  FuzzInput* input_;
};

}  // namespace openlora::fuzz
