#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "base/status.h"
#include "model/load_progress.h"
#include "tensor/mapped_file.h"

namespace openlora {

// Packed weights in a file, so that the next start maps them instead of packing: one file for each key, at
// "<folder>/<first 32 hex digits of the key>.weights", numbers little-endian:
//
//   [0, 4096)  "openlora", u32 version, u32 zero, i64 payload bytes, the key, SHA-256 of the payload's samples, zeros;
//              in the last 32 bytes the SHA-256 of the others
//   [4096, …)  the payload: what ModelWeights::Load leaves in memory, each item at a multiple of 4 KiB
//
// The samples are 4 KiB at the beginning of each item and at every 4 MiB of it: a file whose blocks never reached the
// disk has zeros there. They prove nothing about the rest. A file is only ever replaced as a whole, so any number of
// processes may read and write one.
struct PackedWeights {
  Sha256::Digest key{};        // of everything that decides the bytes
  int64_t bytes = 0;           // of the payload
  std::vector<int64_t> items;  // where they begin in it, ascending
};

inline constexpr int64_t kWeightCacheHeaderBytes = 4096;

std::string WeightCachePath(const std::string& folder, const PackedWeights& packed);

// Maps the file, with the payload in memory. Where there is none, or one that doesn't fit, `file` stays empty: that is
// no error. ERR_ABORTED when cancelled.
Status ReadWeightCache(const std::string& folder, const PackedWeights& packed, const OnLoadProgress& on_progress,
                       const std::atomic<bool>& is_cancelled, MappedFile* file);

// `payload` has packed.bytes. On an error, ERR_ABORTED included, nothing of it is left in the folder.
Status WriteWeightCache(const std::string& folder, const PackedWeights& packed, const void* payload,
                        const OnLoadProgress& on_progress, const std::atomic<bool>& is_cancelled);

}  // namespace openlora
