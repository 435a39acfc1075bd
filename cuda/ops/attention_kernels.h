#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "kernels/attention.h"

namespace openlora {

// The attention kernels for a head_dim and a dtype.
struct AttentionKernels {
  using Kernel = dev::Kernel<attention::Params>;
  dev::Kernel<attention::AppendParams> append;
  Kernel merge, decode, prefill;
  int decode_shared_bytes, prefill_shared_bytes, prefill_warps;
};

template <int dims>
AttentionKernels AttentionKernelsOf(bool is_f16, AttentionKernels::Kernel decode, AttentionKernels::Kernel prefill) {
  return {is_f16 ? attention::AppendF16 : attention::AppendBF16,
          is_f16 ? attention::MergeF16 : attention::MergeBF16,
          decode,
          prefill,
          attention::kDecodeSharedBytes<dims>,
          attention::kPrefillSharedBytes<dims>,
          attention::kPrefillWarps<dims>};
}

inline AttentionKernels AttentionKernelsFor(int32_t head_dim, bool is_f16) {
  using namespace attention;
  const int dims = *std::find_if(std::begin(kDims), std::end(kDims), [&](int d) { return head_dim <= d; });
  if (dims == 64)
    return is_f16 ? AttentionKernelsOf<64>(true, DecodeF16x64, PrefillF16x64)
                  : AttentionKernelsOf<64>(false, DecodeBF16x64, PrefillBF16x64);
  if (dims == 96)
    return is_f16 ? AttentionKernelsOf<96>(true, DecodeF16x96, PrefillF16x96)
                  : AttentionKernelsOf<96>(false, DecodeBF16x96, PrefillBF16x96);
  if (dims == 128)
    return is_f16 ? AttentionKernelsOf<128>(true, DecodeF16x128, PrefillF16x128)
                  : AttentionKernelsOf<128>(false, DecodeBF16x128, PrefillBF16x128);
  return is_f16 ? AttentionKernelsOf<256>(true, DecodeF16x256, PrefillF16x256)
                : AttentionKernelsOf<256>(false, DecodeBF16x256, PrefillBF16x256);
}

}  // namespace openlora
