#include "memory/adapter_manifest.h"

#include <algorithm>
#include <cmath>

#include "base/sha256.h"

namespace openlora {
namespace {

constexpr int64_t kReadBytes = 1 << 20;

// Values that are looked at together.
constexpr int64_t kLookBytes = 2048;

constexpr uint16_t kF16Exponent = 0x7c00, kBF16Exponent = 0x7f80;
constexpr uint32_t kF32Exponent = 0x7f800000;

// NaN and the infinities have every bit of the exponent; one more in its lowest place carries into the sign's then, and
// never else. No branch and no comparison, and a number of values that is known: the compiler makes vectors of it.
template <typename Bits, Bits kExponent>
bool AreFinite(const Bits* values) {
  constexpr Bits kOne = kExponent & (~kExponent + 1);
  Bits any = 0;
  for (size_t i = 0; i < kLookBytes / sizeof(Bits); ++i)
    any = static_cast<Bits>(any | static_cast<Bits>((values[i] & kExponent) + kOne));
  return any >> (8 * sizeof(Bits) - 1) == 0;
}

template <typename Bits, Bits kExponent>
int64_t FindNotFinite(const uint8_t* data, int64_t count) {
  constexpr int64_t kLook = kLookBytes / static_cast<int64_t>(sizeof(Bits));
  const Bits* values = reinterpret_cast<const Bits*>(data);
  int64_t i = 0;
  while (i + kLook <= count && AreFinite<Bits, kExponent>(values + i)) i += kLook;
  for (; i < count; ++i)
    if ((values[i] & kExponent) == kExponent) return i;
  return -1;
}

// Index of the first value that isn't finite, or -1.
int64_t FindNotFinite(const uint8_t* data, DType dtype, int64_t count) {
  if (dtype == DType::kF32) return FindNotFinite<uint32_t, kF32Exponent>(data, count);
  if (dtype == DType::kF16) return FindNotFinite<uint16_t, kF16Exponent>(data, count);
  return FindNotFinite<uint16_t, kBF16Exponent>(data, count);
}

Status Aborted() { return Status(kErrAborted, "registration was aborted"); }

Status CheckFinite(const File& file, const TensorRange& range, const std::atomic<bool>& is_cancelled,
                   std::vector<uint8_t>* buffer) {
  const int64_t element = static_cast<int64_t>(SizeOf(range.dtype));
  for (int64_t done = 0; done < range.bytes; done += kReadBytes) {
    if (is_cancelled) return Aborted();
    const int64_t bytes = std::min(kReadBytes, range.bytes - done);
    buffer->resize(static_cast<size_t>(bytes));
    OPENLORA_RETURN_IF_ERROR(file.ReadAt(range.offset + done, buffer->data(), buffer->size()));
    const int64_t index = FindNotFinite(buffer->data(), range.dtype, bytes / element);
    if (index >= 0) return NotFinite(file.path(), range, done / element + index);
  }
  return Ok();
}

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // no reader of safetensors takes more
constexpr int64_t kPrefixBytes = 8;

// Of a safetensors header that begins with `prefix`: 8 bytes of length, little-endian, and so many of JSON.
uint64_t HeaderBytes(const uint8_t* prefix) {
  uint64_t length = 0;
  for (int i = 0; i < kPrefixBytes; ++i) length |= uint64_t{prefix[i]} << (8 * i);
  return std::min(length, kHeaderBytesMax) + kPrefixBytes;
}

Status HeaderChanged(const File& file) {
  return Error(kErrAdapterChanged,
               "%s: the file has another header than when its tensors were found: register it again",
               file.path().c_str());
}

Status CheckHeader(const File& file, const std::string& digest) {
  std::vector<uint8_t> header(kPrefixBytes);
  if (file.size() < kPrefixBytes) return HeaderChanged(file);
  OPENLORA_RETURN_IF_ERROR(file.ReadAt(0, header.data(), header.size()));
  const uint64_t bytes = HeaderBytes(header.data());
  if (bytes > static_cast<uint64_t>(file.size())) return HeaderChanged(file);
  header.resize(static_cast<size_t>(bytes));
  OPENLORA_RETURN_IF_ERROR(file.ReadAt(0, header.data(), header.size()));
  Sha256 hash;
  hash.Update(header.data(), header.size());
  return ToHex(hash.Finish()) == digest ? Ok() : HeaderChanged(file);
}

// `header_digest`: that the header among these very bytes must have; empty: any.
Status HashFile(const File& file, const std::string& header_digest, const std::atomic<bool>& is_cancelled,
                std::vector<uint8_t>* buffer, Sha256::Digest* digest) {
  Sha256 hash, header;
  uint64_t header_left = 0;
  for (int64_t done = 0; done < file.size(); done += kReadBytes) {
    if (is_cancelled) return Aborted();
    buffer->resize(static_cast<size_t>(std::min(kReadBytes, file.size() - done)));
    OPENLORA_RETURN_IF_ERROR(file.ReadAt(done, buffer->data(), buffer->size()));
    hash.Update(buffer->data(), buffer->size());
    if (done == 0 && file.size() >= kPrefixBytes) header_left = HeaderBytes(buffer->data());
    const auto of_header = static_cast<size_t>(std::min<uint64_t>(header_left, buffer->size()));
    if (!header_digest.empty()) header.Update(buffer->data(), of_header);
    header_left -= of_header;
  }
  if (!header_digest.empty() && ToHex(header.Finish()) != header_digest) return HeaderChanged(file);
  *digest = hash.Finish();
  return Ok();
}

Status CheckShape(const AdapterSite& site, const std::vector<SiteShape>& shapes) {
  if (site.site < 0 || site.site >= static_cast<int32_t>(shapes.size()))
    return Error(kErrAdapterShape, "site %d is outside the base's %zu sites", site.site, shapes.size());
  const SiteShape& shape = shapes[static_cast<size_t>(site.site)];
  if (shape.in == 0) return Error(kErrAdapterShape, "the base has no module at site %d", site.site);
  if (site.rank < 1 || site.rank > 256)
    return Error(kErrAdapterShape, "rank %d at site %d, supported are 1 to 256", site.rank, site.site);
  if (!std::isfinite(site.scale)) return Error(kErrAdapterShape, "the scale at site %d is not finite", site.site);
  if (site.a.rows != site.rank || site.a.cols != shape.in)
    return Error(kErrAdapterShape, "lora_A at site %d is [%lld, %lld], base and rank need [%d, %lld]", site.site,
                 static_cast<long long>(site.a.rows), static_cast<long long>(site.a.cols), site.rank,
                 static_cast<long long>(shape.in));
  if (site.b.rows != shape.out || site.b.cols != site.rank)
    return Error(kErrAdapterShape, "lora_B at site %d is [%lld, %lld], base and rank need [%lld, %d]", site.site,
                 static_cast<long long>(site.b.rows), static_cast<long long>(site.b.cols),
                 static_cast<long long>(shape.out), site.rank);
  return Ok();
}

// Compares value by value, a block of rows at a time: the dtypes may differ.
Status CheckSavedBase(const SavedBaseTensor& tensor, const File& saved_file, const File& base_file,
                      const std::atomic<bool>& is_cancelled) {
  const TensorRange &saved = tensor.saved, &base = tensor.expected;
  if (saved.rows != base.rows || saved.cols != base.cols)
    return Error(kErrAdapterBaseTensor, "%s is [%lld, %lld], the base's is [%lld, %lld]", tensor.name.c_str(),
                 static_cast<long long>(saved.rows), static_cast<long long>(saved.cols),
                 static_cast<long long>(base.rows), static_cast<long long>(base.cols));
  std::vector<uint8_t> a, b;
  const int64_t count = saved.rows * saved.cols;
  const int64_t block = kReadBytes / 4;
  for (int64_t begin = 0; begin < count; begin += block) {
    if (is_cancelled) return Aborted();
    const int64_t values = std::min(block, count - begin);
    a.resize(static_cast<size_t>(values) * SizeOf(saved.dtype));
    b.resize(static_cast<size_t>(values) * SizeOf(base.dtype));
    OPENLORA_RETURN_IF_ERROR(
        saved_file.ReadAt(saved.offset + begin * static_cast<int64_t>(SizeOf(saved.dtype)), a.data(), a.size()));
    OPENLORA_RETURN_IF_ERROR(
        base_file.ReadAt(base.offset + begin * static_cast<int64_t>(SizeOf(base.dtype)), b.data(), b.size()));
    for (int64_t i = 0; i < values; ++i) {
      if (LoadAsFloat(a.data(), saved.dtype, i) != LoadAsFloat(b.data(), base.dtype, i))
        return Error(kErrAdapterBaseTensor,
                     "%s differs from the base's at row %lld, column %lld: the adapter was made for another base, or "
                     "trains more than LoRA",
                     tensor.name.c_str(), static_cast<long long>((begin + i) / saved.cols),
                     static_cast<long long>((begin + i) % saved.cols));
    }
  }
  return Ok();
}

Status OpenAll(const std::vector<std::string>& paths, std::vector<File>* files) {
  files->resize(paths.size());
  for (size_t i = 0; i < paths.size(); ++i) OPENLORA_RETURN_IF_ERROR(File::Open(paths[i], &(*files)[i]));
  return Ok();
}

Status CheckRangeIn(const TensorRange& range, const std::vector<File>& files) {
  if (range.file < 0 || range.file >= static_cast<int32_t>(files.size()))
    return Error(kErrTensorRange, "a tensor names file %d of %zu", range.file, files.size());
  const File& file = files[static_cast<size_t>(range.file)];
  return CheckRange(range, file.size(), file.path());
}

}  // namespace

Status CheckAdapter(const AdapterManifest& manifest, const std::vector<SiteShape>& shapes,
                    const std::vector<std::string>& base_files, const std::atomic<bool>& is_cancelled,
                    AdapterIdentity* identity) {
  std::vector<File> files;
  OPENLORA_RETURN_IF_ERROR(OpenAll(manifest.files, &files));
  for (size_t i = 0; i < manifest.header_digests.size(); ++i)
    OPENLORA_RETURN_IF_ERROR(CheckHeader(files[i], manifest.header_digests[i]));
  std::vector<uint8_t> buffer;
  int32_t previous = -1;
  for (const AdapterSite& site : manifest.sites) {
    OPENLORA_RETURN_IF_ERROR(CheckShape(site, shapes));
    if (site.site <= previous)
      return Error(kErrAdapterShape, "site %d stands after site %d, each may be given once, in ascending order",
                   site.site, previous);
    previous = site.site;
    for (const TensorRange* range : {&site.a, &site.b}) {
      OPENLORA_RETURN_IF_ERROR(CheckRangeIn(*range, files));
      OPENLORA_RETURN_IF_ERROR(CheckFinite(files[static_cast<size_t>(range->file)], *range, is_cancelled, &buffer));
    }
  }
  for (const SavedBaseTensor& tensor : manifest.base_tensors) {
    OPENLORA_RETURN_IF_ERROR(CheckRangeIn(tensor.saved, files));
    if (tensor.expected.file < 0 || tensor.expected.file >= static_cast<int32_t>(base_files.size()))
      return Error(kErrTensorRange, "%s names file %d of the base's %zu", tensor.name.c_str(), tensor.expected.file,
                   base_files.size());
    File base_file;
    OPENLORA_RETURN_IF_ERROR(File::Open(base_files[static_cast<size_t>(tensor.expected.file)], &base_file));
    OPENLORA_RETURN_IF_ERROR(CheckRange(tensor.expected, base_file.size(), base_file.path()));
    OPENLORA_RETURN_IF_ERROR(
        CheckSavedBase(tensor, files[static_cast<size_t>(tensor.saved.file)], base_file, is_cancelled));
  }
  Sha256 generation;
  generation.Update(manifest.canonical_config.data(), manifest.canonical_config.size());
  identity->files.clear();
  for (size_t i = 0; i < files.size(); ++i) {
    CheckedFile& checked = identity->files.emplace_back();
    checked.identity = files[i].identity();
    const std::string header = i < manifest.header_digests.size() ? manifest.header_digests[i] : "";
    OPENLORA_RETURN_IF_ERROR(HashFile(files[i], header, is_cancelled, &buffer, &checked.digest));
    generation.Update(checked.digest.data(), checked.digest.size());
  }
  identity->generation = generation.Finish();
  return Ok();
}

Status NotFinite(const std::string& path, const TensorRange& range, int64_t index) {
  return Error(kErrAdapterNotFinite,
               "%s: the value at row %lld, column %lld of the [%lld, %lld] tensor at byte %lld is NaN or infinite",
               path.c_str(), static_cast<long long>(index / range.cols), static_cast<long long>(index % range.cols),
               static_cast<long long>(range.rows), static_cast<long long>(range.cols),
               static_cast<long long>(range.offset));
}

}  // namespace openlora
