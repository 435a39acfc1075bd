#include <algorithm>
#include <string_view>

#include "base/clock.h"
#include "base/plant.h"
#include "engine/engine_core.h"
#include "memory/eviction_plan.h"

namespace openlora {

// What the core does with adapters: registration, what the loader is asked for, and the tiers.

void EngineCore::Register(int64_t handle, AdapterManifest manifest) {
  residency_->Add(handle);
  LoaderJob job;
  job.task = LoaderTask::kCheck;
  job.handle = handle;
  job.manifest = std::make_shared<const AdapterManifest>(std::move(manifest));
  loader_->Start(std::move(job));
}

void EngineCore::Unregister(int64_t handle) {
  Adapter* adapter = residency_->Find(handle);
  if (adapter == nullptr) return;
  adapter->is_hidden = true;
  Unpin(adapter);
  AdvanceHolds(adapter, Error(kErrAdapterNotFound, "adapter %lld was unregistered", static_cast<long long>(handle)),
               false);
  ReleaseAdapter(adapter);
}

// A sequence or a hold let go of it: what nobody wants any more ends, and a hidden one that nothing uses goes.
void EngineCore::ReleaseAdapter(Adapter* adapter) {
  DropUnwanted(adapter);
  const bool is_busy = adapter->state == AdapterState::kChecking || adapter->state == AdapterState::kLoading;
  if (!adapter->is_hidden || adapter->references > 0 || is_busy) return;
  const int64_t handle = adapter->handle;
  const AdapterContent content = adapter->content;
  if (adapter->is_host) LeaveHost(adapter);
  if (!residency_->EraseIfUnused(adapter, step_)) return;
  loader_->Discard(content);
  outbox_->Push(AdapterRetiredEvent{handle});
}

void EngineCore::DropUnwanted(Adapter* adapter) {
  if (adapter->references > 0 || holds_.contains(adapter->handle)) return;
  const bool is_loading = adapter->state == AdapterState::kLoading && !adapter->is_dropped;
  if (!is_loading && adapter->preparing == Preparing::kNo) return;
  loader_->Drop(adapter->handle);
  adapter->preparing = Preparing::kNo;
  adapter->is_dropped = is_loading || adapter->is_dropped;
}

// Brings it to the host tier, unless it is there, or nearer, or on its way.
void EngineCore::PrepareFor(Adapter* adapter, Preparing how) {
  if (adapter->state != AdapterState::kRegistered || adapter->is_host || adapter->preparing >= how) return;
  adapter->preparing = how;
  LoaderJob job;
  job.task = LoaderTask::kPrepare;
  job.handle = adapter->handle;
  job.is_waited = how == Preparing::kWaited;
  job.content = adapter->content;
  loader_->Start(std::move(job));
}

LoaderJob EngineCore::LoadJob(const Adapter& adapter) const {
  LoaderJob job;
  job.task = LoaderTask::kLoad;
  job.handle = adapter.handle;
  job.is_waited = true;
  job.is_host = adapter.is_host;
  job.content = adapter.content;
  job.frames = adapter.frames;
  return job;
}

void EngineCore::StartLoad(Adapter* adapter) {
  adapter->preparing = Preparing::kNo;  // the load does that too
  adapter->is_dropped = false;
  loader_->Start(LoadJob(*adapter));
}

// What is in the page cache, of the host tier or read ahead since its request came, is copied here, as far as
// `bytes_now` go: 0.3 ms for a MiB, where its request would else wait for the end of a step. True if something is there
// now.
bool EngineCore::StartLoads(const StepPlan& plan, int64_t* bytes_now) {
  bool is_there = false;
  // Reading a pack would keep a device of its own waiting, whose steps take less than that.
  const bool is_host = backend_.device->is_host();
  for (Adapter* adapter : plan.loads) {
    LoaderResult result;
    const bool may_now = is_host && adapter->content.has_pack && adapter->content.pack_bytes <= *bytes_now;
    if (!may_now || !loader_->LoadNow(LoadJob(*adapter), &result)) {
      StartLoad(adapter);
      continue;
    }
    *bytes_now -= adapter->content.pack_bytes;
    is_there = true;
    if (std::exchange(adapter->preparing, Preparing::kNo) != Preparing::kNo) loader_->Drop(adapter->handle);
    FinishLoader(std::move(result));
  }
  return is_there;
}

void EngineCore::FinishLoader(LoaderResult result) {
  if (!result.warning.empty()) {
    outbox_->Push(WarningEvent{Status(
        kWarnAdapterCache, "packed adapters can't be kept, so they are packed anew for each load: " + result.warning)});
  }
  stats_.adapter_packs += result.has_built ? 1 : 0;
  stats_.adapter_bytes_read += static_cast<uint64_t>(result.bytes_read);
  Adapter* adapter = residency_->FindAlsoHidden(result.handle);
  if (adapter == nullptr) return;  // it went while its pack was made
  switch (result.task) {
    case LoaderTask::kCheck:
      return FinishCheck(adapter, &result);
    case LoaderTask::kPrepare:
      return FinishPrepare(adapter, result);
    case LoaderTask::kLoad:
      return FinishLoad(adapter, &result);
  }
}

void EngineCore::FinishCheck(Adapter* adapter, LoaderResult* result) {
  if (!result->status.ok()) {
    outbox_->Push(AdapterFailedEvent{adapter->handle, result->status});
    residency_->Refuse(adapter);
    return;
  }
  residency_->SetChecked(adapter, std::move(result->content));
  outbox_->Push(AdapterReadyEvent{adapter->handle, ToHex(adapter->content.generation), adapter->bytes});
  ReleaseAdapter(adapter);
}

void EngineCore::FinishPrepare(Adapter* adapter, const LoaderResult& result) {
  adapter->preparing = Preparing::kNo;
  if (adapter->state != AdapterState::kRegistered) return;  // a load came after it, which tells more
  if (result.status.ok()) adapter->content.has_pack = result.has_pack;
  if (result.has_pack && !adapter->is_hidden) EnterHost(adapter);
  if (!result.has_pack && adapter->is_host) LeaveHost(adapter);
  AdvanceHolds(adapter, result.status, true);
}

void EngineCore::FinishLoad(Adapter* adapter, LoaderResult* result) {
  const bool was_dropped = std::exchange(adapter->is_dropped, false);
  const bool is_wanted = adapter->references > 0 || holds_.contains(adapter->handle);
  // It was dropped, and then somebody came: its frames are still its own.
  if (was_dropped && is_wanted && IsAborted(result->status)) return StartLoad(adapter);
  const bool has_succeeded = result->status.ok();
  if (IsPlanted(Plant::kLostLoad) && !is_wanted) return;
  residency_->FinishLoad(adapter, has_succeeded ? &result->loaded : nullptr, step_);
  if (has_succeeded) adapter->content.has_pack = result->has_pack;
  if (has_succeeded && result->has_pack && !adapter->is_hidden) EnterHost(adapter);
  if (has_succeeded && !result->has_pack && adapter->is_host) LeaveHost(adapter);
  const double now = NowMs();
  std::vector<Sequence*> failed;
  for (const auto& [id, sequence] : sequences_) {
    if (std::find(sequence->adapters.begin(), sequence->adapters.end(), adapter) == sequence->adapters.end()) continue;
    sequence->adapters_ready_ms = now;
    if (!has_succeeded) failed.push_back(sequence.get());
  }
  AdvanceHolds(adapter, result->status, false);
  if (failed.empty()) return ReleaseAdapter(adapter);
  // Forget releases it when the last of them goes.
  for (Sequence* sequence : failed) Fail(sequence, result->status);
}

// Its pack is in the page cache.
void EngineCore::EnterHost(Adapter* adapter) {
  std::vector<Adapter*> left;
  host_->Use(adapter, &left);
  residency_->NoteChange(adapter);
  for (Adapter* other : left) {
    residency_->NoteChange(other);
    loader_->DropFromPageCache(other->content);
  }
}

void EngineCore::LeaveHost(Adapter* adapter) {
  host_->Remove(adapter);
  residency_->NoteChange(adapter);
  loader_->DropFromPageCache(adapter->content);
}

Tier EngineCore::TierOf(const Adapter& adapter) const {
  if (adapter.state == AdapterState::kResident) return Tier::kResident;
  if (adapter.state == AdapterState::kLoading) return Tier::kLoading;
  return adapter.is_host ? Tier::kHost : Tier::kRegistered;
}

Status EngineCore::CheckHold(const Adapter& adapter, HoldKind kind) const {
  const int64_t bytes = pool_.BytesOf(adapter.frames_needed);
  if (kind == HoldKind::kHost && adapter.content.pack_bytes > host_->bytes_max())
    return Error(kErrHostMemory, "the packed adapter has %lld bytes, hostAdapterMemory is %lld",
                 static_cast<long long>(adapter.content.pack_bytes), static_cast<long long>(host_->bytes_max()));
  if (kind == HoldKind::kPin && !adapter.is_pinned && pinned_bytes_ + bytes > options_.pinned_adapter_bytes)
    return Error(kErrAdapterPinned, "%lld bytes would be pinned, pinnedAdapterMemory is %lld",
                 static_cast<long long>(pinned_bytes_ + bytes), static_cast<long long>(options_.pinned_adapter_bytes));
  return Ok();
}

void EngineCore::Hold(int64_t handle, int64_t ticket, HoldKind kind) {
  Adapter* adapter = residency_->Find(handle);
  Status status = Ok();
  if (adapter == nullptr || adapter->state == AdapterState::kChecking) {
    status = Error(kErrAdapterNotFound, "adapter %lld isn't registered", static_cast<long long>(handle));
  } else {
    status = CheckHold(*adapter, kind);
  }
  if (!status.ok()) return outbox_->Push(AdapterHeldEvent{ticket, status});
  if (kind == HoldKind::kPin) pinned_bytes_ += pool_.BytesOf(adapter->frames_needed);
  holds_[handle].push_back({ticket, kind});
  AdvanceHolds(adapter, Ok(), adapter->is_host);
}

// Takes the frames of unpinned adapters and of cached prefixes, never those of requests: it fails where that isn't
// enough.
Status EngineCore::ReserveForHold(Adapter* adapter) {
  const int64_t needed = adapter->frames_needed + kv_->FramesFor(1);  // a block stays for those that run
  std::vector<Adapter*> evictions;
  std::vector<PrefixBlock*> drops;
  {
    EvictionPlan plan(&eviction_, pool_.frames(FrameUse::kPrefix), kv_->layers());
    int64_t free = pool_.frames_free();
    if (!plan.MakeRoom(needed, &free, &evictions, &drops))
      return Error(kErrOutOfMemory, "the adapter needs %lld bytes, %lld are free or could be",
                   static_cast<long long>(pool_.BytesOf(needed)),
                   static_cast<long long>(pool_.BytesOf(free + plan.frames_reachable())));
  }
  for (Adapter* victim : evictions) residency_->Evict(victim, step_);
  for (PrefixBlock* block : drops) kv_->Drop(block, step_);
  pool_.Reclaim(step_);
  if (!residency_->Reserve(adapter)) return Status(kErrInternal, "frames that were free are not");
  StartLoad(adapter);
  return Ok();
}

// Something happened to an adapter, or to what is asked of it: a hold that has what it asked for is told so, those that
// wait go a tier further. `is_prepared`: nothing more can be done to have its pack in the host tier. An error ends
// them.
void EngineCore::AdvanceHolds(Adapter* adapter, const Status& status, bool is_prepared) {
  const auto found = holds_.find(adapter->handle);
  if (found == holds_.end()) return;
  const std::vector<HoldTicket> waiting = std::move(found->second);
  const bool wants_frames =
      std::any_of(waiting.begin(), waiting.end(), [](const HoldTicket& hold) { return hold.kind != HoldKind::kHost; });
  Status of_frames = status;
  if (status.ok() && is_prepared && wants_frames && adapter->state == AdapterState::kRegistered)
    of_frames = ReserveForHold(adapter);
  std::vector<HoldTicket> left;
  for (const HoldTicket& hold : waiting) {
    const bool is_for_host = hold.kind == HoldKind::kHost;
    const Status& outcome = is_for_host ? status : of_frames;
    const bool is_there = adapter->state == AdapterState::kResident || (is_for_host && is_prepared);
    if (outcome.ok() && !is_there) {
      left.push_back(hold);
    } else {
      EndHold(adapter, hold, outcome);
    }
  }
  if (left.empty()) {
    holds_.erase(found);
  } else {
    found->second = std::move(left);
    PrepareFor(adapter, Preparing::kIdle);
  }
}

void EngineCore::EndHold(Adapter* adapter, const HoldTicket& hold, const Status& status) {
  outbox_->Push(AdapterHeldEvent{hold.ticket, status});
  // Whoever loads it ahead means to use it: else it would be the first to go.
  if (status.ok() && hold.kind == HoldKind::kDevice) eviction_.Use(&adapter->eviction);
  if (hold.kind != HoldKind::kPin) return;
  if (status.ok() && !adapter->is_pinned) {
    adapter->is_pinned = true;
    residency_->Pin(adapter, false);
  } else {
    pinned_bytes_ -= pool_.BytesOf(adapter->frames_needed);
  }
}

void EngineCore::Unpin(Adapter* adapter) {
  if (!adapter->is_pinned) return;
  adapter->is_pinned = false;
  residency_->Unpin(adapter);
  pinned_bytes_ -= pool_.BytesOf(adapter->frames_needed);
}

void EngineCore::FailHolds(const Status& status) {
  for (const auto& [handle, holds] : holds_) {
    for (const HoldTicket& hold : holds) outbox_->Push(AdapterHeldEvent{hold.ticket, status});
  }
  holds_.clear();
}

}  // namespace openlora
