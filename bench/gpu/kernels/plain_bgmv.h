#pragma once

#include "kernels/lora.h"

// What kernels/lora.h computes, one entry at a time and without tensor cores, as the first kernels for many adapters
// did it: for comparison. Every row reads its adapter anew, whoever shares it. bf16; lora::Params::h isn't used.

namespace openlora::plain_bgmv {

inline constexpr int kThreads = 256;
inline constexpr int kSharedBytes = lora::kRankMax * static_cast<int>(sizeof(float));

}  // namespace openlora::plain_bgmv

DEV_KERNEL(plain_bgmv, Run, lora::Params)
