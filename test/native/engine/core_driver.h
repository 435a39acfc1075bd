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
class CoreDriver {
 public:
  explicit CoreDriver(EngineOptions options) : base_files_(options.files), core_(std::move(options), &outbox_) {
    opened_ = core_.Open(is_aborted_);
    core_.Connect({[this](Adapter* adapter) { work_.push_back({adapter, true, {}, {}}); },
                   [this](Adapter* adapter) { work_.push_back({adapter, false, {}, {}}); }});
  }

  const Status& opened() const { return opened_; }
  EngineCore& core() { return core_; }
  Answer& answer(int64_t request) { return answers_[request]; }
  // After a Read.
  const OpenedEvent& opened_event() const { return opened_event_; }
  const std::vector<ProgressEvent>& progress() const { return progress_; }
  std::map<int64_t, std::string>& adapter_events() { return adapter_events_; }
  bool has_ended(int64_t request) { return !answers_[request].end.empty(); }
  bool has_loader_work() const { return !work_.empty(); }

  // Does the oldest check or load.
  void DoLoaderWork() {
    LoaderResult result = work_.front();
    work_.pop_front();
    Adapter* adapter = result.adapter;
    const AdapterResidency& residency = core_.residency();
    result.status = result.is_check ? CheckAdapter(adapter->manifest, residency.shapes(), base_files_, is_aborted_,
                                                   &result.identity)
                                    : FillTiles(adapter->manifest, adapter->identity, adapter->layout, adapter->frames,
                                                residency.format(), core_.pool(), core_.device(), is_aborted_);
    core_.FinishLoader(std::move(result));
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

  std::atomic<bool> is_aborted_{false};
  Outbox outbox_{[] {}};
  std::vector<std::string> base_files_;
  EngineCore core_;
  Status opened_;
  OpenedEvent opened_event_;
  std::vector<ProgressEvent> progress_;
  std::deque<LoaderResult> work_;
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
