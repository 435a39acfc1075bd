#include "memory/adapter_pack.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checksum.h"

namespace openlora {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kVersion = 1;
constexpr int64_t kHeaderStep = 4096;

struct Head {
  char magic[8] = {'o', 'l', 'p', 'a', 'c', 'k', 'e', 'd'};
  uint32_t version = kVersion;
  uint32_t sites = 0;
  int64_t frames = 0;
  int64_t frame_bytes = 0;
  int64_t header_bytes = 0;
  Sha256::Digest key{};
  uint8_t zeros[56] = {};
};
static_assert(sizeof(Head) == 128);

struct PackedSite {
  int32_t site = 0;
  int32_t rank = 0;
  float scale = 0;
};
static_assert(sizeof(PackedSite) == 12);
static_assert(sizeof(TileRun) == 16);  // no holes: it is hashed

template <typename T>
void Put(Sha256* hash, T value) {
  hash->Update(&value, sizeof value);
}

}  // namespace

PackFormat MakePackFormat(const TileFormat& tiles, std::vector<SiteShape> shapes) {
  PackFormat format{tiles, std::move(shapes), {}};
  constexpr int32_t kRanks = 5, kColumns = 40;
  std::vector<float> values(static_cast<size_t>(kRanks * kColumns));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 37 + 11) % 101) / 7 - 6.5f;
  Sha256 hash;
  std::vector<uint8_t> tile(static_cast<size_t>(TileBytes(tiles.dtype, kRanks, kColumns)));
  tiles.ops->PackTileA(values.data(), kColumns, kRanks, kColumns, tiles.dtype, tile.data());
  hash.Update(tile.data(), tile.size());
  tile.assign(tile.size(), 0);
  tiles.ops->PackTileB(values.data(), kRanks, kRanks, kColumns, tiles.dtype, tile.data());
  hash.Update(tile.data(), tile.size());
  format.probe = hash.Finish();
  return format;
}

Sha256::Digest PackKey(const PackFormat& format, const Sha256::Digest& generation, const AdapterManifest& manifest,
                       const TileLayout& layout) {
  Sha256 hash;
  Put(&hash, kVersion);
  hash.Update(generation.data(), generation.size());
  hash.Update(format.probe.data(), format.probe.size());
  Put(&hash, format.tiles.dtype);
  Put(&hash, format.tiles.frame_bytes);
  for (const AdapterSite& site : manifest.sites) {
    const SiteShape& shape = format.shapes[static_cast<size_t>(site.site)];
    Put(&hash, site.site);
    Put(&hash, site.rank);
    Put(&hash, site.scale);
    Put(&hash, shape.in);
    Put(&hash, shape.out);
    // Where in the files: else whoever changes one between the reading of its header and of its bytes could have other
    // bytes packed under this content's key.
    for (const TensorRange* range : {&site.a, &site.b}) {
      Put(&hash, range->file);
      Put(&hash, range->offset);
      Put(&hash, range->dtype);
    }
  }
  for (const TileRun& run : layout.runs) Put(&hash, run);
  return hash.Finish();
}

int64_t PackHeaderBytes(size_t sites, int64_t frames) {
  const int64_t bytes = static_cast<int64_t>(sizeof(Head) + sites * sizeof(PackedSite) + sizeof(uint64_t)) +
                        frames * static_cast<int64_t>(sizeof(uint64_t));
  return (bytes + kHeaderStep - 1) / kHeaderStep * kHeaderStep;
}

Status PackWriter::Create(const std::string& path, const Sha256::Digest& key, const PackFormat& format,
                          const AdapterManifest& manifest, const TileLayout& layout) {
  frames_ = layout.frames;
  frame_bytes_ = format.tiles.frame_bytes;
  header_bytes_ = PackHeaderBytes(manifest.sites.size(), frames_);
  header_.assign(static_cast<size_t>(header_bytes_), 0);
  Head head;
  head.sites = static_cast<uint32_t>(manifest.sites.size());
  head.frames = frames_;
  head.frame_bytes = frame_bytes_;
  head.header_bytes = header_bytes_;
  head.key = key;
  std::memcpy(header_.data(), &head, sizeof head);
  checksums_at_ = sizeof head;
  for (const AdapterSite& site : manifest.sites) {
    const PackedSite packed{site.site, site.rank, site.scale};
    std::memcpy(header_.data() + checksums_at_, &packed, sizeof packed);
    checksums_at_ += sizeof packed;
  }
  return file_.Create(path);
}

Status PackWriter::Write(const TilePlace& place, const uint8_t* tile, size_t bytes) {
  return file_.WriteAt(header_bytes_ + place.frame * frame_bytes_ + place.offset, tile, bytes);
}

Status PackWriter::Publish() {
  // The last byte, so that what no tile takes at the end is there too; it is zero unless a tile has written it.
  File written;
  OPENLORA_RETURN_IF_ERROR(File::Open(file_.temporary_path(), &written));
  if (written.size() < bytes()) {
    OPENLORA_RETURN_IF_ERROR(file_.WriteAt(bytes() - 1, "", 1));
  }
  std::vector<uint8_t> frame(static_cast<size_t>(frame_bytes_));
  for (int64_t i = 0; i < frames_; ++i) {
    OPENLORA_RETURN_IF_ERROR(written.ReadAt(header_bytes_ + i * frame_bytes_, frame.data(), frame.size()));
    const uint64_t checksum = Checksum(frame.data(), frame.size());
    std::memcpy(header_.data() + checksums_at_ + static_cast<size_t>(i) * sizeof checksum, &checksum, sizeof checksum);
  }
  const size_t covered = header_.size() - sizeof(uint64_t);
  const uint64_t checksum = Checksum(header_.data(), covered);
  std::memcpy(header_.data() + covered, &checksum, sizeof checksum);
  OPENLORA_RETURN_IF_ERROR(file_.WriteAt(0, header_.data(), header_.size()));
  return file_.Publish();
}

bool PackReader::Open(const std::string& path, const Sha256::Digest& key, const PackFormat& format, bool is_cached_only,
                      std::string* why) {
  why->clear();
  is_cached_only_ = is_cached_only;
  if (!File::Open(path, &file_).ok()) return false;
  *why = path + " is damaged";
  Head head;
  const Head wanted;
  if (!Read(0, &head, sizeof head)) return false;
  if (std::memcmp(head.magic, wanted.magic, sizeof head.magic) != 0 || head.version != kVersion || head.key != key ||
      head.frame_bytes != format.tiles.frame_bytes || head.sites > format.shapes.size() || head.frames < 0 ||
      head.frames > file_.size() / head.frame_bytes || head.header_bytes != PackHeaderBytes(head.sites, head.frames) ||
      file_.size() != head.header_bytes + head.frames * head.frame_bytes)
    return false;
  std::vector<uint8_t> header(static_cast<size_t>(head.header_bytes));
  if (!Read(0, header.data(), header.size())) return false;
  const size_t covered = header.size() - sizeof(uint64_t);
  uint64_t checksum;
  std::memcpy(&checksum, header.data() + covered, sizeof checksum);
  if (checksum != Checksum(header.data(), covered)) return false;
  size_t at = sizeof head;
  manifest_ = {};
  int32_t previous = -1;
  for (uint32_t i = 0; i < head.sites; ++i, at += sizeof(PackedSite)) {
    PackedSite packed;
    std::memcpy(&packed, header.data() + at, sizeof packed);
    // Whoever can write a file can write a checksum.
    const bool is_known = packed.site > previous && packed.site < static_cast<int32_t>(format.shapes.size()) &&
                          format.shapes[static_cast<size_t>(packed.site)].in > 0 && packed.rank >= 1 &&
                          packed.rank <= 256;
    if (!is_known) return false;
    previous = packed.site;
    AdapterSite site;
    site.site = packed.site;
    site.rank = packed.rank;
    site.scale = packed.scale;
    manifest_.sites.push_back(site);
  }
  checksums_.resize(static_cast<size_t>(head.frames));
  std::memcpy(checksums_.data(), header.data() + at, checksums_.size() * sizeof(uint64_t));
  header_bytes_ = head.header_bytes;
  frame_bytes_ = head.frame_bytes;
  why->clear();
  return true;
}

bool PackReader::ReadFrame(int64_t frame, uint8_t* data) const {
  const auto bytes = static_cast<size_t>(frame_bytes_);
  return Read(header_bytes_ + frame * frame_bytes_, data, bytes) &&
         Checksum(data, bytes) == checksums_[static_cast<size_t>(frame)];
}

}  // namespace openlora
