#include "device/device.cuh"
#include "kernels/elementwise.h"

// Sums and products that a compiler could fuse are written as Fma, so that a value has one expression wherever it
// stands in a row.

namespace openlora::elementwise {

// Four columns of a row.
struct Quad {
  float v[4];
};

__device__ __forceinline__ bool IsAligned(const void* p, int bytes) {
  return reinterpret_cast<uint64_t>(p) % static_cast<uint64_t>(bytes) == 0;
}

// Of a quad, `count` columns (1 to 4); zeros behind them.
__device__ __forceinline__ Quad Load(const float* from, int count) {
  Quad quad;
  if (count == 4 && IsAligned(from, 16)) {
    const auto words = *reinterpret_cast<const dev::Vec16*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] = dev::BitsToFloat(words.w[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] = i < count ? from[i] : 0.0f;
  }
  return quad;
}

__device__ __forceinline__ void Store(float* to, const Quad& quad, int count) {
  if (count == 4 && IsAligned(to, 16)) {
    dev::Vec16 words;
#pragma unroll
    for (int i = 0; i < 4; ++i) words.w[i] = dev::FloatToBits(quad.v[i]);
    *reinterpret_cast<dev::Vec16*>(to) = words;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (i < count) to[i] = quad.v[i];
  }
}

// Rows of `void* out` as f32, bf16 or f16.
enum class Format { kF32, kBF16, kF16 };

template <Format format>
__device__ __forceinline__ void StoreAs(void* out, int64_t at, const Quad& quad, int count) {
  if constexpr (format == Format::kF32) {
    Store(static_cast<float*>(out) + at, quad, count);
  } else {
    dev::Vec8 pairs;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      pairs.w[i] = format == Format::kBF16 ? dev::PackBF16(quad.v[2 * i], quad.v[2 * i + 1])
                                           : dev::PackF16(quad.v[2 * i], quad.v[2 * i + 1]);
    uint16_t* const to = static_cast<uint16_t*>(out) + at;
    if (count == 4 && IsAligned(to, 8)) {
      *reinterpret_cast<dev::Vec8*>(to) = pairs;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (i < count) to[i] = static_cast<uint16_t>(pairs.w[i / 2] >> i % 2 * 16);
    }
  }
}

// body(row, column, count) for each quad of `rows` rows.
template <class Body>
__device__ __forceinline__ void ForQuads(int rows, int columns, const Body& body) {
  const int chunks = dev::CeilDiv(columns, kChunk);
  for (int item = dev::BlockIndex(); item < rows * chunks; item += dev::GridBlocks()) {
    const int column = item % chunks * kChunk + dev::ThreadIndex() * 4;
    if (column < columns) body(item / chunks, column, dev::Min(4, columns - column));
  }
}

template <Format format>
__device__ __forceinline__ void CopyRows(const CopyRowsParams& params) {
  ForQuads(*params.rows, params.columns, [&](int row, int column, int count) {
    const int64_t from = params.index != nullptr ? params.index[row] : row;
    const Quad quad = Load(params.x + from * params.x_stride + column, count);
    StoreAs<format>(params.out, row * params.out_stride + column, quad, count);
  });
}

__global__ void __launch_bounds__(kThreads) CopyRowsF32(const CopyRowsParams params) { CopyRows<Format::kF32>(params); }
__global__ void __launch_bounds__(kThreads) CopyRowsBF16(const CopyRowsParams params) {
  CopyRows<Format::kBF16>(params);
}
__global__ void __launch_bounds__(kThreads) CopyRowsF16(const CopyRowsParams params) { CopyRows<Format::kF16>(params); }

__global__ void __launch_bounds__(kThreads) AddScaled(const AddScaledParams params) {
  ForQuads(*params.rows, params.columns, [&](int row, int column, int count) {
    const Quad x = Load(params.x + row * params.x_stride + column, count);
    float* const out = params.out + row * params.out_stride + column;
    Quad sum = Load(out, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum.v[i] = dev::Fma(x.v[i], params.scale, sum.v[i]);
    Store(out, sum, count);
  });
}

// tanh(x) = 1 - 2 / (e^2x + 1): an error of a few 2⁻²⁴ of the cap, whatever x.
__global__ void __launch_bounds__(kThreads) SoftCap(const SoftCapParams params) {
  const float factor = 2.8853901f / params.cap;  // 2 · log2 e
  ForQuads(*params.rows, params.columns, [&](int row, int column, int count) {
    float* const at = params.x + row * params.x_stride + column;
    Quad quad = Load(at, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float tanh = 1.0f - 2.0f / (dev::Exp2(quad.v[i] * factor) + 1.0f);
      quad.v[i] = tanh * params.cap;
    }
    Store(at, quad, count);
  });
}

// Both are x / (1 + e^-z), for which nothing cancels; z = x, or 2 · sqrt(2/pi) · (x + 0.044715 x³). The factors are
// times log2 e. Where e^-z isn't finite the result is zero.
__device__ __forceinline__ float Activated(Activation activation, float x) {
  float factor = -1.44269504f;
  if (activation == Activation::kGeluTanh) factor = dev::Fma(x * x, -0.102943240f, -2.30220819f);
  return x / (1.0f + dev::Exp2(x * factor));
}

template <Format format>
__device__ __forceinline__ void GatedActivation(const GatedActivationParams& params) {
  ForQuads(*params.rows, params.columns, [&](int row, int column, int count) {
    Quad quad = Load(params.gate + row * params.gate_stride + column, count);
    const Quad up = Load(params.up + row * params.up_stride + column, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] = Activated(params.activation, quad.v[i]) * up.v[i];
    StoreAs<format>(params.out, row * params.out_stride + column, quad, count);
  });
}

__global__ void __launch_bounds__(kThreads) GatedActivationBF16(const GatedActivationParams params) {
  GatedActivation<Format::kBF16>(params);
}
__global__ void __launch_bounds__(kThreads) GatedActivationF16(const GatedActivationParams params) {
  GatedActivation<Format::kF16>(params);
}

// A thread's part of a vector of `dim` that `threads` hold.
struct Part {
  int dim;
  int threads;
  int thread;
};

// body(q, column, count) for each of its quads.
template <int quads, class Body>
__device__ __forceinline__ void ForPart(const Part& part, const Body& body) {
#pragma unroll
  for (int q = 0; q < quads; ++q) {
    const int column = (q * part.threads + part.thread) * 4;
    if (column < part.dim) body(q, column, dev::Min(4, part.dim - column));
  }
}

// A chain in each thread, by column; the lanes of a warp in pairs at distance 16, 8, 4, 2, 1.
template <int quads>
__device__ __forceinline__ float SumOfSquares(const Part& part, const Quad (&held)[quads]) {
  float sum = 0;
  ForPart<quads>(part, [&](int q, int, int) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum = dev::Fma(held[q].v[i], held[q].v[i], sum);
  });
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += dev::ShuffleXor(sum, lanes);
  return sum;
}

__device__ __forceinline__ Quad Scaled(const Quad& quad, float factor, const float* gain, int count) {
  const Quad by = Load(gain, count);
  Quad scaled;
#pragma unroll
  for (int i = 0; i < 4; ++i) scaled.v[i] = quad.v[i] * factor * by.v[i];
  return scaled;
}

struct alignas(128) NormShared {
  float sum[2][kNormThreadsMax / 32];  // of the warps; in turns, so that one barrier a row is enough
};
static_assert(sizeof(NormShared) == kNormSharedBytes);

template <Format format>
__device__ __forceinline__ void RmsNorm(const RmsNormParams& params) {
  auto& shared = dev::Shared<NormShared>();
  const int rows = *params.rows;
  const Part part = {params.dim, dev::BlockThreads(), dev::ThreadIndex()};
  int turn = 0;
  for (int row = dev::BlockIndex(); row < rows; row += dev::GridBlocks(), turn ^= 1) {
    float* const residual = params.residual + row * params.residual_stride;
    Quad held[kNormQuads];
    ForPart<kNormQuads>(part, [&](int q, int column, int count) { held[q] = Load(residual + column, count); });
    if (params.x != nullptr) {
      const float* const x = params.x + row * params.x_stride;
      ForPart<kNormQuads>(part, [&](int q, int column, int count) {
        const Quad added = Load(x + column, count);
#pragma unroll
        for (int i = 0; i < 4; ++i) held[q].v[i] = dev::Fma(added.v[i], params.scale, held[q].v[i]);
      });
      ForPart<kNormQuads>(part, [&](int q, int column, int count) { Store(residual + column, held[q], count); });
    }
    const float of_warp = SumOfSquares(part, held);
    if (dev::Lane() == 0) shared.sum[turn][dev::Warp()] = of_warp;
    dev::SyncBlock();
    float sum = 0;
    for (int w = 0; w < part.threads / 32; ++w) sum += shared.sum[turn][w];
    const float factor = dev::Rsqrt(sum / static_cast<float>(params.dim) + params.eps);
    ForPart<kNormQuads>(part, [&](int q, int column, int count) {
      const Quad scaled = Scaled(held[q], factor, params.gain + column, count);
      StoreAs<format>(params.out, row * params.out_stride + column, scaled, count);
    });
  }
}

__global__ void __launch_bounds__(kNormThreadsMax) RmsNormF32(const RmsNormParams params) {
  RmsNorm<Format::kF32>(params);
}
__global__ void __launch_bounds__(kNormThreadsMax) RmsNormBF16(const RmsNormParams params) {
  RmsNorm<Format::kBF16>(params);
}
__global__ void __launch_bounds__(kNormThreadsMax) RmsNormF16(const RmsNormParams params) {
  RmsNorm<Format::kF16>(params);
}

// A warp for each vector.
__global__ void __launch_bounds__(kThreads) HeadNorm(const HeadNormParams params) {
  const int groups = params.groups[0] + params.groups[1], count_all = *params.rows * groups;
  const int warps = kThreads / 32;
  const Part part = {params.dim, 32, dev::Lane()};
  for (int item = dev::BlockIndex() * warps + dev::Warp(); item < count_all; item += dev::GridBlocks() * warps) {
    const int row = item / groups, group = item % groups;
    float* const x = params.x + row * params.x_stride + group * params.dim;
    Quad held[kHeadNormQuads];
    ForPart<kHeadNormQuads>(part, [&](int q, int column, int count) { held[q] = Load(x + column, count); });
    const float sum = SumOfSquares(part, held);
    const float factor = dev::Rsqrt(sum / static_cast<float>(params.dim) + params.eps);
    const float* const gain = group < params.groups[0] ? params.gains[0] : params.gains[1];
    ForPart<kHeadNormQuads>(part, [&](int q, int column, int count) {
      Store(x + column, Scaled(held[q], factor, gain + column, count), count);
    });
  }
}

struct CosSin {
  float cos;
  float sin;
};

// Cody and Waite's reduction by pi/2 in three parts, and minimax polynomials on |r| <= 0.9; u = 2⁻²⁴. Up to 2²¹:
//   n = the nearest integer to angle · f32(2/pi), which is 2.6e-8 less than 2/pi: |r| <= pi/2 · (0.5 + 0.054) < 0.9
//   r: angle - n·pi/2's first part is a multiple of 2⁻²³ (2⁻²⁴ if angle < 1) and below 1: exact. The two further steps
//      round by u/2 each, being below 1; what is left out is below 1e-17.
//   sin: r's u, the polynomial's 0.17u, four roundings of r³·… <= 0.13: 0.5u, and the last one, u/2: 2.2u
//   cos: 0.8u, 0.02u, 0.4u of r² in r²/2, u/2 of 1 - r²/2, 0.1u of r⁴·…, and the last one, u/2: 2.4u
__device__ __forceinline__ CosSin CosSinOf(float angle) {
  const float shifted = dev::Fma(angle, 0x1.45f306p-1f, 0x1.8p23f);  // leaves n in the low bits
  const float n = shifted - 0x1.8p23f;
  float r = dev::Fma(n, -0x1.921fb6p+0f, angle);
  r = dev::Fma(n, 0x1.777a5cp-25f, r);
  r = dev::Fma(n, 0x1.ee59dap-50f, r);
  const float square = r * r;
  float p = dev::Fma(square, -0x1.969b9ap-13f, 0x1.10fd8ap-7f);
  p = dev::Fma(p, square, -0x1.555524p-3f);
  const float sin = dev::Fma(r * square, p, r);
  p = dev::Fma(square, 0x1.981e82p-16f, -0x1.6c0534p-10f);
  p = dev::Fma(p, square, 0x1.55553ep-5f);
  const float cos = dev::Fma(square * square, p, dev::Fma(square, -0.5f, 1.0f));
  const uint32_t quadrant = dev::FloatToBits(shifted) & 3;
  CosSin result = {quadrant % 2 == 0 ? cos : sin, quadrant % 2 == 0 ? sin : cos};
  if (quadrant == 1 || quadrant == 2) result.cos = -result.cos;
  if (quadrant >= 2) result.sin = -result.sin;
  return result;
}

__global__ void __launch_bounds__(kThreads) RopeTable(const RopeTableParams params) {
  const int count = *params.rows * params.half;
  for (int item = dev::BlockIndex() * kThreads + dev::ThreadIndex(); item < count;
       item += dev::GridBlocks() * kThreads) {
    const int row = item / params.half, i = item % params.half;
    const bool is_long = params.long_inv_freq != nullptr && params.row_is_long != nullptr && params.row_is_long[row];
    const float* const inv_freq = is_long ? params.long_inv_freq : params.inv_freq;
    const CosSin of_angle = CosSinOf(static_cast<float>(params.row_pos[row]) * inv_freq[i]);
    float* const to = params.cos_sin + row * params.cos_sin_stride + i;
    to[0] = of_angle.cos * params.factor;
    to[params.half] = of_angle.sin * params.factor;
  }
}

__global__ void __launch_bounds__(kThreads) Rope(const RopeParams params) {
  const int quads = dev::CeilDiv(params.half, 4), items = *params.rows * params.heads * quads;
  for (int item = dev::BlockIndex() * kThreads + dev::ThreadIndex(); item < items;
       item += dev::GridBlocks() * kThreads) {
    const int vector = item / quads, row = vector / params.heads, head = vector % params.heads;
    const int column = item % quads * 4, count = dev::Min(4, params.half - column);
    float* const x = params.x + row * params.x_stride + head * params.head_dim + column;
    const float* const of_row = params.cos_sin + row * params.cos_sin_stride + column;
    const Quad cos = Load(of_row, count), sin = Load(of_row + params.half, count);
    const Quad low = Load(x, count), high = Load(x + params.half, count);
    Quad rotated_low, rotated_high;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      rotated_low.v[i] = dev::Fma(low.v[i], cos.v[i], -(high.v[i] * sin.v[i]));
      rotated_high.v[i] = dev::Fma(high.v[i], cos.v[i], low.v[i] * sin.v[i]);
    }
    Store(x, rotated_low, count);
    Store(x + params.half, rotated_high, count);
  }
}

}  // namespace openlora::elementwise
