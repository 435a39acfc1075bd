#include "engine/engine.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "engine/core_driver.h"
#include "engine/tiny_model.h"

namespace openlora {
namespace {

// An engine with its thread, and a reader on the test's.
class EngineThreadTest : public testing::Test {
 protected:
  void Open(EngineOptions options) {
    const std::lock_guard lock(mutex_);  // its thread finds engine_ set
    engine_ = std::make_unique<Engine>(std::move(options), [this] {
      std::function<void()> act;
      {
        const std::lock_guard wake_lock(mutex_);
        is_woken_ = true;
        wake_.notify_one();
        act = std::exchange(at_wake_, nullptr);
      }
      if (act) act();
    });
  }
  // Has the engine's thread do this in its next wake.
  void AtNextWake(std::function<void()> act) {
    const std::lock_guard lock(mutex_);
    at_wake_ = std::move(act);
  }
  // Reads until `done` holds.
  template <typename Done>
  void ReadUntil(const Done& done) {
    while (!done()) {
      {
        std::unique_lock lock(mutex_);
        ASSERT_TRUE(wake_.wait_for(lock, std::chrono::seconds(60), [this] { return is_woken_; }))
            << "nothing came for a minute";
        is_woken_ = false;
      }
      for (const ControlEvent& event : engine_->Take().events) Note(event);
    }
  }
  void Note(const ControlEvent& event) {
    if (std::holds_alternative<OpenedEvent>(event)) is_open_ = true;
    if (std::holds_alternative<ClosedEvent>(event)) is_closed_ = true;
    if (const auto* failed = std::get_if<OpenFailedEvent>(&event)) open_error_ = failed->status.code();
    if (const auto* end = std::get_if<EndEvent>(&event))
      ends_[end->request] += end->reason == FinishReason::kCancelled ? "cancelled" : "end";
    if (const auto* failed = std::get_if<FailedEvent>(&event)) ends_[failed->request] += failed->status.code();
    if (const auto* ready = std::get_if<AdapterReadyEvent>(&event)) adapters_[ready->handle] = "ready";
    if (const auto* failed = std::get_if<AdapterFailedEvent>(&event)) adapters_[failed->handle] = failed->status.code();
  }

  TestFolder folder_{"engine"};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_woken_ = false;
  std::function<void()> at_wake_;
  bool is_open_ = false, is_closed_ = false;
  std::string open_error_;
  std::map<int64_t, std::string> ends_;
  std::map<int64_t, std::string> adapters_;
  std::unique_ptr<Engine> engine_;  // last: its thread uses the above
};

TEST_F(EngineThreadTest, ServesRequestsAndAdaptersAndEndsEachOnce) {
  Open(TinyOptions(folder_, 2));
  engine_->Register(1, TinyAdapter(folder_, "a", 8, 0, 5));
  for (int64_t id = 1; id <= 40; ++id) engine_->Submit(MakeRequest(id, {1, 2, 3}, 20));
  ReadUntil([&] { return adapters_.contains(1); });
  for (int64_t id = 41; id <= 60; ++id) engine_->Submit(MakeRequest(id, {1, 2, 3}, 20, {{1, 1.0f}}));
  for (int64_t id = 1; id <= 60; id += 3) engine_->Cancel(id);
  ReadUntil([&] { return ends_.size() == 60; });
  for (const auto& [id, end] : ends_) EXPECT_TRUE(end == "end" || end == "cancelled") << id << ": " << end;
  Tier tier;
  EXPECT_TRUE(engine_->FindTier(1, &tier));
  EXPECT_FALSE(engine_->FindTier(2, &tier));
  EXPECT_GT(engine_->Stats().tokens_out, 0u);
}

TEST_F(EngineThreadTest, CloseEndsEveryRequestAndEveryRegistrationWithItsEvent) {
  EngineOptions options = TinyOptions(folder_, 2);
  options.model.context = 1024;
  Open(std::move(options));
  ReadUntil([&] { return is_open_; });
  // A request stands still when 256 of its tokens have not been taken, so none of these ends before Close.
  for (int64_t id = 1; id <= 30; ++id) engine_->Submit(MakeRequest(id, {1, 2, 3}, 300));
  for (int64_t handle = 1; handle <= 10; ++handle)
    engine_->Register(handle, TinyAdapter(folder_, "a" + std::to_string(handle), 8, 0, 5));
  engine_->Close();
  ReadUntil([&] { return is_closed_; });
  EXPECT_EQ(ends_.size(), 30u);
  EXPECT_EQ(adapters_.size(), 10u);
  for (const auto& [id, end] : ends_) EXPECT_EQ(end, kErrClosed);
}

TEST_F(EngineThreadTest, CloseWhileLoadingGivesUpAndSaysSo) {
  // The first wake reports progress, before any matrix is packed.
  AtNextWake([this] {
    engine_->Submit(MakeRequest(1, {1}, 5));
    engine_->Close();
  });
  Open(TinyOptions(folder_, 2));
  ReadUntil([&] { return is_closed_; });
  EXPECT_FALSE(is_open_);
  EXPECT_EQ(open_error_, kErrAborted);
  EXPECT_EQ(ends_[1], kErrAborted);
}

TEST_F(EngineThreadTest, AFailedLoadIsReportedOnceAndClosesTheEngine) {
  EngineOptions options = TinyOptions(folder_);
  options.files[0] += "-missing";
  Open(std::move(options));
  ReadUntil([&] { return is_closed_; });
  EXPECT_EQ(open_error_, kErrIo);
  EXPECT_FALSE(is_open_);
}

TEST_F(EngineThreadTest, DestructionWithWorkInFlightWaitsForNothingButAStep) {
  Open(TinyOptions(folder_, 2));
  ReadUntil([&] { return is_open_; });
  for (int64_t id = 1; id <= 30; ++id) engine_->Submit(MakeRequest(id, {1, 2, 3}, 250));
  engine_.reset();
}

TEST_F(EngineThreadTest, AFullQueueRefusesWithoutWaitingForTheEngine) {
  EngineOptions options = TinyOptions(folder_);
  options.max_queued = 4;
  Open(std::move(options));
  for (int64_t id = 1; id <= 50; ++id) engine_->Submit(MakeRequest(id, {1}, 5));
  ReadUntil([&] { return ends_.size() == 50; });
  int refused = 0;
  for (const auto& [id, end] : ends_) refused += end == kErrOverloaded ? 1 : 0;
  EXPECT_GT(refused, 0);
  EXPECT_LE(refused, 46);
}

TEST_F(EngineThreadTest, ADeadlineWakesAnEngineThatWaits) {
  Open(TinyOptions(folder_));
  ReadUntil([&] { return is_open_; });
  Request request = MakeRequest(1, {1}, 200);
  request.deadline_ms = 100;
  AtNextWake([this] { engine_->SetPaused(1, true); });  // with its first token: from then on there is nothing to do
  engine_->Submit(request);
  ReadUntil([&] { return ends_.contains(1); });
  EXPECT_EQ(ends_[1], kErrDeadline);
  EXPECT_LE(engine_->Stats().tokens_out, 1u);
}

TEST(EngineWakesTest, AReaderIsWokenOnceAStepAtTheMostHoweverManyRequestsRun) {
  constexpr int kRequests = 32, kTokens = 40;
  const TestFolder folder("wakes");
  std::mutex mutex;
  std::condition_variable news;
  int wakes = 0, events = 0, tokens = 0, ends = 0;
  bool is_closed = false;
  std::unique_ptr<Engine> engine;
  // The fastest reader that there can be: nothing gathers while it looks away.
  const auto read = [&] {
    const std::lock_guard lock(mutex);
    const EventBatch batch = engine->Take();
    ++wakes;
    events += static_cast<int>(batch.events.size());
    for (size_t at = 0; at < batch.records.size(); ++tokens) {
      uint32_t bytes;
      std::memcpy(&bytes, batch.records.data() + at, sizeof bytes);
      at += bytes;
    }
    for (const ControlEvent& event : batch.events) {
      ends += std::holds_alternative<EndEvent>(event) ? 1 : 0;
      is_closed = is_closed || std::holds_alternative<ClosedEvent>(event);
    }
    news.notify_one();
  };
  std::unique_lock lock(mutex);  // loading waits in its first wake until all requests are there
  engine = std::make_unique<Engine>(TinyOptions(folder, 2), read);
  for (int64_t id = 1; id <= kRequests; ++id) engine->Submit(MakeRequest(id, {1, 2, 3}, kTokens));
  ASSERT_TRUE(news.wait_for(lock, std::chrono::seconds(60), [&] { return ends == kRequests; }));
  EXPECT_GE(tokens, kRequests * kTokens);
  const auto steps = static_cast<int>(engine->Stats().steps);
  EXPECT_LE(wakes, steps + events);
  EXPECT_LT(steps + events, kRequests * kTokens / 4);
  engine->Close();
  ASSERT_TRUE(news.wait_for(lock, std::chrono::seconds(60), [&] { return is_closed; }));
  lock.unlock();
}

}  // namespace
}  // namespace openlora
