#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/new_file.h"
#include "base/sha256.h"
#include "memory/tile_layout.h"

namespace openlora {

// A packed adapter in a file: its frames as they stand in memory, so that a load is a read. Numbers little-endian:
//
//   [0, 128)   "olpacked", u32 version, u32 sites, i64 frames, i64 frame bytes, i64 header bytes, the key, zeros
//   [128, …)   for each site  i32 site, i32 rank, f32 scale;  for each frame  u64 Checksum;  zeros
//   header bytes - 8   u64 Checksum of the header before it; header bytes is a multiple of 4 KiB
//   [header bytes, …)  the frames; what no tile takes is zero
//
// The name of the file is its key's: content and everything that decides the bytes. Files appear whole or not at all,
// but for a crash of the machine, and every load compares the checksum of every frame that it reads: 0.07 ms for a
// MiB that takes 0.25 ms to read from the page cache, and the only way to see that a disk, or whoever writes there, has
// changed a weight.
struct PackFormat {
  TileFormat tiles;
  std::vector<SiteShape> shapes;
  Sha256::Digest probe{};  // of tiles packed from known values: changes with whatever changes tiles
};

PackFormat MakePackFormat(const TileFormat& tiles, std::vector<SiteShape> shapes);
Sha256::Digest PackKey(const PackFormat& format, const Sha256::Digest& generation, const AdapterManifest& manifest,
                       const TileLayout& layout);
int64_t PackHeaderBytes(size_t sites, int64_t frames);

// Writes one.
class PackWriter {
 public:
  Status Create(const std::string& path, const Sha256::Digest& key, const PackFormat& format,
                const AdapterManifest& manifest, const TileLayout& layout);
  Status Write(const TilePlace& place, const uint8_t* tile, size_t bytes);
  // Once all tiles are written: checksums and header, then the file is there, though perhaps not on the disk.
  Status Publish();
  Status Sync() { return file_.Sync(); }
  int64_t bytes() const { return header_bytes_ + frames_ * frame_bytes_; }

 private:
  NewFile file_;
  std::vector<uint8_t> header_;
  int64_t header_bytes_ = 0;
  int64_t frames_ = 0;
  int64_t frame_bytes_ = 0;
  size_t checksums_at_ = 0;
};

// Reads one.
class PackReader {
 public:
  // False where there is none, or none that fits: `why` is empty, or says what is wrong with it. `is_cached_only`: what
  // isn't in the page cache counts as missing, now and in ReadFrame.
  bool Open(const std::string& path, const Sha256::Digest& key, const PackFormat& format, bool is_cached_only,
            std::string* why);
  const AdapterManifest& manifest() const { return manifest_; }  // sites: number, rank, scale
  int64_t frames() const { return static_cast<int64_t>(checksums_.size()); }
  int64_t bytes() const { return file_.size(); }
  const File& file() const { return file_; }
  // Of `data` [frame bytes]. False where it can't be read or isn't what was written.
  bool ReadFrame(int64_t frame, uint8_t* data) const;

 private:
  bool Read(int64_t offset, void* data, size_t bytes) const {
    return is_cached_only_ ? file_.ReadCachedAt(offset, data, bytes) : file_.ReadAt(offset, data, bytes).ok();
  }

  File file_;
  bool is_cached_only_ = false;
  AdapterManifest manifest_;
  std::vector<uint64_t> checksums_;
  int64_t header_bytes_ = 0;
  int64_t frame_bytes_ = 0;
};

}  // namespace openlora
