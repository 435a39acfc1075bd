#pragma once

#include <immintrin.h>

#include <cstdint>

#include "ops/cpu/simd_common.h"

namespace openlora {
namespace {

// What the traits of x86 have in common.
struct SimdX86 {
  static OPENLORA_INLINE void Prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
  static OPENLORA_INLINE void PrefetchSoon(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

  static constexpr bool kHasFlushMode = true;
  static uint32_t EnterFlushMode() {
    const uint32_t before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);  // FTZ, DAZ
    return before;
  }
  static void LeaveFlushMode(uint32_t before) { _mm_setcsr(before); }
};

}  // namespace
}  // namespace openlora
