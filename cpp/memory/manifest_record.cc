#include "memory/manifest_record.h"

#include <bit>
#include <cstring>
#include <string_view>

#include "base/checksum.h"

namespace openlora {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "olmanif2";

class Writer {
 public:
  explicit Writer(std::vector<uint8_t>* bytes) : bytes_(bytes) {}

  template <typename T>
  void Put(T value) {
    PutBytes(&value, sizeof value);
  }
  void PutBytes(const void* data, size_t bytes) {
    const auto* first = static_cast<const uint8_t*>(data);
    bytes_->insert(bytes_->end(), first, first + bytes);
  }

 private:
  std::vector<uint8_t>* bytes_;
};

// Reads nothing beyond the end: `ok` is false then, and values are zero.
class Reader {
 public:
  Reader(const uint8_t* data, size_t bytes) : next_(data), left_(bytes) {}

  template <typename T>
  T Get() {
    T value{};
    GetBytes(&value, sizeof value);
    return value;
  }
  void GetBytes(void* data, size_t bytes) {
    ok_ = ok_ && bytes <= left_;
    if (!ok_) return;
    std::memcpy(data, next_, bytes);
    next_ += bytes;
    left_ -= bytes;
  }
  bool ok() const { return ok_; }
  size_t left() const { return left_; }

 private:
  const uint8_t* next_;
  size_t left_;
  bool ok_ = true;
};

TensorRange ReadRange(Reader* reader, int64_t rows, int64_t cols) {
  TensorRange range;
  range.file = reader->Get<int32_t>();
  range.dtype = static_cast<DType>(reader->Get<uint8_t>());
  range.offset = reader->Get<int64_t>();
  range.rows = rows;
  range.cols = cols;
  const bool is_known = range.dtype == DType::kF32 || range.dtype == DType::kF16 || range.dtype == DType::kBF16;
  range.bytes = is_known ? rows * cols * static_cast<int64_t>(SizeOf(range.dtype)) : -1;
  return range;
}

Status Damaged() { return Status(kErrIo, "the record of an adapter's tensors is damaged: register it again"); }

}  // namespace

std::vector<uint8_t> EncodeSource(const AdapterSource& source) {
  std::vector<uint8_t> record;
  Writer writer(&record);
  writer.PutBytes(kMagic.data(), kMagic.size());
  writer.Put(static_cast<uint32_t>(source.files.size()));
  writer.Put(static_cast<uint32_t>(source.manifest.sites.size()));
  for (size_t i = 0; i < source.files.size(); ++i) {
    const auto& [identity, digest] = source.files[i];
    const std::string& path = source.manifest.files[i];
    writer.Put(identity.device);
    writer.Put(identity.inode);
    writer.Put(identity.size);
    writer.Put(identity.modified_ns);
    writer.PutBytes(digest.data(), digest.size());
    writer.Put(static_cast<uint32_t>(path.size()));
    writer.PutBytes(path.data(), path.size());
  }
  for (const AdapterSite& site : source.manifest.sites) {
    writer.Put(site.site);
    writer.Put(site.rank);
    writer.Put(site.scale);
    for (const TensorRange* range : {&site.a, &site.b}) {
      writer.Put(range->file);
      writer.Put(static_cast<uint8_t>(range->dtype));
      writer.Put(range->offset);
    }
  }
  writer.Put(Checksum(record.data(), record.size()));
  return record;
}

Status DecodeSource(const std::vector<uint8_t>& record, const std::vector<SiteShape>& shapes, AdapterSource* source) {
  if (record.size() < sizeof(uint64_t)) return Damaged();
  const size_t bytes = record.size() - sizeof(uint64_t);
  uint64_t checksum;
  std::memcpy(&checksum, record.data() + bytes, sizeof checksum);
  if (checksum != Checksum(record.data(), bytes)) return Damaged();
  Reader reader(record.data(), bytes);
  char magic[8] = {};
  static_assert(sizeof magic == kMagic.size());
  reader.GetBytes(magic, sizeof magic);
  const auto files = reader.Get<uint32_t>(), sites = reader.Get<uint32_t>();
  if (std::string_view(magic, sizeof magic) != kMagic || files > reader.left() || sites > shapes.size())
    return Damaged();
  AdapterSource read;
  for (uint32_t i = 0; i < files && reader.ok(); ++i) {
    auto& [identity, digest] = read.files.emplace_back();
    identity.device = reader.Get<uint64_t>();
    identity.inode = reader.Get<uint64_t>();
    identity.size = reader.Get<int64_t>();
    identity.modified_ns = reader.Get<int64_t>();
    reader.GetBytes(digest.data(), digest.size());
    const auto length = reader.Get<uint32_t>();
    if (length > reader.left()) return Damaged();
    std::string& path = read.manifest.files.emplace_back(length, '\0');
    reader.GetBytes(path.data(), length);
  }
  for (uint32_t i = 0; i < sites && reader.ok(); ++i) {
    AdapterSite site;
    site.site = reader.Get<int32_t>();
    site.rank = reader.Get<int32_t>();
    site.scale = reader.Get<float>();
    if (site.site < 0 || static_cast<size_t>(site.site) >= shapes.size()) return Damaged();
    const SiteShape& shape = shapes[static_cast<size_t>(site.site)];
    site.a = ReadRange(&reader, site.rank, shape.in);
    site.b = ReadRange(&reader, shape.out, site.rank);
    for (const TensorRange* range : {&site.a, &site.b}) {
      if (range->bytes < 0 || range->file < 0 || static_cast<uint32_t>(range->file) >= files) return Damaged();
    }
    read.manifest.sites.push_back(site);
  }
  if (!reader.ok() || reader.left() > 0) return Damaged();
  *source = std::move(read);
  return Ok();
}

}  // namespace openlora
