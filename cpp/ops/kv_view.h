#pragma once

#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/weight_format.h"

namespace openlora {

// Beside a frame of `tokens` tokens.
constexpr int64_t KvScaleBytes(DType dtype, int32_t kv_heads, int32_t tokens) {
  return dtype == DType::kI8 ? int64_t{2} * kv_heads * tokens * static_cast<int64_t>(sizeof(uint16_t)) : 0;
}

// Whether attention multiplies bf16 by bf16 (KvView::has_bf16_dots): beside weights whose products round x anyway.
// Pairs need an even head_dim, and a frame of two tokens at least.
constexpr bool HasBF16Dots(WeightFormat base, DType kv, int32_t head_dim, int32_t frame_tokens) {
  return base.has_own_x() && kv == DType::kBF16 && head_dim % 2 == 0 && frame_tokens % 2 == 0;
}

// The paged KV cache of a batch. A frame holds one layer's K and V of `frame_tokens` consecutive tokens of one
// sequence; what stands where within a frame is the ops' own business. V slots that were never written are zero,
// unless the ops need no such thing.
//
// int8: K and V of one (token, KV head) are one row of head_dim each, quantised by itself:
//   scale = largest |v| / 127, rounded to f32, then up to the next bf16
//   q     = v / scale, rounded to f32, then to the nearest integer, ties to even: -127 to 127
// A scale of zero has q = 0; a row with a NaN or an infinity has the scale NaN. q stands in the frame as the elements
// of the other dtypes do, the scales beside it: frames are powers of two, and one that held both would be twice as
// large.
//
// has_bf16_dots: q and the softmax's weights are rounded to bf16, for dots as in ops/bf16_dot.h:
//   q'  = q * (scale * log2 e), rounded to f32, then to bf16; denormals of either are zero
//   s   = the dot of q' and k over head_dim; a cap is times log2 e as well
//   p   = 2^(s - max), rounded to bf16
//   out = the dots of p and v over tokens, in pairs of positions 2i and 2i + 1; an output is divided by the sum of the
//         rounded p. What a row doesn't see of a pair is zero, K, V and p: it may be a NaN.
struct KvView {
  uint8_t* pool = nullptr;
  int64_t frame_bytes = 0;
  int32_t frame_tokens = 0;
  DType dtype = DType::kF32;
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  // CSR over the sequences of the batch: the frame of (sequence s, block b, layer l) is
  // table[table_begin[s] + b * layers + l]; block b holds positions [b * frame_tokens, (b + 1) * frame_tokens).
  const uint32_t* table = nullptr;
  const int64_t* table_begin = nullptr;
  // int8: of frame f, scale_bytes at scales + f * scale_bytes, those of V behind those of K. 0: none.
  uint8_t* scales = nullptr;
  int64_t scale_bytes = 0;
  // bf16 alone (HasBF16Dots), and of all calls for one cache alike: it says how K and V stand as well.
  bool has_bf16_dots = false;

  uint32_t FrameIndex(int32_t sequence, int32_t block, int32_t layer) const {
    return table[table_begin[sequence] + int64_t{block} * layers + layer];
  }
  uint8_t* Frame(int32_t sequence, int32_t block, int32_t layer) const {
    return pool + FrameIndex(sequence, block, layer) * frame_bytes;
  }
  // Of K, [kv_heads][frame_tokens] in bf16, then as many of V.
  uint16_t* Scales(int32_t sequence, int32_t block, int32_t layer) const {
    return reinterpret_cast<uint16_t*>(scales + FrameIndex(sequence, block, layer) * scale_bytes);
  }
};

}  // namespace openlora
