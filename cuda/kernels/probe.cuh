#include "device/device.cuh"
#include "kernels/probe.h"

namespace openlora::probe {

__global__ void Index(const IndexParams params) {
  const int thread = dev::BlockIndex() * dev::BlockThreads() + dev::ThreadIndex();
  int* const out = params.out + thread * 6;
  out[0] = dev::ThreadIndex();
  out[1] = dev::BlockIndex();
  out[2] = dev::BlockThreads();
  out[3] = dev::GridBlocks();
  out[4] = dev::Lane();
  out[5] = dev::Warp();
}

__global__ void Lanes(const LanesParams params) {
  const int thread = dev::BlockIndex() * dev::BlockThreads() + dev::ThreadIndex();
  const float value = params.in[thread];
  const uint32_t votes = dev::Ballot(value > 0);
  float* const out = params.out + thread * 4;
  out[0] = dev::Shuffle(value, 3);
  out[1] = dev::ShuffleXor(value, 5);
  out[2] = dev::ShuffleDown(value, 7);
  float sum = value;
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += dev::ShuffleXor(sum, lanes);
  out[3] = sum;
  if (dev::Lane() == 0) params.votes[thread / 32] = votes;
}

struct alignas(128) MatrixShared {
  uint16_t rows[32][8];
};
static_assert(sizeof(MatrixShared) == kMatrixSharedBytes);

__global__ void Matrix(const MatrixParams params) {
  auto& shared = dev::Shared<MatrixShared>();
  const int lane = dev::Lane();
  for (int i = 0; i < 8; ++i) shared.rows[lane][i] = params.in[lane * 8 + i];
  dev::SyncWarp();
  uint32_t plain[4], transposed[4], two[2];
  dev::LoadMatrix4(plain, shared.rows[lane]);
  dev::LoadMatrix4Trans(transposed, shared.rows[lane]);
  dev::LoadMatrix2(two, shared.rows[lane]);
  uint32_t* const out = params.out + lane * 10;
  for (int i = 0; i < 4; ++i) out[i] = plain[i];
  for (int i = 0; i < 4; ++i) out[4 + i] = transposed[i];
  for (int i = 0; i < 2; ++i) out[8 + i] = two[i];
}

__global__ void Mma(const MmaParams params) {
  const int lane = dev::Lane();
  uint32_t a[4], b[2];
  float d[4];
  for (int i = 0; i < 4; ++i) a[i] = params.a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) b[i] = params.b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) d[i] = params.c[lane * 4 + i];
  if (params.is_f16 != 0) {
    dev::MmaF16(d, a, b[0], b[1]);
  } else {
    dev::MmaBF16(d, a, b[0], b[1]);
  }
  for (int i = 0; i < 4; ++i) params.out[lane * 4 + i] = d[i];
}

// As many mma as the tensor cores take: the peak that benches measure themselves by.
__global__ void MmaRate(const MmaRateParams params) {
  const uint32_t a[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};  // ones
  float d[kMmaChains][4];
#pragma unroll
  for (int i = 0; i < kMmaChains * 4; ++i) d[i / 4][i % 4] = static_cast<float>(i / 4) * params.first;
#pragma unroll 1
  for (int turn = 0; turn < params.turns; ++turn) {
#pragma unroll
    for (int chain = 0; chain < kMmaChains; ++chain) dev::MmaBF16(d[chain], a, a[0], a[1]);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kMmaChains * 4; ++i) sum += d[i / 4][i % 4];
  params.out[dev::BlockIndex() * dev::BlockThreads() + dev::ThreadIndex()] = sum;
}

// A ring of three stages, two of them on their way; of step s, s % 5 · 4 bytes arrive and the rest is zero.
struct alignas(128) CopyShared {
  dev::Vec16 ring[kCopyStages][kCopyThreads];
};
static_assert(sizeof(CopyShared) == kCopySharedBytes);

__global__ void Copy(const CopyParams params) {
  auto& shared = dev::Shared<CopyShared>();
  const int thread = dev::ThreadIndex();
  const auto fetch = [&](int step) {
    if (step < params.steps)
      dev::CopyAsync16(&shared.ring[step % kCopyStages][thread], params.in + (step * kCopyThreads + thread) * 4,
                       step % 5 * 4);
    dev::CopyAsyncCommit();
  };
  for (int step = 0; step < kCopyStages - 1; ++step) fetch(step);
  for (int step = 0; step < params.steps; ++step) {
    dev::CopyAsyncWait<kCopyStages - 2>();
    dev::SyncBlock();
    fetch(step + kCopyStages - 1);
    const dev::Vec16 other = shared.ring[step % kCopyStages][kCopyThreads - 1 - thread];
    *reinterpret_cast<dev::Vec16*>(params.out + (step * kCopyThreads + thread) * 4) = other;
  }
  dev::CopyAsyncWait<0>();
}

// Warps 0 and 1 produce, 2 and 3 consume: barriers 1 and 2 say that a place is full, 3 and 4 that it is empty.
struct alignas(128) NamedShared {
  float ring[2][64];
};
static_assert(sizeof(NamedShared) == kNamedSharedBytes);

__global__ void Named(const NamedParams params) {
  auto& shared = dev::Shared<NamedShared>();
  const int thread = dev::ThreadIndex() % 64;
  const bool produces = dev::ThreadIndex() < 64;
  for (int step = 0; step < params.steps; ++step) {
    if (produces) {
      if (step >= 2) dev::SyncNamed(3 + step % 2, 128);
      shared.ring[step % 2][thread] = params.in[step * 64 + thread];
      dev::ArriveNamed(1 + step % 2, 128);
    } else {
      dev::SyncNamed(1 + step % 2, 128);
      params.out[step * 64 + thread] = shared.ring[step % 2][63 - thread];
      if (step + 2 < params.steps) dev::ArriveNamed(3 + step % 2, 128);
    }
  }
}

#if defined(DEV_HAS_BULK)
struct alignas(128) BulkShared {
  float data[kBulkRing][kBulkFloats];
  dev::Mbarrier full[kBulkRing];
  dev::Mbarrier empty[kBulkRing];
};
static_assert(sizeof(BulkShared) == kBulkSharedBytes);
#endif

// One thread feeds a ring of bulk copies, all of them consume.
__global__ void Bulk(const BulkParams params) {
#if defined(DEV_HAS_BULK)
  auto& shared = dev::Shared<BulkShared>();
  const int thread = dev::ThreadIndex();
  if (thread == 0) {
    for (int i = 0; i < kBulkRing; ++i) {
      shared.full[i].Init(1);
      shared.empty[i].Init(dev::BlockThreads());
    }
  }
  dev::SyncBlock();
  const auto feed = [&](int step) {
    if (thread != 0 || step >= params.steps) return;
    const int place = step % kBulkRing;
    if (step >= kBulkRing) shared.empty[place].Wait((step / kBulkRing % 2) ^ 1);
    shared.full[place].ArriveExpect(kBulkFloats * 4);
    dev::CopyBulk(shared.data[place], params.in + step * kBulkFloats, kBulkFloats * 4, &shared.full[place]);
  };
  for (int step = 0; step < kBulkRing - 1; ++step) feed(step);
  float sum = 0;
  for (int step = 0; step < params.steps; ++step) {
    feed(step + kBulkRing - 1);
    const int place = step % kBulkRing;
    shared.full[place].Wait(step / kBulkRing % 2);
    sum += shared.data[place][thread * 7 % kBulkFloats];
    shared.empty[place].Arrive();
  }
  params.out[thread] = sum;
#endif
}

// Hands out items by a counter, meets at a barrier of the grid, and reads what all blocks wrote.
struct alignas(128) GridShared {
  uint32_t item;
};

__global__ void Grid(const GridParams params) {
  auto& shared = dev::Shared<GridShared>();
  const bool is_first = dev::ThreadIndex() == 0;
  for (;;) {
    if (is_first) shared.item = dev::AtomicAdd(params.next, 1u);
    dev::SyncBlock();
    const uint32_t item = shared.item;
    dev::SyncBlock();
    if (item >= static_cast<uint32_t>(params.items)) break;
    if (is_first) params.done[item] = item * item;
  }
  if (is_first) {
    dev::AtomicAddAcqRel(params.arrived, 1u);
    while (dev::LoadAcquire(params.arrived) < static_cast<uint32_t>(dev::GridBlocks())) {
    }
  }
  dev::SyncBlock();
  uint32_t sum = 0;
  for (int i = 0; i < params.items; ++i) sum += params.done[i];
  params.out[dev::BlockIndex() * dev::BlockThreads() + dev::ThreadIndex()] = sum;
}

// Block 0 writes and raises a flag, block 1 waits for it and reads.
__global__ void Flag(const FlagParams params) {
  const int lane = dev::Lane();
  if (dev::BlockIndex() == 0) {
    params.data[lane] = static_cast<uint32_t>(lane) * 3;
    dev::SyncBlock();
    if (lane == 0) dev::StoreRelease(params.flag, 1u);
  } else {
    if (lane == 0) {
      while (dev::LoadAcquire(params.flag) == 0) {
      }
    }
    dev::SyncBlock();
    params.out[lane] = params.data[31 - lane];
  }
}

__global__ void Math(const MathParams params) {
  const int thread = dev::ThreadIndex();
  const float x = params.in[thread];
  const float next = params.in[(thread + 1) % dev::BlockThreads()];
  params.packed[thread] = dev::PackBF16(x, next);
  params.halves[thread] = dev::PackF16(x, next);
  params.unpacked[thread] = dev::F16ToFloat(static_cast<uint16_t>(dev::PackF16(x, next)));
  params.out[thread * 3] = dev::Exp2(x);
  params.out[thread * 3 + 1] = dev::Rsqrt(dev::BitsToFloat(dev::FloatToBits(x) & 0x7fffffffu));
  params.out[thread * 3 + 2] = dev::Fma(x, x, 1.0f);
}

}  // namespace openlora::probe
