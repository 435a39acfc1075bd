#include "cuda/faulty.h"
#include "device/device.cuh"

namespace openlora::faulty {

struct alignas(128) Memory {
  float values[256];
  float ring[128];
  dev::Mbarrier barrier[2];
};
static_assert(sizeof(Memory) <= kSharedBytes);
struct alignas(128) TooLarge {
  float values[1024];
};

__device__ inline void OfSharedMemory(const Params& params, Memory& shared, int thread) {
  const int other = params.fault == Fault::kNoBarrier ? thread ^ 32 : thread ^ 1;
  shared.values[thread] = params.input[thread];
  float value = 0;
  if (params.fault == Fault::kShuffleOrdersNothing) value = dev::ShuffleXor(value, 1);
  if (params.fault == Fault::kNone) dev::SyncBlock();
  params.data[thread] = value + shared.values[other];
}

__device__ inline void OfCopies(const Params& params, Memory& shared, int thread) {
  if (thread >= 32) return;
  float* const to = shared.ring + thread * 4;
  dev::CopyAsync16(params.fault == Fault::kCopyMisaligned ? to + 1 : to, params.input + thread * 4);
  if (params.fault == Fault::kCopyNotCommitted) return;
  dev::CopyAsyncCommit();
  if (params.fault == Fault::kCopyLeftInFlight) return;
  if (params.fault == Fault::kCopyNotWaitedFor) dev::CopyAsyncWait<1>();
  params.data[thread] = *to;
  dev::CopyAsyncWait<0>();
}

__device__ inline void OfBounds(const Params& params, Memory& shared, int thread) {
  if (params.fault == Fault::kSharedOutOfBounds) shared.values[thread + 500] = 1;
  if (params.fault == Fault::kGlobalOutOfBounds) params.data[thread + 250] = 1;
  if (params.fault == Fault::kReadOnlyWritten) const_cast<float*>(params.input)[thread] = 1;
  if (params.fault == Fault::kForbidden) params.data[thread] = params.input[thread + 192];
  if (params.fault == Fault::kMisaligned)
    params.data[thread] = static_cast<float>(reinterpret_cast<const dev::Vec8*>(params.input + thread)->w[0]);
  if (params.fault == Fault::kArrayOutOfBounds) {
    float local[4] = {1, 2, 3, 4};
    params.data[thread] = local[static_cast<int>(params.input[thread]) / 64 + 3];
  }
}

__device__ inline void OfConvergence(const Params& params, int thread) {
  if (params.fault == Fault::kDivergentBarrier) {
    if (thread < 32) {
      dev::SyncBlock();
    } else {
      dev::SyncBlock();
    }
  }
  if (params.fault == Fault::kDivergentCollective) {
    if (thread % 2 == 0) {
      dev::SyncWarp();
    } else {
      dev::SyncWarp();
    }
  }
  if (params.fault == Fault::kLaneExited && thread != 7) params.data[thread] = static_cast<float>(dev::Ballot(true));
  if (params.fault == Fault::kDeadlock && thread >= 32) dev::SyncNamed(1, 64);
}

__device__ inline void OfBlocks(const Params& params, int thread) {
  const int block = dev::BlockIndex();
  if (params.fault == Fault::kTwoBlocksWrite) params.data[thread] = 1;
  if (params.fault == Fault::kBlockReadsAnothers) {
    if (block == 0) params.data[thread] = 1;
    if (block == 1) params.data[128 + thread] = params.data[thread];
  }
  if (params.fault == Fault::kWrittenAfterAnotherRead) {
    if (block == 1) params.data[128 + thread] = params.data[thread];
    if (block == 0) params.data[thread] = 1;
  }
  if (params.fault == Fault::kFlagWithoutRelease && thread == 0) {
    if (block == 0) {
      params.data[0] = 1;
      dev::AtomicAdd(params.flag, 1u);
    }
    if (block == 1) {
      while (dev::LoadAcquire(params.flag) == 0) {
      }
      params.data[1] = params.data[0];
    }
  }
  if (params.fault == Fault::kSpinWithoutAcquire && thread == 0) {
    const volatile uint32_t* const flag = params.flag;
    while (*flag == 0) {
    }
  }
}

__device__ inline void OfBulk(const Params& params, Memory& shared, int thread) {
  if (thread == 0) {
    if (params.fault != Fault::kMbarrierUninitialised) shared.barrier[0].Init(1);
    shared.barrier[0].ArriveExpect(params.fault == Fault::kBulkBytesShort ? 1024u : 512u);
    dev::CopyBulk(shared.ring, params.input, 512, &shared.barrier[0]);
    shared.barrier[0].Wait(0);
  }
}

__global__ void Run(const Params params) {
  const int thread = dev::ThreadIndex();
  if (params.fault == Fault::kSharedTooSmall) dev::Shared<TooLarge>().values[thread] = 0;
  auto& shared = dev::Shared<Memory>();
  if (params.fault <= Fault::kShuffleOrdersNothing) {
    if (dev::BlockIndex() == 0) OfSharedMemory(params, shared, thread);
  } else if (params.fault <= Fault::kCopyMisaligned) {
    if (dev::BlockIndex() == 0) OfCopies(params, shared, thread);
  } else if (params.fault <= Fault::kArrayOutOfBounds) {
    if (dev::BlockIndex() == 0) OfBounds(params, shared, thread);
  } else if (params.fault <= Fault::kDeadlock) {
    OfConvergence(params, thread);
  } else if (params.fault <= Fault::kSpinWithoutAcquire) {
    OfBlocks(params, thread);
  } else if (params.fault <= Fault::kBulkBytesShort) {
    OfBulk(params, shared, thread);
  }
}

}  // namespace openlora::faulty
