#pragma once

// dev:: on the CPU. Kernels see declarations alone; the machine is in the .cc files beside this one. Kernel files are
// compiled with -fsanitize=thread and not linked with it: hooks.cc supplies its hooks, so that every load and store of
// a raw pointer is checked.

#include <bit>
#include <cmath>
#include <cstdint>
#include <source_location>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#define DEV_HAS_BULK 1

namespace openlora::dev {

using Site = std::source_location;  // of the caller: reports name it

int ThreadIndex();  // in the block
int BlockIndex();
int BlockThreads();
int GridBlocks();
inline int Lane() { return ThreadIndex() & 31; }
inline int Warp() { return ThreadIndex() >> 5; }

void* SharedBytes(size_t bytes, size_t align);
// The block's shared memory as one struct per kernel, whose size is the launch's `shared_bytes`. Aligned to 128.
template <class T>
T& Shared() {
  return *static_cast<T*>(SharedBytes(sizeof(T), alignof(T)));
}

// Barriers. Of the warp's collectives only SyncWarp orders memory.
void SyncBlock(Site = Site::current());
void SyncWarp(uint32_t mask = ~0u, Site = Site::current());
void SyncNamed(int id, int threads, Site = Site::current());    // id 1 to 15
void ArriveNamed(int id, int threads, Site = Site::current());  // doesn't wait

// Collectives of all 32 lanes of a warp.
enum class Lanes : uint8_t { kOne, kXor, kDown };
uint32_t ShuffleBits(uint32_t value, int lane, Lanes from, Site);
template <class T>
T ShuffleAny(T value, int lane, Lanes from, Site site) {
  static_assert(sizeof(T) == 4);
  return std::bit_cast<T>(ShuffleBits(std::bit_cast<uint32_t>(value), lane, from, site));
}
template <class T>
T Shuffle(T value, int lane, Site site = Site::current()) {
  return ShuffleAny(value, lane, Lanes::kOne, site);
}
template <class T>
T ShuffleXor(T value, int lanes, Site site = Site::current()) {
  return ShuffleAny(value, lanes, Lanes::kXor, site);
}
template <class T>  // from lane + lanes; its own where there is none
T ShuffleDown(T value, int lanes, Site site = Site::current()) {
  return ShuffleAny(value, lanes, Lanes::kDown, site);
}
uint32_t Ballot(bool is_true, Site = Site::current());

// 16 bytes of global to shared memory, both aligned to 16; those from `valid` (0 to 16) on arrive as zero and aren't
// read.
void CopyAsync16(void* to, const void* from, int valid = 16, Site = Site::current());
void CopyAsyncCommit();  // closes this thread's group of copies
void CopyAsyncWaitFor(int pending);
template <int pending>  // returns when at most `pending` of this thread's groups are on their way
void CopyAsyncWait() {
  CopyAsyncWaitFor(pending);
}

// Matrices of 8 x 8 halves; lane i gives the address of row i % 8 of matrix i / 8. Lane l gets elements 2·(l % 4) and
// the next of row l / 4 of each; of column l / 4 if transposed.
void LoadMatrix4(uint32_t (&r)[4], const void* row, Site = Site::current());
void LoadMatrix4Trans(uint32_t (&r)[4], const void* row, Site = Site::current());
void LoadMatrix2(uint32_t (&r)[2], const void* row, Site = Site::current());  // addresses of lanes 0 to 15
// d [16 x 8] += a [16 x 16] · b [16 x 8]; fragments as in the PTX manual, "mma.m16n8k16".
void MmaBF16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site = Site::current());
void MmaF16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site = Site::current());

inline float BitsToFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t FloatToBits(float value) { return std::bit_cast<uint32_t>(value); }
inline uint32_t RoundBF16(float value) {  // to nearest, ties to even
  const uint32_t bits = FloatToBits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
inline uint32_t PackBF16(float low, float high) { return RoundBF16(low) | RoundBF16(high) << 16; }
inline uint32_t RoundF16(float value) {  // to nearest, ties to even; beyond 65504: infinity
  const uint32_t bits = FloatToBits(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return 0x7fff;
  if (size >= 0x477ff000) return sign | 0x7c00;  // 65520: halfway beyond the largest
  if (size >= 0x38800000) return sign | ((size + 0xfff + (size >> 13 & 1)) - 0x38000000) >> 13;
  return sign | (FloatToBits(BitsToFloat(size) + 0.5f) - 0x3f000000);  // subnormal: 2^-24 is the last bit of 0.5
}
inline uint32_t PackF16(float low, float high) { return RoundF16(low) | RoundF16(high) << 16; }
inline float F16ToFloat(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, size = bits & 0x7fffu;
  if (size >= 0x7c00) return BitsToFloat(sign | 0x7f800000 | (size & 0x3ff) << 13);
  if (size < 0x400) return BitsToFloat(sign | FloatToBits(static_cast<float>(size) * 0x1p-24f));
  return BitsToFloat(sign | ((size << 13) + 0x38000000));
}
inline float Fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float Exp2(float x) { return std::exp2(x); }          // GPU: within 2 ulp
inline float Rsqrt(float x) { return 1.0f / std::sqrt(x); }  // GPU: within 2 ulp

// On global memory. AtomicAdd orders nothing else.
uint32_t AtomicAdd(uint32_t* p, uint32_t value, Site = Site::current());
int AtomicAdd(int* p, int value, Site = Site::current());
uint32_t AtomicAddAcqRel(uint32_t* p, uint32_t value, Site = Site::current());
uint32_t LoadAcquire(const uint32_t* p, Site = Site::current());
void StoreRelease(uint32_t* p, uint32_t value, Site = Site::current());

// A barrier in shared memory that counts arrivals and the bytes of bulk copies. Compute capability 9.0 and newer.
struct alignas(8) Mbarrier {
  uint64_t bits;

  void Init(int arrivals, Site = Site::current());
  void Arrive(Site = Site::current());
  void ArriveExpect(uint32_t bytes, Site = Site::current());  // and that many more bytes must land
  void Wait(uint32_t parity, Site = Site::current());         // until the phase of that parity is complete
};
// A multiple of 16 bytes of global to shared memory, by one thread; completes on `barrier`.
void CopyBulk(void* to, const void* from, uint32_t bytes, Mbarrier* barrier, Site = Site::current());

}  // namespace openlora::dev
