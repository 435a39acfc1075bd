#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace openlora {

// Beside a frame of `tokens` tokens.
constexpr int64_t KvScaleBytes(DType dtype, int32_t kv_heads, int32_t tokens) {
  return dtype == DType::kI8 ? int64_t{2} * kv_heads * tokens * static_cast<int64_t>(sizeof(uint16_t)) : 0;
}

// The paged KV cache of a batch. A frame holds one layer's K and V of `frame_tokens` consecutive tokens of one
// sequence; what stands where within a frame is the ops' own business. V slots that were never written are zero.
//
// int8: K and V of one (token, KV head) are one row of head_dim each, quantised by itself:
//   scale = largest |v| / 127, rounded to f32, then up to the next bf16
//   q     = v / scale, rounded to f32, then to the nearest integer, ties to even: -127 to 127
// A scale of zero has q = 0; a row with a NaN or an infinity has the scale NaN. q stands in the frame as the elements
// of the other dtypes do, the scales beside it: frames are powers of two, and one that held both would be twice as
// large.
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
