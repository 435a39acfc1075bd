#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/batch.h"
#include "engine/engine_options.h"
#include "engine/loader_job.h"
#include "engine/outbox.h"
#include "engine/scheduler.h"
#include "engine/step_pace.h"
#include "memory/host_tier.h"
#include "model/decoder_forward.h"

namespace openlora {

// The engine without its thread: what is asked of it goes in by calls, Step does one step, what happened goes to the
// outbox, which the caller flushes. One thread at a time. Every accepted request ends in exactly one EndEvent or
// FailedEvent.
class EngineCore {
 public:
  EngineCore(EngineOptions options, Outbox* outbox) : options_(std::move(options)), outbox_(outbox) {}
  ~EngineCore();
  EngineCore(const EngineCore&) = delete;
  EngineCore& operator=(const EngineCore&) = delete;

  // Loads the base and lays out memory. `is_aborted` ends it, and later any step, early.
  Status Open(const std::atomic<bool>& is_aborted);
  // Before the first adapter is registered.
  void Connect(LoaderPort* loader) { loader_ = loader; }
  // The loader is gone: nothing but Close may follow.
  void Disconnect() { loader_ = &no_loader_; }

  void Submit(Request request);
  void Cancel(int64_t request);
  void SetPaused(int64_t request, bool is_paused);
  void Register(int64_t handle, AdapterManifest manifest);
  void Unregister(int64_t handle);
  // Brings an adapter to a tier ahead of requests; one AdapterHeldEvent with the ticket says when, or why not.
  void Hold(int64_t handle, int64_t ticket, HoldKind kind);
  void FinishLoader(LoaderResult result);

  // One step. False when there was nothing that could be done before something comes in.
  bool Step();
  void FailAll(const Status& status);
  // The end: no request and no registration is left without its event.
  void Close(const Status& status);

  int64_t requests() const { return static_cast<int64_t>(sequences_.size()); }
  // Milliseconds until the next deadline, from now; negative: none.
  double NextDeadlineMs() const;
  EngineStats Stats() const;
  // By handle. For a reader on another thread the caller copies it.
  Tier TierOf(const Adapter& adapter) const;
  AdapterResidency& residency() const { return *residency_; }
  AdapterStore* store() const { return store_.get(); }
  const FramePool& pool() const { return pool_; }
  Device* device() const { return backend_.device.get(); }
  // The invariants of ARCHITECTURE.md; a message when one is broken.
  Status CheckInvariants() const;

 private:
  struct HoldTicket {
    int64_t ticket;
    HoldKind kind;
  };

  Status OpenMemory();
  void OpenPrefixes();
  Status OpenWeights(OpenedEvent* opened);
  Status PackWeights();
  OnLoadProgress Reporting(LoadPhase phase);
  Status ChoosePool();
  Status ChooseContext(int64_t frames);
  Status CheckRequest(const Request& request) const;
  Status CheckTenant(const Request& request) const;
  Status FindAdapters(const Request& request, std::vector<Adapter*>* adapters) const;
  void ExpireRequests();
  StepPlan MakePlan();
  bool HandleStuck(const StepPlan& plan);
  void RunBatch(const StepPlan& plan);
  void Deliver();
  void AcceptToken(Sequence* sequence, const SampleResult& result);
  void SwitchRope(Sequence* sequence);
  void AcceptScore(Sequence* sequence, int32_t prompt_index, const SampleResult& result);
  void PushRecord(Sequence* sequence, RecordKind kind, const SampleResult& result, bool has_logprob,
                  std::string_view text);
  void End(Sequence* sequence, FinishReason reason);
  void Fail(Sequence* sequence, const Status& status);
  void Forget(Sequence* sequence);
  void ReleaseAdapter(Adapter* adapter);
  Status CheckFrames() const;
  bool IsReady(const Sequence& sequence) const;
  void PrepareFor(Adapter* adapter, Preparing how);
  LoaderJob LoadJob(const Adapter& adapter) const;
  void StartLoad(Adapter* adapter);
  bool StartLoads(const StepPlan& plan, int64_t* bytes_now);
  void FinishCheck(Adapter* adapter, LoaderResult* result);
  void FinishPrepare(Adapter* adapter, const LoaderResult& result);
  void FinishLoad(Adapter* adapter, LoaderResult* result);
  void EnterHost(Adapter* adapter);
  void LeaveHost(Adapter* adapter);
  void DropUnwanted(Adapter* adapter);
  Status CheckHold(const Adapter& adapter, HoldKind kind) const;
  Status ReserveForHold(Adapter* adapter);
  void AdvanceHolds(Adapter* adapter, const Status& status, bool is_prepared);
  void EndHold(Adapter* adapter, const HoldTicket& hold, const Status& status);
  void FailHolds(const Status& status);
  void Unpin(Adapter* adapter);
  std::string_view TextOf(int32_t token) const;

  EngineOptions options_;
  TokenTable tokens_;
  Outbox* outbox_;
  LoaderPort no_loader_;
  LoaderPort* loader_ = &no_loader_;
  const std::atomic<bool>* is_aborted_ = nullptr;

  Backend backend_;
  void* weight_memory_ = nullptr;
  void* buffer_memory_ = nullptr;
  int64_t buffer_bytes_ = 0;
  ModelWeights weights_;
  DecoderBuffers buffers_;
  int32_t max_context_ = 0;
  int32_t frame_tokens_ = 0;
  FramePool pool_;
  EvictionOrder eviction_{&pool_};
  std::unique_ptr<PrefixIndex> prefixes_;  // null: nothing is shared
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<AdapterStore> store_;
  std::unique_ptr<AdapterResidency> residency_;
  std::unique_ptr<HostTier> host_;
  StepPace pace_;
  int64_t upload_bytes_ = 0;  // of a step that has rows
  int64_t pinned_bytes_ = 0;  // of adapters that are pinned, or will be once they are loaded
  std::unordered_map<int64_t, std::vector<HoldTicket>> holds_;  // by handle: those without their event
  std::unique_ptr<Scheduler> scheduler_;

  std::unordered_map<int64_t, std::unique_ptr<Sequence>> sequences_;
  std::set<std::pair<double, int64_t>> deadlines_;  // moment, request
  uint64_t arrivals_ = 0;
  uint64_t step_ = 0;   // the last completed one
  uint64_t epoch_ = 0;  // of the outbox when the step began
  Batch batch_;
  std::vector<SampleRow> sample_rows_;
  std::vector<SampleResult> results_;
  EngineStats stats_;
};

}  // namespace openlora
