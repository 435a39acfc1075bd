#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "engine/engine_core.h"

namespace openlora {

// What came of one request.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;         // of tokens
  std::vector<float> prompt_logprobs;  // of the prompt from its second token on
  std::string text;
  std::string end;  // "eos", "stop", "length", "cancelled", or an error code
  EndEvent usage;
};

// Drives an EngineCore on the test's own thread: the loader's work is done when the test says so.
class CoreDriver : public LoaderPort {
 public:
  explicit CoreDriver(EngineOptions options) : core_(std::move(options), &outbox_) {
    opened_ = core_.Open(is_aborted_);
    core_.Connect(this);
  }

  void Start(LoaderJob job) override {
    if (job.task != LoaderTask::kCheck) DropPrepare(job.handle);  // what comes now does that too, and more
    work_.push_back({std::move(job), false});
  }
  bool LoadNow(const LoaderJob& job, LoaderResult* result) override {
    if (!loads_now_) return false;
    StoreReport report;
    report.reads_only = true;
    report.is_cached_only = is_cached_only_;
    *result = DoLoaderJob(core_.store(), core_.pool(), job, [](int64_t) { return true; }, is_aborted_, &report);
    return result->status.ok();
  }
  void Drop(int64_t handle) override {
    DropPrepare(handle);
    for (Work& work : work_) work.is_dropped |= work.job.handle == handle;
  }
  void DropFromPageCache(const AdapterContent& content) override {
    dropped_from_page_cache_.push_back(content.key);
    core_.store()->DropFromPageCache(content);
  }
  void Discard(const AdapterContent& content) override { core_.store()->Discard(content); }
  void SetUploadBytes(int64_t bytes) override { upload_bytes_ = bytes; }

  const Status& opened() const { return opened_; }
  EngineCore& core() { return core_; }
  Answer& answer(int64_t request) { return answers_[request]; }
  // After a Read.
  const OpenedEvent& opened_event() const { return opened_event_; }
  const std::vector<ProgressEvent>& progress() const { return progress_; }
  std::map<int64_t, std::string>& adapter_events() { return adapter_events_; }
  // By ticket: "held", or an error code; empty while it waits.
  std::string hold(int64_t ticket) const { return holds_.count(ticket) > 0 ? holds_.at(ticket) : ""; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  bool has_ended(int64_t request) { return !answers_[request].end.empty(); }
  bool has_loader_work() const { return !work_.empty(); }

  // From now on what is in the page cache is loaded within a step, as AdapterLoader does it.
  void set_loads_now() { loads_now_ = true; }
  // And whatever has a pack, be it in the page cache or not: for tests that count them, since that is the system's.
  void set_loads_packs_now() {
    loads_now_ = true;
    is_cached_only_ = false;
  }
  // Of the step that was last planned.
  int64_t upload_bytes() const { return upload_bytes_; }
  // Keys of packs, in order.
  const std::vector<Sha256::Digest>& dropped_from_page_cache() const { return dropped_from_page_cache_; }
  // What is to be done, the oldest first.
  std::vector<LoaderTask> loader_work() const {
    std::vector<LoaderTask> tasks;
    for (const Work& work : work_) tasks.push_back(work.job.task);
    return tasks;
  }
  // Does the oldest job.
  void DoLoaderWork() {
    const Work work = std::move(work_.front());
    work_.pop_front();
    StoreReport report;
    const Pace pace = [&](int64_t) { return !work.is_dropped; };
    core_.FinishLoader(DoLoaderJob(core_.store(), core_.pool(), work.job, pace, is_aborted_, &report));
    core_.store()->Settle(&report);
  }
  void Register(int64_t handle, AdapterManifest manifest) {
    core_.Register(handle, std::move(manifest));
    while (has_loader_work()) DoLoaderWork();
    Read();
  }
  // Steps until nothing more can be done; `steps_max` guards against an endless run.
  void Run(int steps_max = 20'000) {
    int idle = 0;  // a step may have waited for the reader alone
    for (int step = 0; core_.requests() > 0 && idle < 2; ++step) {
      ASSERT_LT(step, steps_max) << "a request never ends";
      idle = core_.Step() || has_loader_work() ? 0 : idle + 1;
      Read();
      if (has_loader_work()) DoLoaderWork();
    }
    Read();
  }
  void Read() {
    outbox_.Flush();
    const EventBatch batch = outbox_.Take();
    ReadRecords(batch.records);
    for (const ControlEvent& event : batch.events) {
      if (const auto* end = std::get_if<EndEvent>(&event)) {
        constexpr const char* kNames[] = {"eos", "stop", "length", "cancelled"};
        EXPECT_TRUE(answers_[end->request].end.empty()) << "request " << end->request << " ended twice";
        answers_[end->request].end = kNames[static_cast<size_t>(end->reason)];
        answers_[end->request].usage = *end;
      } else if (const auto* failed = std::get_if<FailedEvent>(&event)) {
        EXPECT_TRUE(answers_[failed->request].end.empty()) << "request " << failed->request << " ended twice";
        answers_[failed->request].end = failed->status.code();
      } else if (const auto* opened = std::get_if<OpenedEvent>(&event)) {
        opened_event_ = *opened;
      } else if (const auto* progress = std::get_if<ProgressEvent>(&event)) {
        progress_.push_back(*progress);
      } else if (const auto* ready = std::get_if<AdapterReadyEvent>(&event)) {
        adapter_events_[ready->handle] = "ready";
      } else if (const auto* refused = std::get_if<AdapterFailedEvent>(&event)) {
        adapter_events_[refused->handle] = refused->status.code();
      } else if (const auto* held = std::get_if<AdapterHeldEvent>(&event)) {
        EXPECT_EQ(holds_.count(held->ticket), 0u) << "hold " << held->ticket << " ended twice";
        holds_[held->ticket] = held->status.ok() ? "held" : held->status.code();
      } else if (const auto* warning = std::get_if<WarningEvent>(&event)) {
        warnings_.emplace_back(warning->status.code());
      } else if (const auto* retired = std::get_if<AdapterRetiredEvent>(&event)) {
        adapter_events_[retired->handle] = "retired";
      }
    }
  }

 private:
  void ReadRecords(const std::vector<uint8_t>& records) {
    for (size_t at = 0; at < records.size();) {
      uint32_t header[8];
      std::memcpy(header, records.data() + at, sizeof(header));
      float logprob;
      std::memcpy(&logprob, &header[4], 4);
      Answer& answer = answers_[header[1]];
      const auto* text = reinterpret_cast<const char*>(records.data()) + at + 32 + size_t{header[5]} * 8;
      answer.text.append(text, header[6]);
      if (header[2] == static_cast<uint32_t>(RecordKind::kToken)) {
        answer.tokens.push_back(static_cast<int32_t>(header[3]));
        answer.logprobs.push_back(logprob);
      } else if (header[2] == static_cast<uint32_t>(RecordKind::kPrompt)) {
        answer.prompt_logprobs.push_back(logprob);
      }
      at += header[0];
    }
  }

  struct Work {
    LoaderJob job;
    bool is_dropped;
  };

  void DropPrepare(int64_t handle) {
    std::erase_if(work_,
                  [&](const Work& work) { return work.job.handle == handle && work.job.task == LoaderTask::kPrepare; });
  }

  std::atomic<bool> is_aborted_{false};
  Outbox outbox_{[] {}};
  EngineCore core_;
  Status opened_;
  OpenedEvent opened_event_;
  std::vector<ProgressEvent> progress_;
  std::deque<Work> work_;
  int64_t upload_bytes_ = 0;
  bool loads_now_ = false;
  bool is_cached_only_ = true;
  std::vector<Sha256::Digest> dropped_from_page_cache_;
  std::map<int64_t, std::string> holds_;
  std::vector<std::string> warnings_;
  std::map<int64_t, Answer> answers_;
  std::map<int64_t, std::string> adapter_events_;
};

inline Request MakeRequest(int64_t id, std::vector<int32_t> prompt, int32_t max_tokens,
                           std::vector<AdapterUse> adapters = {}) {
  Request request;
  request.id = id;
  request.tokens = std::move(prompt);
  request.max_tokens = max_tokens;
  request.adapters = std::move(adapters);
  request.logprobs = 0;
  return request;
}

}  // namespace openlora
