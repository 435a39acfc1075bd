#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "napi/marshal.h"
#include "tensor/tensor_range.h"

namespace openlora {

// The rows of a Table (src/native/binding.ts): Next, then the columns in their order. The first number that doesn't fit
// is refused on the parent, and there is no row after it.
class TableReader {
 public:
  TableReader(ObjectReader* parent, const char* name, size_t width)
      : parent_(parent), name_(name), width_(width), numbers_(parent->Typed<double>(name)) {
    if (numbers_.size() % width_ != 0) parent_->Refuse(name_, "a table of whole rows");
  }

  size_t rows() const { return numbers_.size() / width_; }
  size_t row() const { return next_row_ - 1; }

  bool Next() {
    at_ = next_row_ * width_;
    return parent_->ok() && next_row_++ < rows();
  }

  double Number() { return numbers_[at_++]; }
  int64_t Integer(const char* column) {
    const double value = Number();
    if (std::floor(value) == value && std::fabs(value) <= 9007199254740991.0) return static_cast<int64_t>(value);
    Refuse(column, "a safe integer");
    return 0;
  }
  int32_t Int32(const char* column) {
    const int64_t value = Integer(column);
    if (value >= INT32_MIN && value <= INT32_MAX) return static_cast<int32_t>(value);
    Refuse(column, "a 32-bit integer");
    return 0;
  }
  // An Enum whose values are 0 to count - 1.
  template <typename Enum>
  Enum EnumOf(const char* column, int32_t count) {
    const int32_t value = Int32(column);
    if (value >= 0 && value < count) return static_cast<Enum>(value);
    Refuse(column, "one of its numbers");
    return static_cast<Enum>(0);
  }
  TensorRange Range() {
    TensorRange range;
    range.file = Int32("file");
    range.offset = Integer("offset");
    range.bytes = Integer("bytes");
    range.dtype = EnumOf<DType>("dtype", 3);
    range.rows = Integer("rows");
    range.cols = Integer("cols");
    return range;
  }

  void Refuse(const char* column, const char* wanted) {
    parent_->Refuse((std::string(name_) + "[" + std::to_string(row()) + "]." + column).c_str(), wanted);
  }

 private:
  ObjectReader* parent_;
  const char* name_;
  size_t width_;
  std::vector<double> numbers_;
  size_t next_row_ = 0;
  size_t at_ = 0;
};

}  // namespace openlora
