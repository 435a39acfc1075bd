#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/scratch_file.h"
#include "memory/adapter_pack.h"
#include "memory/frame_pool.h"
#include "memory/manifest_record.h"

namespace openlora {

// What memory keeps of a registered adapter's content, whatever its size.
struct AdapterContent {
  Sha256::Digest generation{};
  Sha256::Digest key{};  // of its pack
  int64_t frames = 0;
  int64_t bytes = 0;       // of its tiles
  int64_t pack_bytes = 0;  // of its pack file, be it there or not
  int64_t record_offset = -1;
  int64_t record_bytes = 0;
  bool has_pack = false;                        // its pack file was there when we last looked
  std::shared_ptr<const AdapterSource> source;  // where the record couldn't be written, else null
};

// What came of a load: the page table's part of it.
struct LoadedAdapter {
  TileLayout layout;
  std::shared_ptr<Landing> landing;  // of frames that are still on their way; else null
};

// How far the store may go in one call, what it did, for the counters, and what is left to do when whoever waits has
// been told.
struct StoreReport {
  bool reads_only = false;      // in: a pack that isn't there isn't made; `needs_pack` and ERR_ABORTED say so
  bool is_cached_only = false;  // in: a pack that isn't all in the page cache counts as one that isn't there
  bool needs_pack = false;
  bool has_pack = false;                // from now on
  bool has_built = false;               // the pack was made by this call
  int64_t bytes_read = 0;               // of packs and of sources
  std::string warning;                  // at most once in a store's life: packs can't be kept
  std::unique_ptr<PackWriter> written;  // for Settle
};

struct AdapterStoreOptions {
  std::string folder;        // of pack files, shared with other processes; empty: none are kept
  int64_t disk_bytes = 0;    // that pack files of the folder may take; 0: none are kept
  double retry_ms = 60'000;  // after a failure to write, before the next attempt
};

// Adapters on disk: their sources, which are checked once, a record of where each tensor stands, and pack files, made
// at first use out of the very bytes that were checked (SourceReader), which are what is loaded from then on. Once a
// pack is there its source isn't looked at any more: the pack is named by the content that was registered. Check and
// Discard belong to one thread; the rest may be called from any, and takes no locks.
class AdapterStore {
 public:
  AdapterStore(const TileFormat& format, std::vector<SiteShape> shapes, std::vector<std::string> base_files,
               AdapterStoreOptions options, Device* device)
      : format_(MakePackFormat(format, std::move(shapes))),
        base_files_(std::move(base_files)),
        options_(std::move(options)),
        device_(device) {}

  const PackFormat& format() const { return format_; }
  std::string PathOf(const Sha256::Digest& key) const;

  // CheckAdapter, and what is kept of it.
  Status Check(const AdapterManifest& manifest, const std::atomic<bool>& is_cancelled, AdapterContent* content);
  // Forgets the record of an adapter that is gone. Its pack stays, for the next one with its content.
  void Discard(const AdapterContent& content);

  // Makes the pack if there is none, else reads it, so that it is in the page cache. Where none can be kept, that is no
  // error: `has_pack` is false then. ERR_ABORTED when `pace` gives up; an error of the source.
  Status Prepare(const AdapterContent& content, const Pace& pace, StoreReport* report);
  // Fills `frames`, which are the caller's alone, and says what stands where. The pack is made if there is none.
  Status Load(const AdapterContent& content, const std::vector<uint32_t>& frames, const FramePool& pool,
              const Pace& pace, LoadedAdapter* loaded, StoreReport* report);
  // After `report` was told: waits until its pack is on the disk, and removes others where there are too many.
  void Settle(StoreReport* report);
  // Has the system read a pack, and waits for nothing: it will soon be loaded, perhaps by a call that `is_cached_only`.
  void ReadAhead(const Sha256::Digest& key) const;
  // Lets the pack leave the page cache.
  void DropFromPageCache(const AdapterContent& content) const;

 private:
  class FrameSink;

  Status ReadSource(const AdapterContent& content, AdapterSource* source) const;
  bool CanWrite(const AdapterContent& content) const;
  void NoteWriteFailure(const Status& status, StoreReport* report);
  Status Build(const AdapterContent& content, const Pace& pace, StoreReport* report);
  bool ReadPack(const AdapterContent& content, const std::vector<uint32_t>* frames, const FramePool* pool,
                const Pace& pace, LoadedAdapter* loaded, StoreReport* report, bool* has_given_up);
  Status LoadFromSource(const AdapterContent& content, const std::vector<uint32_t>& frames, const FramePool& pool,
                        const Pace& pace, LoadedAdapter* loaded, StoreReport* report);
  void OpenFolder();

  const PackFormat format_;
  const std::vector<std::string> base_files_;
  const AdapterStoreOptions options_;
  Device* const device_;
  bool is_folder_open_ = false;  // Check's thread
  ScratchFile records_;
  std::atomic<double> retry_at_ms_{0};
  std::atomic<bool> has_warned_{false};
  std::atomic<int64_t> disk_bytes_{0};          // of pack files, as far as we know
  std::atomic<int64_t> written_since_scan_{0};  // others write too: now and then we look again
};

}  // namespace openlora
