#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <semaphore>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mailbox.h"
#include "engine/loader_job.h"
#include "engine/upload_budget.h"

namespace openlora {

// Reads adapters' files beside compute, on four threads, so that nothing waits for what takes longer than it:
//
//   checker  registrations: every byte of a source, once
//   reader   packs into frames, those in the page cache first, and has others read ahead; then packs into the page
//   cache
//            for requests that wait
//   packer   what a request waits for and has no pack yet, or a damaged one
//   idler    what was asked for ahead (prefetch, preload), on processors that nobody else wants
//
// What the idler does and a request waits for, the packer takes over from the start. The engine's thread shares locks
// with the first three, for moments; with the idler none, since that may stand still for as long as steps compute.
class AdapterLoader : public LoaderPort {
 public:
  // `on_result` is called on the checker, the reader and the packer.
  AdapterLoader(AdapterStore* store, const FramePool* pool, std::function<void(LoaderResult)> on_result);
  ~AdapterLoader() override;  // gives up what is queued
  AdapterLoader(const AdapterLoader&) = delete;
  AdapterLoader& operator=(const AdapterLoader&) = delete;

  void Start(LoaderJob job) override;
  bool LoadNow(const LoaderJob& job, LoaderResult* result) override;
  void Drop(int64_t handle) override;
  void DropFromPageCache(const AdapterContent& content) override;
  void Discard(const AdapterContent& content) override;
  void SetUploadBytes(int64_t bytes) override { budget_.Set(bytes); }
  // From any thread: a pack that a request names, which the engine's thread will see after its step. By then it may be
  // in the page cache.
  void ReadAhead(const Sha256::Digest& key);

 private:
  struct Work {
    LoaderJob job;
    std::function<void()> chore;  // in place of a job
    std::atomic<bool> is_dropped{false};
  };
  using WorkPtr = std::shared_ptr<Work>;
  static constexpr size_t kRanks = 3;
  static constexpr size_t kIdleKnownMin = 64;

  // What one thread has to do: the lower rank first, in one rank as it came. Of a few the last goes to the highest rank
  // that waits, which so never waits for ever.
  class Line {
   public:
    void Add(WorkPtr work, size_t rank, bool is_first = false);
    void Poke() { items_.release(); }
    void Stop();
    // Waits. False when stopped; null when poked.
    bool Next(WorkPtr* work);
    // Whether the work that was taken should let others pass: not when it was its rank's turn.
    bool ShouldGiveWay(size_t rank) const;
    // Marks what is queued or under way for the adapter.
    void Drop(int64_t handle);
    void DropQueuedPrepare(int64_t handle);

   private:
    mutable std::mutex mutex_;
    std::counting_semaphore<> items_{0};
    std::array<std::deque<WorkPtr>, kRanks> queued_;
    WorkPtr current_;
    uint64_t taken_ = 0;
    bool is_turn_of_last_ = false;
    bool is_stopped_ = false;
  };

  struct Finished {
    LoaderResult result;
    WorkPtr work;
  };

  void Main(Line* line);
  void MainIdle();
  void Stop();
  bool IsOver(const Work& work) const { return is_stopping_ || work.is_dropped; }
  void Do(Line* line, const WorkPtr& work);
  void ForwardIdle();
  void DropIdle(int64_t handle);

  AdapterStore* const store_;
  const FramePool* const pool_;
  const std::function<void(LoaderResult)> on_result_;
  std::atomic<bool> is_stopping_{false};
  UploadBudget budget_;
  Line checks_, reads_, packs_;
  Mailbox<WorkPtr> idle_work_;
  Mailbox<Finished> idle_results_;  // through the packer
  std::counting_semaphore<> idle_items_{0};
  std::unordered_map<int64_t, std::weak_ptr<Work>> idle_;  // by handle; the engine thread's
  size_t idle_known_max_ = kIdleKnownMin;                  // more are looked through for those that are done
  std::array<std::thread, 4> threads_;
};

}  // namespace openlora
