#pragma once

#include <cstddef>
#include <cstdint>

// The SIMD trait. Each simd_<level>.h defines one `struct Simd` in the unnamed namespace; the kernels (…-inl.h) are
// templates over it, instantiated by level_<level>.cc with that level's compiler flags. So these files include nothing
// of the library but <cstdint> and <cstddef>, and nothing in them has external linkage: an inline function shared with
// other objects could be kept in its AVX-512 copy for the whole program (check: `nm` shows no W, V or u symbol).
//
//   F, I                       kLanes f32 / i32
//   kLanes                     4, 8 or 16
//   kSums                      accumulators that a kernel may hold in registers
//   Zero() Set(f)              all lanes
//   SetPair(p)                 lanes p[0], p[1], p[0], p[1], …
//   Load(p) LoadPart(p, n)     unaligned; Part: the first n lanes, 0 <= n <= kLanes; the others are 0 and not read
//   Store(p, v) StorePart(p, v, n)
//   Add Sub Mul Div Sqrt       correctly rounded, never contracted
//   Fma(a, b, c)               a * b + c, rounded once
//   Max(a, b) Min(a, b)        a > b ? a : b, a < b ? a : b: so b if one of them is NaN, on every level
//   LoadInt(p) LoadIntPart(p, n)   32-bit lanes
//   EvenBF16(i) OddBF16(i)     the low and the high 16 bits of each lane as bf16
//   LoadBF16(p) LoadBF16Part(p, n) LoadF16(p) LoadF16Part(p, n)   kLanes consecutive 16-bit floats
//   LoadBF16Twice(p) LoadBF16TwicePart(p, n)   bf16: p[0], p[0], p[1], p[1], …; n is even
//   LoadInt8(p) LoadInt8Part(p, n)   kLanes consecutive signed bytes, as f32
//   SetInt(i) AddInt SubInt ShiftLeft<n>(i) ShiftRight<n>(i)      32 bits, ShiftRight keeps the sign
//   BitsOf(f) FromBits(i)      reinterpret
//   FloatOf(i)                 exact for |i| < 2^24
//   StoreInt(p, i)
//   AddWhere(sum, a, b, c)     sum + (a > b ? c : 0)
//   SwapLanes<d>(f)            lane i takes lane i ^ d; d = 1, 2, 4, … < kLanes
//   Prefetch(p)                into all cache levels
//   PrefetchSoon(p)            not into L1: more of them can be under way
//                              Both always inlined: gcc takes a function that only prefetches for one without effects,
//                              and leaves calls of it out.
//
// int8 dot products of four neighbouring k in each 32-bit lane, exact:
//   kDotVectors, kDotRows      a tile: as many accumulators, and what they multiply, fit into the registers
//   Activation                 how an activation is stored: int8_t, or int16_t and its fours as k, k+2, k+1, k+3
//   StoreActivations(p, i)     of kLanes integers in ±127
//   Quad LoadActivations(p)    four of them, for all lanes
//   Weights LoadWeights(p)     4 * kLanes bytes w + 128
//   Table LoadTable(p)         16 bytes w + 128
//   Weights LoadNibbles(p, table, is_high)   table entries, by the low or the high halves of 4 * kLanes bytes
//   Dot(sum, Weights, Quad)    sum + Σ (w + kSumStart + 128) * x: a sum begins at kSumStart * Σ x
//
// Products of bf16 by bf16 (ops/bf16_dot.h):
//   kHasBF16Dot DotBF16(sum, w, x)   fma(odd w, odd x, sum), then fma(even w, even x, it); w and x: lanes of two bf16
//   kHasFlushMode EnterFlushMode() LeaveFlushMode(what it returned)
//                              between them, denormals are zero, as operands and as results (tiny after rounding)
//   PairsOf(low, high)         2 * kLanes numbers as bf16, in their order: BF16Bits of each
//   IsAnyTiny(f)               where there is no such mode: a lane is at most 2^-126 in magnitude
//
// Every function gives the same bits on every level.

// Small loops over registers. The scalar level leaves them rolled: it has no registers to win, and 600 KB to save.
#if defined(OPENLORA_SIMD_ROLLED)
#define OPENLORA_UNROLL
#elif defined(__clang__)
#define OPENLORA_UNROLL _Pragma("unroll")
#else
#define OPENLORA_UNROLL _Pragma("GCC unroll 32")
#endif
#define OPENLORA_INLINE inline __attribute__((always_inline))
#define OPENLORA_INLINE_LAMBDA __attribute__((always_inline))
// Hides where a pointer comes from: gcc 12 otherwise turns a tile's row addresses (row, k) into as many offsets from
// one pointer, has too few registers for them, and reloads them in the innermost loop.
#define OPENLORA_OPAQUE(pointer) asm("" : "+r"(pointer))

namespace openlora {
namespace {

// The nearest bf16, ties to even, in the high 16 bits, as vcvtneps2bf16 has it: a denormal is a zero of its sign, NaN
// stays NaN.
OPENLORA_INLINE uint32_t BF16Bits(uint32_t bits) {
  if ((bits & 0x7f800000u) == 0) return bits & 0x80000000u;
  const uint32_t rounded = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
  return rounded & 0xffff0000u;
}

}  // namespace
}  // namespace openlora
