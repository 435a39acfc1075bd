#include "engine/adapter_loader.h"

#include <sched.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>

#include "memory/store_fixture.h"

namespace openlora {
namespace {

TEST(UploadBudget, GrantsWhileAnyIsLeftAndHoldsTheNextUntilItIsSetAgain) {
  UploadBudget budget;
  const auto never = [] { return false; };
  EXPECT_TRUE(budget.Take(int64_t{1} << 60, never));  // unlimited at first
  EXPECT_TRUE(budget.Take(int64_t{1} << 60, never));
  budget.Set(100);
  EXPECT_TRUE(budget.Take(60, never));
  EXPECT_TRUE(budget.Take(1'000, never));
  std::atomic<int> taken{0};
  std::thread waiting([&] {
    for (int i = 0; i < 3; ++i) taken += budget.Take(50, never) ? 1 : 0;
  });
  budget.Set(60);  // two of them
  while (taken < 2) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(taken, 2);
  budget.Set(UploadBudget::kUnlimited);
  waiting.join();
  EXPECT_EQ(taken, 3);
}

TEST(UploadBudget, WhoeverWaitsGivesUpWhenPoked) {
  UploadBudget budget;
  budget.Set(0);
  std::atomic<bool> gives_up{false};
  std::thread waiting([&] { EXPECT_FALSE(budget.Take(1, [&] { return gives_up.load(); })); });
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  gives_up = true;
  budget.Poke();
  waiting.join();
}

TEST(Mailbox, BringsEverythingThatSeveralThreadsSendEachInItsOrder) {
  constexpr int kSenders = 3, kEach = 20'000;
  Mailbox<std::unique_ptr<std::pair<int, int>>> mailbox;
  std::vector<std::thread> senders;
  for (int sender = 0; sender < kSenders; ++sender)
    senders.emplace_back([&, sender] {
      for (int i = 0; i < kEach; ++i) mailbox.Push(std::make_unique<std::pair<int, int>>(sender, i));
    });
  int next[kSenders] = {};
  for (int taken = 0; taken < kSenders * kEach;)
    for (const auto& value : mailbox.TakeAll()) {
      ASSERT_EQ(value->second, next[value->first]++);
      ++taken;
    }
  for (std::thread& sender : senders) sender.join();
  mailbox.Push(std::make_unique<std::pair<int, int>>(0, 0));  // freed with it
}

class AdapterLoaderTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    store_ = Open(Options());
    loader_ = std::make_unique<AdapterLoader>(store_.get(), &pool_, [this](LoaderResult result) {
      std::unique_lock lock(mutex_);
      const bool is_held = result.handle == held_after_;
      results_.push_back(std::move(result));
      came_.notify_one();
      if (is_held) held_.wait(lock, [this] { return held_after_ == 0; });
    });
  }
  void TearDown() override { LetGo(); }
  // The thread that says the next result of this adapter stands still then, until LetGo.
  void HoldThreadAfter(int64_t handle) {
    const std::lock_guard lock(mutex_);
    held_after_ = handle;
  }
  void LetGo() {
    const std::lock_guard lock(mutex_);
    held_after_ = 0;
    held_.notify_all();
  }
  void Register(int64_t handle) {
    const std::string name = "a" + std::to_string(handle);
    LoaderJob job;
    job.handle = handle;
    job.manifest = std::make_shared<AdapterManifest>(TinyAdapter(folder_, name, 8, 0, static_cast<uint64_t>(handle)));
    loader_->Start(std::move(job));
    LoaderResult result = Next();
    while (result.task == LoaderTask::kPrepare) result = Next();  // of one registered before, that was asked for twice
    ASSERT_TRUE(result.status.ok()) << result.status.message();
    contents_[handle] = result.content;
  }
  void Start(int64_t handle, LoaderTask task, bool is_waited = true, bool is_host = false) {
    LoaderJob job;
    job.task = task;
    job.handle = handle;
    job.is_waited = is_waited;
    job.is_host = is_host;
    job.content = contents_[handle];
    if (task == LoaderTask::kLoad) {
      EXPECT_TRUE(pool_.Take(job.content.frames, FrameUse::kAdapter, &job.frames));
    }
    loader_->Start(std::move(job));
  }
  LoaderResult Next() {
    std::unique_lock lock(mutex_);
    const bool has_come = came_.wait_for(lock, std::chrono::seconds(60), [this] { return !results_.empty(); });
    EXPECT_TRUE(has_come) << "nothing came for a minute";
    if (!has_come) return {};
    LoaderResult result = std::move(results_.front());
    results_.pop_front();
    contents_[result.handle].has_pack |= result.has_pack;
    return result;
  }
  bool HasResult() {
    const std::lock_guard lock(mutex_);
    return !results_.empty();
  }

  std::mutex mutex_;
  std::condition_variable came_, held_;
  int64_t held_after_ = 0;
  std::deque<LoaderResult> results_;
  std::map<int64_t, AdapterContent> contents_;
  std::unique_ptr<AdapterStore> store_;
  std::unique_ptr<AdapterLoader> loader_;
};

TEST_F(AdapterLoaderTest, PacksLoadsAndReadsAheadOnItsThreads) {
  for (int64_t handle = 1; handle <= 3; ++handle) Register(handle);
  Start(1, LoaderTask::kPrepare, false);
  LoaderResult result = Next();
  EXPECT_TRUE(result.status.ok() && result.has_built && result.task == LoaderTask::kPrepare);
  Start(2, LoaderTask::kPrepare);
  EXPECT_TRUE(Next().has_built);
  for (int64_t handle = 1; handle <= 3; ++handle) {
    Start(handle, LoaderTask::kLoad, true, handle == 1);
    result = Next();
    EXPECT_TRUE(result.status.ok() && result.task == LoaderTask::kLoad && result.handle == handle);
    EXPECT_EQ(result.has_built, handle == 3);
    EXPECT_FALSE(result.loaded.layout.runs.empty());
  }
  Start(3, LoaderTask::kPrepare);
  result = Next();
  EXPECT_TRUE(result.status.ok() && result.has_pack && !result.has_built);
}

TEST_F(AdapterLoaderTest, ALoadWhosePackIsGoneOrDamagedIsPackedAnew) {
  Register(1);
  Start(1, LoaderTask::kLoad);
  Next();
  WriteAll(store_->PathOf(contents_[1].key), {'x'});
  Start(1, LoaderTask::kLoad, true, true);
  EXPECT_TRUE(Next().has_built);
  std::filesystem::remove(store_->PathOf(contents_[1].key));
  Start(1, LoaderTask::kPrepare);
  EXPECT_TRUE(Next().has_built);
}

TEST_F(AdapterLoaderTest, OthersAreLoadedWhileOneWaitsForItsPack) {
  for (int64_t handle = 1; handle <= 3; ++handle) Register(handle);
  Start(2, LoaderTask::kLoad);
  Next();
  HoldThreadAfter(3);
  Start(3, LoaderTask::kPrepare);
  EXPECT_EQ(Next().handle, 3);
  Start(1, LoaderTask::kLoad);
  for (const bool is_host : {true, false}) {
    Start(2, LoaderTask::kLoad, true, is_host);
    const LoaderResult result = Next();
    ASSERT_TRUE(result.handle == 2 && result.status.ok());
  }
  EXPECT_FALSE(HasResult());
  LetGo();
  const LoaderResult result = Next();
  EXPECT_TRUE(result.handle == 1 && result.status.ok() && result.has_built);
}

// Threads of this process that run only where nobody else wants the processor.
int CountIdleThreads() {
  int count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    count += ::sched_getscheduler(std::stoi(task.path().filename())) == SCHED_IDLE ? 1 : 0;
  return count;
}

TEST_F(AdapterLoaderTest, OneOfItsThreadsIsOfIdlePriority) {
  Register(1);
  Start(1, LoaderTask::kPrepare, false);
  EXPECT_TRUE(Next().has_built);  // by that thread
  const int with_loader = CountIdleThreads();
  loader_.reset();
  // The system may list a thread a little longer than it takes to join it.
  for (int i = 0; i < 1'000 && CountIdleThreads() == with_loader; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(with_loader, CountIdleThreads() + 1);
}

TEST_F(AdapterLoaderTest, ADroppedLoadAnswersAlsoWhileItWaitsForItsTurnAndADroppedPreparationDoesNot) {
  for (int64_t handle = 1; handle <= 3; ++handle) Register(handle);
  loader_->SetUploadBytes(0);
  Start(1, LoaderTask::kLoad);     // waits for the budget
  Start(2, LoaderTask::kLoad);     // waits for the packer
  Start(3, LoaderTask::kPrepare);  // likewise
  for (int64_t handle = 1; handle <= 3; ++handle) loader_->Drop(handle);
  for (int64_t handle = 1; handle <= 2; ++handle) {
    const LoaderResult result = Next();
    EXPECT_EQ(result.handle, handle);
    EXPECT_STREQ(result.status.code(), kErrAborted);
  }
  loader_->SetUploadBytes(UploadBudget::kUnlimited);
  Start(3, LoaderTask::kPrepare);
  EXPECT_TRUE(Next().has_built);
  EXPECT_FALSE(HasResult());
}

TEST_F(AdapterLoaderTest, WhatIsReadForThePageCacheHasItsTurnHoweverManyLoadsWait) {
  constexpr int64_t kLoads = 20;
  for (int64_t handle = 0; handle <= kLoads; ++handle) {
    Register(handle + 1);
    Start(handle + 1, LoaderTask::kPrepare);
    Next();
  }
  loader_->SetUploadBytes(0);
  for (int64_t handle = 1; handle <= kLoads; ++handle) Start(handle, LoaderTask::kLoad, true, true);
  Start(kLoads + 1, LoaderTask::kPrepare);
  loader_->SetUploadBytes(UploadBudget::kUnlimited);
  int before = 0;
  while (Next().task != LoaderTask::kPrepare) ++before;
  // It may come a turn later, where that turn was another's, and its answer while the next load is under way.
  EXPECT_GE(before, 1);
  EXPECT_LE(before, 16);
  for (int left = before; left < kLoads; ++left) EXPECT_EQ(Next().task, LoaderTask::kLoad);
}

TEST_F(AdapterLoaderTest, WhatWasAskedForAheadIsTakenOverWhenARequestWaits) {
  for (int64_t round = 1; round <= 20; ++round) {
    Register(round);
    Start(round, LoaderTask::kPrepare, false);
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100 * round));
    Start(round, LoaderTask::kPrepare, true);
    // One answer, or two where the first had been given.
    LoaderResult result = Next();
    EXPECT_TRUE(result.status.ok() && result.has_pack) << result.status.message();
    Start(round, LoaderTask::kLoad);
    do result = Next();
    while (result.task != LoaderTask::kLoad);
    EXPECT_TRUE(result.status.ok());
  }
}

TEST_F(AdapterLoaderTest, EndsInTheMidstOfItsWork) {
  for (int64_t handle = 1; handle <= 8; ++handle) Register(handle);
  loader_->SetUploadBytes(1);
  for (int64_t handle = 1; handle <= 8; ++handle) {
    if (handle % 2 == 0) Start(handle, LoaderTask::kLoad);
    if (handle % 2 == 1) Start(handle, LoaderTask::kPrepare, handle % 4 == 1);
  }
  loader_.reset();
  for (const std::string& name : Names()) EXPECT_TRUE(name.ends_with(".adapter")) << name;
}

}  // namespace
}  // namespace openlora
