#pragma once

#include "tensor/dtype.h"

namespace openlora {

// How a matrix of the base is stored: in a DType, or quantised. Files, adapters and KV have a DType.
struct WeightFormat {
  enum Kind : uint8_t { kF32, kF16, kBF16, kInt8, kInt4 };

  constexpr WeightFormat(Kind which) : kind(which) {}
  constexpr WeightFormat(DType dtype) : kind(static_cast<Kind>(dtype)) {}  // every DType is one
  constexpr bool operator==(const WeightFormat&) const = default;
  constexpr bool is_quantised() const { return kind >= kInt8; }
  constexpr DType dtype() const { return static_cast<DType>(kind); }  // of one that isn't quantised

  Kind kind;
};
static_assert(WeightFormat(DType::kF16).kind == WeightFormat::kF16 &&
              WeightFormat(DType::kBF16).kind == WeightFormat::kBF16);

constexpr const char* NameOf(WeightFormat format) {
  if (!format.is_quantised()) return NameOf(format.dtype());
  return format == WeightFormat::kInt8 ? "int8" : "int4";
}

}  // namespace openlora
