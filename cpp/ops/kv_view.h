#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace openlora {

// The paged KV cache of a batch. A frame holds one layer's K and V of `frame_tokens` consecutive tokens of one
// sequence; what stands where within a frame is the ops' own business. V slots that were never written are zero.
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

  uint8_t* Frame(int32_t sequence, int32_t block, int32_t layer) const {
    return pool + table[table_begin[sequence] + int64_t{block} * layers + layer] * frame_bytes;
  }
};

}  // namespace openlora
