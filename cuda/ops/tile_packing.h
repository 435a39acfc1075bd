#pragma once

#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

namespace openlora {

// Writes a tile as kernels/lora.h wants it: [columns / 32][ranks][32] bf16, zeros where the last group has no columns.
// Element (r, c) is values[r * rank_step + c * column_step].
inline void PackCudaTile(const float* values, int64_t rank_step, int64_t column_step, int32_t ranks, int32_t columns,
                         uint16_t* tile) {
  constexpr int32_t kGroup = 32;
  const int32_t groups = (columns + kGroup - 1) / kGroup;
  std::memset(tile, 0, sizeof(uint16_t) * static_cast<size_t>(groups * ranks * kGroup));
  for (int32_t c = 0; c < columns; ++c)
    for (int32_t r = 0; r < ranks; ++r)
      tile[(c / kGroup * ranks + r) * kGroup + c % kGroup] = FloatToBF16(values[r * rank_step + c * column_step]);
}

}  // namespace openlora
