#include "model/weight_cache.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/new_file.h"

namespace openlora {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kVersion = 1;
constexpr std::string_view kExtension = ".weights";
constexpr size_t kNameDigits = 32;
// Bytes between two looks at `is_cancelled` and two progress reports.
constexpr int64_t kSliceBytes = 32 << 20;
constexpr int64_t kSampleBytes = 4096;
constexpr int64_t kSampleStep = 4 << 20;

struct Head {
  char magic[8] = {'o', 'p', 'e', 'n', 'l', 'o', 'r', 'a'};
  uint32_t version = kVersion;
  uint32_t zero = 0;
  int64_t bytes = 0;
  Sha256::Digest key{};
  Sha256::Digest samples{};
};
using Header = std::array<uint8_t, kWeightCacheHeaderBytes>;

Sha256::Digest HashSamples(const PackedWeights& packed, const uint8_t* payload) {
  Sha256 hash;
  for (size_t i = 0; i < packed.items.size(); ++i) {
    const int64_t end = i + 1 < packed.items.size() ? packed.items[i + 1] : packed.bytes;
    for (int64_t at = packed.items[i]; at < end; at += kSampleStep)
      hash.Update(payload + at, static_cast<size_t>(std::min(kSampleBytes, end - at)));
  }
  return hash.Finish();
}

Header MakeHeader(const PackedWeights& packed, const Sha256::Digest& samples) {
  Head head;
  head.bytes = packed.bytes;
  head.key = packed.key;
  head.samples = samples;
  Header header{};
  static_assert(sizeof(Head) == 88 && sizeof(Head) + sizeof(Sha256::Digest) <= sizeof(Header));
  std::memcpy(header.data(), &head, sizeof(head));
  Sha256 hash;
  hash.Update(header.data(), sizeof(header) - sizeof(Sha256::Digest));
  const Sha256::Digest digest = hash.Finish();
  std::copy(digest.begin(), digest.end(), header.end() - sizeof(digest));
  return header;
}

// The header says what it should of a payload with the samples that it names.
bool HasFittingHeader(const PackedWeights& packed, const MappedFile& file, Sha256::Digest* samples) {
  Head head;
  std::memcpy(&head, file.data(), sizeof(head));
  *samples = head.samples;
  const Header wanted = MakeHeader(packed, head.samples);
  return std::memcmp(file.data(), wanted.data(), sizeof(wanted)) == 0;
}

bool IsCacheName(std::string_view name) {
  return name.size() == kNameDigits + kExtension.size() && name.ends_with(kExtension) &&
         name.find_first_not_of("0123456789abcdef") == kNameDigits;
}

// Calls part(begin, bytes) for the payload's slices, and reports progress between them.
template <typename Part>
Status ForEachSlice(int64_t bytes, const OnLoadProgress& on_progress, const std::atomic<bool>& is_cancelled,
                    const Part& part) {
  on_progress({0, bytes});
  for (int64_t begin = 0; begin < bytes; begin += kSliceBytes) {
    if (is_cancelled) return Status(kErrAborted, "loading was aborted");
    const int64_t slice = std::min(kSliceBytes, bytes - begin);
    OPENLORA_RETURN_IF_ERROR(part(begin, slice));
    on_progress({begin + slice, bytes});
  }
  return is_cancelled ? Status(kErrAborted, "loading was aborted") : Ok();
}

}  // namespace

std::string WeightCachePath(const std::string& folder, const PackedWeights& packed) {
  return folder + "/" + ToHex(packed.key).substr(0, kNameDigits) + std::string(kExtension);
}

Status ReadWeightCache(const std::string& folder, const PackedWeights& packed, const OnLoadProgress& on_progress,
                       const std::atomic<bool>& is_cancelled, MappedFile* file) {
  const std::string path = WeightCachePath(folder, packed);
  std::error_code unknown;  // Open says why
  if (!std::filesystem::exists(path, unknown) && !unknown) return Ok();
  MappedFile opened;
  OPENLORA_RETURN_IF_ERROR(MappedFile::Open(path, &opened));
  if (opened.size() != kWeightCacheHeaderBytes + packed.bytes) return Ok();
  OPENLORA_RETURN_IF_ERROR(opened.Populate(0, kWeightCacheHeaderBytes));
  Sha256::Digest samples;
  if (!HasFittingHeader(packed, opened, &samples)) return Ok();
  const auto populate = [&](int64_t begin, int64_t bytes) {
    return opened.Populate(kWeightCacheHeaderBytes + begin, bytes);
  };
  OPENLORA_RETURN_IF_ERROR(ForEachSlice(packed.bytes, on_progress, is_cancelled, populate));
  if (HashSamples(packed, opened.data() + kWeightCacheHeaderBytes) == samples) *file = std::move(opened);
  return Ok();
}

Status WriteWeightCache(const std::string& folder, const PackedWeights& packed, const void* payload,
                        const OnLoadProgress& on_progress, const std::atomic<bool>& is_cancelled) {
  RemoveAbandonedFiles(folder, IsCacheName);
  const auto* const bytes = static_cast<const uint8_t*>(payload);
  const Header header = MakeHeader(packed, HashSamples(packed, bytes));
  NewFile file;
  OPENLORA_RETURN_IF_ERROR(file.Create(WeightCachePath(folder, packed)));
  OPENLORA_RETURN_IF_ERROR(file.Write(header.data(), header.size()));
  // Each slice goes to the disk before the next: progress is the disk's, and an abort needn't wait for all of it.
  const auto write = [&](int64_t begin, int64_t slice) {
    const Status written = file.Write(bytes + begin, static_cast<size_t>(slice));
    return written.ok() ? file.Sync() : written;
  };
  OPENLORA_RETURN_IF_ERROR(ForEachSlice(packed.bytes, on_progress, is_cancelled, write));
  return file.Commit();
}

}  // namespace openlora
