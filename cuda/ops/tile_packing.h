#pragma once

#include <cstdint>
#include <cstring>

#include "ops/batch_view.h"
#include "tensor/dtype.h"

namespace openlora {

// Writes a tile as kernels/lora.h wants it: [columns / 32][ranks][32] in `dtype`, bf16 or f16, zeros where the last
// group has no columns. Element (r, c) is values[r * rank_step + c * column_step].
inline void PackCudaTile(const float* values, int64_t rank_step, int64_t column_step, int32_t ranks, int32_t columns,
                         DType dtype, uint16_t* tile) {
  const int32_t groups = (columns + kTileGroup - 1) / kTileGroup;
  std::memset(tile, 0, sizeof(uint16_t) * static_cast<size_t>(groups * ranks * kTileGroup));
  for (int32_t c = 0; c < columns; ++c)
    for (int32_t r = 0; r < ranks; ++r)
      tile[(c / kTileGroup * ranks + r) * kTileGroup + c % kTileGroup] =
          dtype == DType::kF16 ? FloatToF16(values[r * rank_step + c * column_step])
                               : FloatToBF16(values[r * rank_step + c * column_step]);
}

}  // namespace openlora
