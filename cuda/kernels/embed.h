#pragma once

#include "kernels/lora.h"

// out[t,:] = scale * (table[token[t],:] + the adapters' part): the base's by GatherBF16 or GatherF16, after which
// Shrink and lora::Expand add the adapters'. A is [R, V], B is [H, R].

namespace openlora::embed {

inline constexpr int kThreads = 256;
inline constexpr int kChunk = 1024;       // columns of a work item
inline constexpr int kTableColumns = 32;  // of a table, that stand together
inline constexpr int kTableRows = 16;     // likewise

struct GatherParams {
  const int32_t* rows;       // how many, in device memory
  const int32_t* row_token;  // [T]
  int32_t hidden;
  float scale;
  const uint16_t* table;  // [V / 16][H / 32][16][32], padded with zeros; aligned to 16 bytes
  float* out;             // [T, H]
  int64_t out_stride;     // floats
};

// h[entry][rank] is scale · A[rank, token of the entry's row], as lora::Expand wants it of a product whose `in` is 1;
// zeros from the adapter's rank to the next multiple of 16.
struct ShrinkParams {
  lora::Params lora;  // those of the Expand; in = 1 and product_count = 1, x isn't read
  const int32_t* row_token;
  float scale;  // of the base's part too
};

}  // namespace openlora::embed

DEV_KERNEL(embed, GatherBF16, GatherParams)
DEV_KERNEL(embed, GatherF16, GatherParams)
DEV_KERNEL(embed, ShrinkBF16, ShrinkParams)
DEV_KERNEL(embed, ShrinkF16, ShrinkParams)
