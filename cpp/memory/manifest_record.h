#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "memory/adapter_manifest.h"

namespace openlora {

// What packing a checked adapter needs, and nothing of what its check alone did.
struct AdapterSource {
  AdapterManifest manifest;  // files and sites; the rest is empty
  std::vector<CheckedFile> files;
};

// An AdapterSource in bytes, little-endian, for a file that only this process reads:
//
//   "olmanif2", u32 files, u32 sites
//   for each file   u64 device, u64 inode, i64 size, i64 modified ns, SHA-256, u32 path bytes, the path
//   for each site   i32 site, i32 rank, f32 scale, and of A and of B: i32 file, u8 dtype, i64 offset
//   u64 Checksum of all before it
//
// Shapes are not in it: A is [rank, in] and B [out, rank], by the base's shapes.
std::vector<uint8_t> EncodeSource(const AdapterSource& source);
// ERR_IO for anything that EncodeSource didn't make for these shapes.
Status DecodeSource(const std::vector<uint8_t>& record, const std::vector<SiteShape>& shapes, AdapterSource* source);

}  // namespace openlora
