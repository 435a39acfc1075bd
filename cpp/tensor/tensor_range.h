#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "tensor/dtype.h"

namespace openlora {

// A contiguous row-major matrix in a file, as TypeScript read it from a safetensors header; checked again here.
struct TensorRange {
  int32_t file = 0;
  int64_t offset = 0;
  int64_t bytes = 0;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

inline constexpr char kErrTensorRange[] = "ERR_TENSOR_RANGE";

// ERR_TENSOR_RANGE unless the shape gives `bytes` and the range lies inside a file of `file_size` bytes.
Status CheckRange(const TensorRange& range, int64_t file_size, const std::string& path);

}  // namespace openlora
