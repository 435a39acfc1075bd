#pragma once

#include "device/kernel.h"

// The small ops of a decoder, over rows of f32. How many rows there are stands in device memory (`rows`), so that a
// captured launch serves any batch; strides are in elements. Accesses are of 16 bytes (of 8 to 16-bit rows) wherever
// four columns are aligned so, of single elements elsewhere. Grids are persistent: any number of blocks.

namespace openlora::elementwise {

inline constexpr int kThreads = 256;  // of a block, but for RmsNorm's
inline constexpr int kChunk = 1024;   // columns of a work item

// Norms hold a vector in registers: a block of NormThreads(dim) does in RmsNorm, a warp in HeadNorm.
inline constexpr int kNormThreadsMax = 1024;
inline constexpr int kNormQuads = 3;  // of four columns, at most, in a thread
inline constexpr int kHeadNormQuads = 4;
inline constexpr int kNormDimMax = kNormThreadsMax * kNormQuads * 4;
inline constexpr int kHeadNormDimMax = 32 * kHeadNormQuads * 4;
inline constexpr int kNormSharedBytes = 256;
#if !defined(__CUDACC__)
// Of a block of RmsNorm. The order of its sum follows from it: it depends on `dim` alone.
constexpr int NormThreads(int dim) {
  const int threads = (dim + 255) / 256 * 32;  // of two quads
  return threads < kNormThreadsMax ? threads : kNormThreadsMax;
}
#endif

inline constexpr float kRopeAngleMax = 0x1p21f;  // of RopeTable: position · inverse frequency

// out[i,:] = x[index[i],:], as f32 or rounded to 16 bits.
struct CopyRowsParams {
  const int32_t* rows;   // how many of `out`
  const int32_t* index;  // [rows], or null: row i
  int32_t columns;
  const float* x;
  int64_t x_stride;
  void* out;
  int64_t out_stride;
};

// out += scale * x
struct AddScaledParams {
  const int32_t* rows;
  int32_t columns;
  float scale;
  const float* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
};

// x = cap * tanh(x / cap)
struct SoftCapParams {
  const int32_t* rows;
  int32_t columns;
  float cap;  // > 0
  float* x;
  int64_t x_stride;
};

enum class Activation : int32_t {  // as in ops/ops.h
  kSilu,
  kGeluTanh,
};

// out = activation(gate) * up, in 16 bits
struct GatedActivationParams {
  const int32_t* rows;
  int32_t columns;
  Activation activation;
  const float* gate;
  int64_t gate_stride;
  const float* up;
  int64_t up_stride;
  void* out;
  int64_t out_stride;
};

// residual += scale * x, unless x is null; out = residual / sqrt(mean(residual²) + eps) * gain. `out` may be f32 in the
// memory of `residual`.
struct RmsNormParams {
  const int32_t* rows;
  int32_t dim;  // up to kNormDimMax
  float eps;
  const float* x;
  int64_t x_stride;
  float scale;
  float* residual;
  int64_t residual_stride;
  const float* gain;  // [dim]
  void* out;
  int64_t out_stride;
};

// The same norm in place, of each vector of `dim` of a row: groups[0] of them with gains[0], and behind them groups[1]
// with gains[1], as q and k stand in one row.
struct HeadNormParams {
  const int32_t* rows;
  int32_t dim;  // up to kHeadNormDimMax
  float eps;
  int32_t groups[2];
  const float* gains[2];  // [dim]
  float* x;
  int64_t x_stride;
};

// cos_sin[t] = `half` cosines, then as many sines, of the angle position * inv_freq[i] (an f32, up to kRopeAngleMax),
// both times the factor.
struct RopeTableParams {
  const int32_t* rows;
  const int32_t* row_pos;      // [T]
  const uint8_t* row_is_long;  // [T] or null
  const float* inv_freq;       // [half]
  const float* long_inv_freq;  // [half], where row_is_long isn't 0; null: inv_freq
  int32_t half;
  float factor;
  float* cos_sin;
  int64_t cos_sin_stride;
};

// Rotates pairs (i, i + half) of each head in place; the columns of a head behind 2 · half stay.
struct RopeParams {
  const int32_t* rows;
  int32_t heads;
  int32_t head_dim;
  int32_t half;
  const float* cos_sin;
  int64_t cos_sin_stride;
  float* x;
  int64_t x_stride;
};

}  // namespace openlora::elementwise

DEV_KERNEL(elementwise, CopyRowsF32, CopyRowsParams)
DEV_KERNEL(elementwise, CopyRowsBF16, CopyRowsParams)
DEV_KERNEL(elementwise, CopyRowsF16, CopyRowsParams)
DEV_KERNEL(elementwise, AddScaled, AddScaledParams)
DEV_KERNEL(elementwise, SoftCap, SoftCapParams)
DEV_KERNEL(elementwise, GatedActivationBF16, GatedActivationParams)
DEV_KERNEL(elementwise, GatedActivationF16, GatedActivationParams)
DEV_KERNEL(elementwise, RmsNormF32, RmsNormParams)
DEV_KERNEL(elementwise, RmsNormBF16, RmsNormParams)
DEV_KERNEL(elementwise, RmsNormF16, RmsNormParams)
DEV_KERNEL(elementwise, HeadNorm, HeadNormParams)
DEV_KERNEL(elementwise, RopeTable, RopeTableParams)
DEV_KERNEL(elementwise, Rope, RopeParams)
