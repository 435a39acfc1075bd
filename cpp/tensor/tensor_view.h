#pragma once

#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

namespace openlora {

// A matrix in the memory of the device that computes; owns nothing. Row r begins at data + r * stride elements.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* f32(int64_t row = 0) const { return static_cast<float*>(data) + row * stride; }
};

inline TensorView F32View(float* data, int64_t rows, int64_t cols) { return {data, DType::kF32, rows, cols, cols}; }

// The same with the data read-only, and possibly not aligned: a tensor inside a checkpoint file.
struct SourceView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;  // rows are contiguous
};

inline float LoadUnaligned(const SourceView& source, int64_t index) {
  const size_t size = SizeOf(source.dtype);
  alignas(4) unsigned char bits[4] = {};
  std::memcpy(bits, static_cast<const unsigned char*>(source.data) + static_cast<size_t>(index) * size, size);
  return LoadAsFloat(bits, source.dtype, 0);
}

}  // namespace openlora
