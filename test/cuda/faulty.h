#pragma once

#include "device/kernel.h"

// Kernels with a fault each, which the machine must name.

namespace openlora::faulty {

enum class Fault : int {
  kNone,
  kNoBarrier,             // shared memory read that another warp wrote
  kNoWarpBarrier,         // … that another lane wrote
  kShuffleOrdersNothing,  // … with a shuffle between
  kCopyNotWaitedFor,
  kCopyNotCommitted,
  kCopyLeftInFlight,
  kCopyMisaligned,
  kSharedOutOfBounds,
  kGlobalOutOfBounds,
  kReadOnlyWritten,
  kForbidden,
  kMisaligned,
  kArrayOutOfBounds,
  kDivergentBarrier,
  kDivergentCollective,
  kLaneExited,
  kDeadlock,
  kTwoBlocksWrite,
  kBlockReadsAnothers,
  kWrittenAfterAnotherRead,
  kFlagWithoutRelease,
  kSpinWithoutAcquire,
  kMbarrierUninitialised,
  kBulkBytesShort,
  kSharedTooSmall,
  kCount,
};

struct Params {
  Fault fault;
  float* data;         // [256]
  const float* input;  // [256], read-only
  uint32_t* flag;      // 0
};

inline constexpr int kSharedBytes = 2048;

}  // namespace openlora::faulty

DEV_KERNEL(faulty, Run, Params)
