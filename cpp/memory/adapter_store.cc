#include "memory/adapter_store.h"

#include <algorithm>
#include <filesystem>

#include "base/clock.h"
#include "memory/pack_folder.h"

namespace openlora {
namespace {

// Bytes between two questions to `pace`.
constexpr int64_t kChunkBytes = 1 << 20;
// A byte that is packed takes the time of so many that are copied: a MiB takes 4 ms of one core, half of it in the
// system, and one more for its SHA-256. By that measure it would be 8 to 16; with 4, which lets one adapter of a MiB
// through a step of 20 ms, others' next token has a p99 of 1.2 times the quiet one, as with 16, and a first request's
// first token comes 30 % earlier.
constexpr int64_t kPackCost = 4;

Pace AtPackCost(const Pace& pace) {
  return [&pace](int64_t bytes) { return pace(bytes * kPackCost); };
}

Status Aborted() { return Status(kErrAborted, "loading was aborted"); }

}  // namespace

std::string AdapterStore::PathOf(const Sha256::Digest& key) const {
  return options_.folder + "/" + PackName(ToHex(key));
}

void AdapterStore::OpenFolder() {
  is_folder_open_ = true;
  if (options_.folder.empty()) return;
  // Where this fails, records stay in memory; who writes a pack says why it can't.
  if (!MakePrivateFolder(options_.folder).ok()) return;
  RemoveAbandonedPacks(options_.folder);
  disk_bytes_ = TrimPacks(options_.folder, options_.disk_bytes);
  (void)records_.Create(options_.folder);
}

Status AdapterStore::Check(const AdapterManifest& manifest, const std::atomic<bool>& is_cancelled,
                           AdapterContent* content) {
  if (!is_folder_open_) OpenFolder();
  AdapterIdentity identity;
  OPENLORA_RETURN_IF_ERROR(CheckAdapter(manifest, format_.shapes, base_files_, is_cancelled, &identity));
  AdapterSource source;
  source.manifest.files = manifest.files;
  source.manifest.sites = manifest.sites;
  source.files = std::move(identity.files);
  const TileLayout layout = PlanTiles(source.manifest, format_.shapes, format_.tiles);
  AdapterContent checked;
  checked.generation = identity.generation;
  checked.key = PackKey(format_, identity.generation, source.manifest, layout);
  checked.frames = layout.frames;
  checked.bytes = layout.bytes;
  checked.pack_bytes =
      PackHeaderBytes(manifest.sites.size(), layout.frames) + layout.frames * format_.tiles.frame_bytes;
  const std::vector<uint8_t> record = EncodeSource(source);
  checked.record_bytes = static_cast<int64_t>(record.size());
  const bool is_kept = records_.is_open() && records_.Append(record.data(), record.size(), &checked.record_offset).ok();
  if (!is_kept) checked.source = std::make_shared<const AdapterSource>(std::move(source));
  std::error_code missing;
  checked.has_pack =
      !options_.folder.empty() &&
      std::filesystem::file_size(PathOf(checked.key), missing) == static_cast<uintmax_t>(checked.pack_bytes) &&
      !missing;
  *content = std::move(checked);
  return Ok();
}

void AdapterStore::Discard(const AdapterContent& content) {
  if (content.record_offset >= 0) records_.Free(content.record_offset, content.record_bytes);
}

Status AdapterStore::ReadSource(const AdapterContent& content, AdapterSource* source) const {
  if (content.source != nullptr) {
    *source = *content.source;
    return Ok();
  }
  std::vector<uint8_t> record(static_cast<size_t>(content.record_bytes));
  OPENLORA_RETURN_IF_ERROR(records_.ReadAt(content.record_offset, record.data(), record.size()));
  return DecodeSource(record, format_.shapes, source);
}

bool AdapterStore::CanWrite(const AdapterContent& content) const {
  return !options_.folder.empty() && content.pack_bytes <= options_.disk_bytes && NowMs() >= retry_at_ms_;
}

void AdapterStore::NoteWriteFailure(const Status& status, StoreReport* report) {
  retry_at_ms_ = NowMs() + options_.retry_ms;
  report->has_pack = false;
  if (!has_warned_.exchange(true)) report->warning = status.message();
}

// Where the frames of a pack go: nowhere, to host memory, or through pinned memory to a device.
class AdapterStore::FrameSink {
 public:
  FrameSink(Device* device, const std::vector<uint32_t>* frames, const FramePool* pool, int64_t frame_bytes)
      : frames_(frames), pool_(pool), frame_bytes_(frame_bytes) {
    if (frames != nullptr) uploads_ = device->BeginUploads();
    if (frames == nullptr) buffer_.resize(static_cast<size_t>(frame_bytes));
  }
  // What is still on its way goes to frames that somebody else may get.
  ~FrameSink() {
    if (uploads_ != nullptr && !has_left_) uploads_->Leave()->Wait();
  }
  FrameSink(const FrameSink&) = delete;
  FrameSink& operator=(const FrameSink&) = delete;

  // Frames [begin, end) of the pack, as the next part.
  bool Take(PackReader* pack, int64_t begin, int64_t end) {
    uint8_t* staged = nullptr;
    if (uploads_ != nullptr && !uploads_->Stage(static_cast<size_t>((end - begin) * frame_bytes_), &staged).ok())
      return false;
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* const to = uploads_ != nullptr  ? staged + (i - begin) * frame_bytes_
                          : frames_ != nullptr ? Frame(i)
                                               : buffer_.data();
      if (!pack->ReadFrame(i, to)) return false;
    }
    if (uploads_ == nullptr) return true;
    for (int64_t i = begin, next = begin; i < end; i = next) {
      while (next < end && Frame(next) == Frame(i) + (next - i) * frame_bytes_) ++next;
      uploads_->Copy(Frame(i), staged + (i - begin) * frame_bytes_, static_cast<size_t>((next - i) * frame_bytes_));
    }
    uploads_->EndPart();
    return true;
  }
  // Of frames that are on their way; null where all are there.
  std::shared_ptr<Landing> Leave() {
    has_left_ = true;
    return uploads_ == nullptr ? nullptr : uploads_->Leave();
  }

 private:
  uint8_t* Frame(int64_t i) const { return pool_->Frame((*frames_)[static_cast<size_t>(i)]); }

  const std::vector<uint32_t>* const frames_;
  const FramePool* const pool_;
  const int64_t frame_bytes_;
  std::unique_ptr<Uploads> uploads_;
  std::vector<uint8_t> buffer_;
  bool has_left_ = false;
};

// Reads the pack, into `frames` if there are any. False where it isn't there or isn't sound: the frames hold anything
// then. Frames of the pool that stand side by side are not read at once: a frame is checked while it is warm.
bool AdapterStore::ReadPack(const AdapterContent& content, const std::vector<uint32_t>* frames, const FramePool* pool,
                            const Pace& pace, LoadedAdapter* loaded, StoreReport* report, bool* has_given_up) {
  *has_given_up = false;
  if (options_.folder.empty()) return false;
  PackReader pack;
  std::string why;
  const std::string path = PathOf(content.key);
  const bool is_cached_only = report->is_cached_only;
  if (!pack.Open(path, content.key, format_, is_cached_only, &why) || pack.frames() != content.frames) return false;
  if (!is_cached_only) pack.file().WillNeed();
  const int64_t frame_bytes = format_.tiles.frame_bytes, frames_each = std::max<int64_t>(1, kChunkBytes / frame_bytes);
  FrameSink sink(device_, frames, pool, frame_bytes);
  for (int64_t begin = 0; begin < pack.frames(); begin += frames_each) {
    const int64_t end = std::min(begin + frames_each, pack.frames());
    *has_given_up = !pace((end - begin) * frame_bytes);
    if (*has_given_up || !sink.Take(&pack, begin, end)) return false;
    report->bytes_read += (end - begin) * frame_bytes;
  }
  if (loaded != nullptr) {
    loaded->layout = PlanTiles(pack.manifest(), format_.shapes, format_.tiles);
    if (loaded->layout.frames != pack.frames()) return false;
    loaded->landing = sink.Leave();
    if (loaded->landing != nullptr)
      loaded->landing->part_of_site = PartsOfSites(loaded->layout, format_.shapes, frames_each);
  }
  report->has_pack = true;
  if (!is_cached_only) MarkPackUsed(path);  // which may write
  return true;
}

// Makes the pack. A disk that can't be written is noted, and is no error: `has_pack` says.
Status AdapterStore::Build(const AdapterContent& content, const Pace& pace, StoreReport* report) {
  AdapterSource source;
  OPENLORA_RETURN_IF_ERROR(ReadSource(content, &source));
  const TileLayout layout = PlanTiles(source.manifest, format_.shapes, format_.tiles);
  auto pack = std::make_unique<PackWriter>();
  Status written = pack->Create(PathOf(content.key), content.key, format_, source.manifest, layout);
  if (written.ok()) {
    const Status filled = FillTiles(
        source, layout, format_.tiles,
        [&](const TilePlace& place, const uint8_t* tile, size_t bytes) {
          return written = pack->Write(place, tile, bytes);
        },
        AtPackCost(pace));
    if (!filled.ok() && written.ok()) return filled;
  }
  if (written.ok()) written = pack->Publish();
  if (!written.ok()) {
    NoteWriteFailure(written, report);
    return Ok();
  }
  for (const AdapterSite& site : source.manifest.sites) report->bytes_read += site.a.bytes + site.b.bytes;
  report->has_pack = report->has_built = true;
  report->written = std::move(pack);
  return Ok();
}

Status AdapterStore::Prepare(const AdapterContent& content, const Pace& pace, StoreReport* report) {
  bool has_given_up = false;
  if (ReadPack(content, nullptr, nullptr, pace, nullptr, report, &has_given_up)) return Ok();
  report->needs_pack = report->reads_only && !has_given_up;
  if (has_given_up || report->needs_pack) return Aborted();
  return CanWrite(content) ? Build(content, pace, report) : Ok();
}

Status AdapterStore::Load(const AdapterContent& content, const std::vector<uint32_t>& frames, const FramePool& pool,
                          const Pace& pace, LoadedAdapter* loaded, StoreReport* report) {
  bool has_given_up = false;
  const auto read = [&] { return ReadPack(content, &frames, &pool, pace, loaded, report, &has_given_up); };
  bool is_loaded = read();
  report->needs_pack = report->reads_only && !is_loaded && !has_given_up;
  if (report->needs_pack) return Aborted();
  if (!is_loaded && !has_given_up && CanWrite(content)) {
    OPENLORA_RETURN_IF_ERROR(Build(content, pace, report));
    is_loaded = report->has_pack && read();
  }
  if (has_given_up) return Aborted();
  return is_loaded ? Ok() : LoadFromSource(content, frames, pool, pace, loaded, report);
}

Status AdapterStore::LoadFromSource(const AdapterContent& content, const std::vector<uint32_t>& frames,
                                    const FramePool& pool, const Pace& pace, LoadedAdapter* loaded,
                                    StoreReport* report) {
  AdapterSource source;
  OPENLORA_RETURN_IF_ERROR(ReadSource(content, &source));
  loaded->layout = PlanTiles(source.manifest, format_.shapes, format_.tiles);
  OPENLORA_RETURN_IF_ERROR(FillTiles(
      source, loaded->layout, format_.tiles,
      [&](const TilePlace& place, const uint8_t* tile, size_t bytes) {
        return device_->Upload(pool.Frame(frames[static_cast<size_t>(place.frame)]) + place.offset, tile, bytes);
      },
      AtPackCost(pace)));
  for (const AdapterSite& site : source.manifest.sites) report->bytes_read += site.a.bytes + site.b.bytes;
  return Ok();
}

void AdapterStore::Settle(StoreReport* report) {
  if (report->written == nullptr) return;
  const int64_t bytes = report->written->bytes();
  // What isn't on the disk by now, the system will try to write later; a load that finds it torn makes it again.
  (void)report->written->Sync();
  report->written.reset();
  const int64_t total = disk_bytes_ += bytes, since = written_since_scan_ += bytes;
  if (total <= options_.disk_bytes && since <= options_.disk_bytes / 16) return;
  written_since_scan_ = 0;
  disk_bytes_ = TrimPacks(options_.folder, options_.disk_bytes);
}

void AdapterStore::ReadAhead(const Sha256::Digest& key) const {
  File file;
  const std::string path = PathOf(key);
  if (options_.folder.empty() || !File::Open(path, &file).ok()) return;
  file.WillNeed();
  MarkPackUsed(path);
}

void AdapterStore::DropFromPageCache(const AdapterContent& content) const {
  File file;
  if (!options_.folder.empty() && File::Open(PathOf(content.key), &file).ok()) file.DoneWith();
}

}  // namespace openlora
