#pragma once

#include "tensor/dtype.h"

namespace openlora {

// How a matrix of the base is stored and multiplied. In a DType, by x as it is; quantised, by x quantised
// (ops/int8_format.h, ops/int4_format.h); or in bf16, by x rounded to bf16 (ops/bf16_dot.h). Files, adapters and KV
// have a DType.
struct WeightFormat {
  enum Kind : uint8_t { kF32, kF16, kBF16, kInt8, kInt4, kBF16Dot };

  constexpr WeightFormat(Kind which) : kind(which) {}
  constexpr WeightFormat(DType dtype) : kind(static_cast<Kind>(dtype)) {}  // every DType is one
  constexpr bool operator==(const WeightFormat&) const = default;
  constexpr bool is_quantised() const { return kind == kInt8 || kind == kInt4; }
  constexpr bool has_own_x() const { return kind >= kInt8; }  // doesn't multiply x as it is
  // Of one that isn't quantised.
  constexpr DType dtype() const { return kind == kBF16Dot ? DType::kBF16 : static_cast<DType>(kind); }

  Kind kind;
};
static_assert(WeightFormat(DType::kF16).kind == WeightFormat::kF16 &&
              WeightFormat(DType::kBF16).kind == WeightFormat::kBF16 &&
              WeightFormat(DType::kI8).kind == WeightFormat::kInt8);

constexpr const char* NameOf(WeightFormat format) {
  if (format == WeightFormat::kBF16Dot) return "bf16-dot";
  if (!format.is_quantised()) return NameOf(format.dtype());
  return format == WeightFormat::kInt8 ? "int8" : "int4";
}

}  // namespace openlora
