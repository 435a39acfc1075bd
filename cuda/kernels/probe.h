#pragma once

#include "device/kernel.h"

// One small kernel for each word of dev::. They run on the simulator in every test, and first of all on a GPU, where
// they must give the same bits: so a misreading of the PTX manual can't hide in both the simulator and a kernel.

namespace openlora::probe {

struct IndexParams {
  int* out;  // [threads of the grid][6]
};
struct LanesParams {
  const float* in;  // [threads]
  float* out;       // [threads][4]: one, xor, down, a sum by xor
  uint32_t* votes;  // [warps]
};
struct MatrixParams {
  const uint16_t* in;  // [32][8] halves
  uint32_t* out;       // [32 lanes][4 + 4 + 2]: plain, transposed, two matrices
};
struct MmaParams {
  const uint32_t* a;  // [32 lanes][4]
  const uint32_t* b;  // [32 lanes][2]
  const float* c;     // [32 lanes][4]
  float* out;         // likewise
  int is_f16;
};
struct CopyParams {
  const float* in;  // [steps][threads][4]
  float* out;       // [steps][threads][4]
  int steps;
};
struct NamedParams {
  const float* in;  // [steps][64]
  float* out;       // likewise, each step reversed
  int steps;
};
struct BulkParams {
  const float* in;  // [steps][256]
  float* out;       // [threads]
  int steps;
};
struct GridParams {
  uint32_t* next;     // of items
  uint32_t* arrived;  // blocks
  uint32_t* done;     // [items]
  uint32_t* out;      // [threads of the grid]
  int items;
};
struct FlagParams {
  uint32_t* flag;
  uint32_t* data;  // [32]
  uint32_t* out;   // [32]
};
struct MathParams {
  const float* in;   // [threads]
  uint32_t* packed;  // [threads]: its value and the next as bf16
  float* out;        // [threads][3]: exp2, rsqrt of |x|, fma(x, x, 1)
  uint32_t* halves;  // [threads]: its value and the next as f16
  float* unpacked;   // [threads]: its value, rounded to f16
};
struct MmaRateParams {
  float* out;  // [threads of the grid]: the sum of what each chain's four sums come to, 16 · turns + chain · first
  int turns;
  float first;  // chains must differ, or one could stand for all
};

inline constexpr int kMmaChains = 8;  // of mma that don't wait for each other, in each warp
inline constexpr int kBulkFloats = 256;
inline constexpr int kBulkRing = 3;
inline constexpr int kBulkSharedBytes = kBulkRing * kBulkFloats * 4 + 128;
inline constexpr int kCopyStages = 3;
inline constexpr int kCopyThreads = 64;
inline constexpr int kCopySharedBytes = kCopyStages * kCopyThreads * 16;
inline constexpr int kNamedSharedBytes = 512;
inline constexpr int kMatrixSharedBytes = 512;

}  // namespace openlora::probe

DEV_KERNEL(probe, Index, IndexParams)
DEV_KERNEL(probe, Lanes, LanesParams)
DEV_KERNEL(probe, Matrix, MatrixParams)
DEV_KERNEL(probe, Mma, MmaParams)
DEV_KERNEL(probe, MmaRate, MmaRateParams)
DEV_KERNEL(probe, Copy, CopyParams)
DEV_KERNEL(probe, Named, NamedParams)
DEV_KERNEL(probe, Bulk, BulkParams)
DEV_KERNEL(probe, Grid, GridParams)
DEV_KERNEL(probe, Flag, FlagParams)
DEV_KERNEL(probe, Math, MathParams)
