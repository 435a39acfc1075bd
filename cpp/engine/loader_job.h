#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory/adapter_store.h"

namespace openlora {

enum class LoaderTask : uint8_t {
  kCheck,    // a registration's
  kPrepare,  // disk → host: its pack is made if there is none, and comes into the page cache
  kLoad,     // into its frames
};

// What the loader has to do for one adapter. It holds copies: the adapter may change, and go, meanwhile.
struct LoaderJob {
  LoaderTask task = LoaderTask::kCheck;
  int64_t handle = 0;
  bool is_waited = false;                           // by a request; else of idle priority
  bool is_host = false;                             // it was in the page cache
  std::shared_ptr<const AdapterManifest> manifest;  // of kCheck
  AdapterContent content;                           // of the others
  std::vector<uint32_t> frames;                     // of kLoad
};

struct LoaderResult {
  LoaderTask task = LoaderTask::kCheck;
  int64_t handle = 0;
  Status status;
  AdapterContent content;  // of a check that succeeded
  LoadedAdapter loaded;    // of a load that succeeded
  bool has_pack = false;   // of the others
  bool has_built = false;
  int64_t bytes_read = 0;
  std::string warning;  // packs can't be kept; else empty
};

// Whoever does the jobs, beside the engine: nothing here waits for a disk. Results come through
// EngineCore::FinishLoader. All calls are the engine thread's. This one does nothing.
class LoaderPort {
 public:
  virtual ~LoaderPort() = default;
  virtual void Start(LoaderJob) {}
  // A load, here and now, of a pack that is in the page cache: it waits for nothing. False if that can't be; the frames
  // hold anything then.
  virtual bool LoadNow(const LoaderJob&, LoaderResult*) { return false; }
  // Nobody waits for the adapter's jobs any more. A load answers with ERR_ABORTED, unless it was done; a kPrepare not
  // at all.
  virtual void Drop(int64_t /*handle*/) {}
  // Its pack leaves the host tier.
  virtual void DropFromPageCache(const AdapterContent&) {}
  // It is gone.
  virtual void Discard(const AdapterContent&) {}
  // Bytes that loads may move until this is called again.
  virtual void SetUploadBytes(int64_t /*bytes*/) {}
};

// Does a job here and now. `report` is for AdapterStore::Settle, afterwards.
LoaderResult DoLoaderJob(AdapterStore* store, const FramePool& pool, const LoaderJob& job, const Pace& pace,
                         const std::atomic<bool>& is_cancelled, StoreReport* report);

}  // namespace openlora
