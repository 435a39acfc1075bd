// Adapters from disk to frames and back: what the core asks the loader for, and what it says of it.

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/core_driver.h"
#include "engine/tiny_model.h"

namespace openlora {
namespace {

using Tasks = std::vector<LoaderTask>;
constexpr LoaderTask kPrepare = LoaderTask::kPrepare, kLoad = LoaderTask::kLoad;

class AdapterTiersTest : public testing::Test {
 protected:
  EngineOptions Options() {
    EngineOptions options = TinyOptions(folder_);
    options.adapter_dir = folder_.File("packs");
    options.adapter_disk_bytes = int64_t{1} << 30;
    options.host_adapter_bytes = 64 << 20;
    options.pinned_adapter_bytes = 64 << 20;
    return options;
  }
  void Open(EngineOptions options, int adapters = 4) {
    driver_ = std::make_unique<CoreDriver>(std::move(options));
    ASSERT_TRUE(driver_->opened().ok()) << driver_->opened().message();
    for (int i = 1; i <= adapters; ++i)
      driver_->Register(i, TinyAdapter(folder_, "a" + std::to_string(i), 32, 0, static_cast<uint64_t>(i)));
  }
  // A pool of so many of these adapters, and of some KV.
  EngineOptions PoolFor(int adapters) {
    EngineOptions options = Options();
    Open(options, 1);
    const Adapter* adapter = driver_->core().residency().Find(1);
    const FramePool& pool = driver_->core().pool();
    options.pool_bytes = pool.BytesOf(adapters * adapter->frames_needed + 8);
    options.max_context = 32;
    return options;
  }
  EngineCore& core() { return driver_->core(); }
  Tier TierOf(int64_t handle) { return core().TierOf(*core().residency().Find(handle)); }
  const Answer& Ask(int64_t id, int64_t handle) {
    core().Submit(MakeRequest(id, {1, 2, 3}, 4, {{handle, 1.0f}}));
    driver_->Run();
    return driver_->answer(id);
  }
  void Hold(int64_t handle, int64_t ticket, HoldKind kind) {
    core().Hold(handle, ticket, kind);
    driver_->Read();
  }
  void Work() {
    driver_->DoLoaderWork();
    driver_->Read();
  }

  TestFolder folder_{"tiers"};
  std::unique_ptr<CoreDriver> driver_;
};

TEST_F(AdapterTiersTest, AnAdapterGoesFromDiskToFramesAndIsInTheHostTierAfterItsEviction) {
  Open(PoolFor(1), 2);
  EXPECT_EQ(TierOf(1), Tier::kRegistered);
  const Answer first = Ask(1, 1);
  EXPECT_EQ(first.usage.adapters[0].tier, Tier::kRegistered);
  EXPECT_EQ(TierOf(1), Tier::kResident);
  Ask(2, 2);
  EXPECT_EQ(TierOf(1), Tier::kHost);
  const Answer second = Ask(3, 1);
  EXPECT_EQ(second.usage.adapters[0].tier, Tier::kHost);
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.logprobs, first.logprobs);
  const Answer third = Ask(4, 1);
  EXPECT_EQ(third.usage.adapters[0].tier, Tier::kResident);
  const EngineStats stats = core().Stats();
  EXPECT_EQ(stats.adapter_hits, (std::array<uint64_t, kTiers>{2, 1, 0, 1}));
  EXPECT_EQ(stats.adapter_packs, 2u);
  EXPECT_EQ(stats.adapter_loads, 3u);
  EXPECT_EQ(stats.adapters_host, 2);
  EXPECT_GT(stats.bytes_host_adapters, 0);
  EXPECT_GT(stats.adapter_bytes_read, 0u);
}

TEST_F(AdapterTiersTest, WorkBeginsWhenARequestIsEnqueuedAndNotOnlyWhenItHasFrames) {
  Open(PoolFor(1), 3);
  core().Submit(MakeRequest(1, {1, 2}, 20, {{1, 1.0f}}));
  EXPECT_EQ(driver_->loader_work(), Tasks{kPrepare});
  core().Step();
  EXPECT_EQ(driver_->loader_work(), Tasks{kLoad});  // which does that too
  Work();
  core().Submit(MakeRequest(2, {1, 2}, 20, {{2, 1.0f}}));
  core().Submit(MakeRequest(3, {1, 2}, 20, {{2, 1.0f}}));
  core().Step();  // no room for the second adapter
  EXPECT_EQ(driver_->loader_work(), Tasks{kPrepare});
  Work();
  EXPECT_EQ(TierOf(2), Tier::kHost);
  core().Submit(MakeRequest(4, {1, 2}, 20, {{2, 1.0f}}));
  EXPECT_EQ(driver_->loader_work(), Tasks{});
  driver_->Run();
  for (int64_t id = 1; id <= 4; ++id) EXPECT_EQ(driver_->answer(id).end, "length");
}

TEST_F(AdapterTiersTest, WhatIsInThePageCacheIsThereInTheStepThatPlansIt) {
  Open(PoolFor(1), 2);
  const Answer first = Ask(1, 1);
  driver_->set_loads_now();
  // The page cache is the system's, which may have taken a page back: then it goes the usual way.
  bool was_now = false;
  for (int64_t id = 2; !was_now && id < 40; id += 2) {
    Ask(id, 2);  // the first one leaves
    ASSERT_EQ(TierOf(1), Tier::kHost);
    core().Submit(MakeRequest(id + 1, {1, 2, 3}, 4, {{1, 1.0f}}));
    core().Step();
    was_now = driver_->loader_work() == Tasks{};
    driver_->Read();
    EXPECT_EQ(driver_->answer(id + 1).tokens.size(), was_now ? 1u : 0u);
    driver_->Run();
    EXPECT_EQ(driver_->answer(id + 1).tokens, first.tokens);
    EXPECT_EQ(driver_->answer(id + 1).usage.adapters[0].tier, Tier::kHost);
  }
  EXPECT_TRUE(was_now);
  EXPECT_TRUE(core().CheckInvariants().ok());
  // So it does where there is no file at all.
  Ask(50, 2);
  std::filesystem::remove_all(folder_.File("packs"));
  EXPECT_EQ(Ask(51, 1).tokens, first.tokens);
}

TEST_F(AdapterTiersTest, WhatNobodyWaitsForAnyMoreIsDropped) {
  Open(PoolFor(1), 3);
  core().Submit(MakeRequest(1, {1, 2}, 20, {{1, 1.0f}}));
  core().Cancel(1);
  EXPECT_EQ(driver_->loader_work(), Tasks{});
  core().Submit(MakeRequest(2, {1, 2}, 20, {{1, 1.0f}}));
  core().Step();
  core().Cancel(2);
  EXPECT_EQ(driver_->loader_work(), Tasks{kLoad});
  Work();
  EXPECT_EQ(TierOf(1), Tier::kRegistered);
  EXPECT_EQ(core().Stats().bytes_adapters, 0);
  // Two wait: one that goes takes nothing from the other.
  core().Submit(MakeRequest(3, {1, 2}, 4, {{1, 1.0f}}));
  core().Submit(MakeRequest(4, {1, 2}, 4, {{1, 1.0f}}));
  core().Step();
  core().Cancel(3);
  Work();
  EXPECT_EQ(TierOf(1), Tier::kResident);
  driver_->Run();
  EXPECT_EQ(driver_->answer(4).end, "length");
}

TEST_F(AdapterTiersTest, ARequestThatComesAfterItsAdaptersLoadWasDroppedIsServed) {
  Open(PoolFor(1), 1);
  core().Submit(MakeRequest(1, {1, 2}, 4, {{1, 1.0f}}));
  core().Step();
  core().Cancel(1);
  core().Submit(MakeRequest(2, {1, 2}, 4, {{1, 1.0f}}));
  core().Step();
  Work();  // the load that was dropped says so
  EXPECT_EQ(driver_->loader_work(), Tasks{kLoad});
  driver_->Run();
  EXPECT_EQ(driver_->answer(2).end, "length");
  EXPECT_TRUE(core().CheckInvariants().ok());
}

TEST_F(AdapterTiersTest, TheHostTierHoldsSoManyBytesAndTheOneUsedLongestAgoLeaves) {
  EngineOptions options = PoolFor(1);
  const int64_t each = core().residency().Find(1)->content.pack_bytes;
  options.host_adapter_bytes = 2 * each + 10;
  Open(options, 4);
  for (int64_t handle = 1; handle <= 3; ++handle) Ask(handle, handle);
  EXPECT_EQ(TierOf(1), Tier::kRegistered);
  EXPECT_EQ(TierOf(2), Tier::kHost);
  EXPECT_EQ(TierOf(3), Tier::kResident);
  Ask(4, 2);  // used now
  Ask(5, 4);
  EXPECT_EQ(TierOf(2), Tier::kHost);
  EXPECT_EQ(TierOf(3), Tier::kRegistered);
  EXPECT_EQ(core().Stats().bytes_host_adapters, 2 * each);
  EXPECT_EQ(core().Stats().adapters_host, 2);
  EXPECT_TRUE(core().residency().Find(3)->content.has_pack);
  core().Unregister(2);
  EXPECT_EQ(core().Stats().bytes_host_adapters, each);
}

TEST_F(AdapterTiersTest, WhoeverLeavesTheHostTierLeavesThePageCache) {
  EngineOptions options = PoolFor(1);
  options.host_adapter_bytes = 2 * core().residency().Find(1)->content.pack_bytes;
  Open(options, 3);
  const auto key = [&](int64_t handle) { return core().residency().Find(handle)->content.key; };
  const std::vector<Sha256::Digest> wanted = {key(1), key(2)};
  Ask(1, 1);
  Ask(2, 2);
  EXPECT_TRUE(driver_->dropped_from_page_cache().empty());
  Ask(3, 3);  // pushes the first one out
  EXPECT_EQ(driver_->dropped_from_page_cache(), std::vector<Sha256::Digest>{wanted[0]});
  core().Unregister(2);
  EXPECT_EQ(driver_->dropped_from_page_cache(), wanted);
}

TEST_F(AdapterTiersTest, WithNoHostTierAnAdapterIsOnDiskOrInFrames) {
  EngineOptions options = PoolFor(1);
  options.host_adapter_bytes = 0;
  Open(options, 2);
  Ask(1, 1);
  Ask(2, 2);
  EXPECT_EQ(TierOf(1), Tier::kRegistered);
  EXPECT_EQ(core().Stats().adapters_host, 0);
  EXPECT_EQ(core().Stats().adapter_packs, 2u);
  Hold(1, 1, HoldKind::kHost);
  EXPECT_EQ(driver_->hold(1), kErrHostMemory);
}

TEST_F(AdapterTiersTest, LoadsTakeABoundedPartOfAStepThatHasRowsAndAllOfOneThatHasNone) {
  Open(Options(), 2);
  core().Submit(MakeRequest(1, {1, 2}, 50, {{1, 1.0f}}));
  core().Step();
  EXPECT_EQ(driver_->upload_bytes(), INT64_MAX);
  Work();
  core().Step();
  EXPECT_EQ(driver_->upload_bytes(), 256 << 10);
  core().Cancel(1);
  core().Step();
  EXPECT_EQ(driver_->upload_bytes(), INT64_MAX);
}

TEST_F(AdapterTiersTest, LoadsWithinAStepMoveSoManyBytesAndTheRestOfTheStepsBytesIsFewer) {
  constexpr int64_t kStepBytes = 256 << 10;
  constexpr int kAdapters = 10;
  Open(Options(), 0);
  for (int64_t handle = 1; handle <= kAdapters; ++handle) {
    driver_->Register(handle, TinyAdapter(folder_, "small" + std::to_string(handle), 8, 0, 1));
    Hold(handle, handle, HoldKind::kHost);
  }
  while (driver_->has_loader_work()) Work();
  driver_->set_loads_packs_now();
  core().Submit(MakeRequest(20, {1, 2}, 20));
  core().Step();
  EXPECT_EQ(driver_->upload_bytes(), kStepBytes);
  for (int64_t handle = 1; handle <= kAdapters; ++handle)
    core().Submit(MakeRequest(20 + handle, {1, 2}, 4, {{handle, 1.0f}}));
  core().Step();
  const int64_t each = core().residency().Find(1)->content.pack_bytes;
  const int64_t loaded = kStepBytes / each;
  ASSERT_GE(loaded, 2);
  ASSERT_LT(loaded, kAdapters);
  EXPECT_EQ(core().Stats().adapters_resident, loaded);
  EXPECT_EQ(driver_->loader_work(), Tasks(static_cast<size_t>(kAdapters - loaded), kLoad));
  EXPECT_EQ(driver_->upload_bytes(), kStepBytes - loaded * each);
  core().Step();  // nothing more to load
  EXPECT_EQ(driver_->upload_bytes(), kStepBytes);
  driver_->Run();
  for (int64_t id = 20; id <= 20 + kAdapters; ++id) EXPECT_EQ(driver_->answer(id).end, "length");
}

TEST_F(AdapterTiersTest, NobodyElseWaitsForALoad) {
  Open(Options(), 2);
  Ask(1, 1);                                                         // resident
  core().Submit(MakeRequest(2, {1, 2}, 6, {{2, 1.0f}}));             // cold
  core().Submit(MakeRequest(3, {1, 2}, 6, {{1, 1.0f}, {2, 1.0f}}));  // waits for the same
  core().Submit(MakeRequest(4, {1, 2}, 6));
  core().Submit(MakeRequest(5, {1, 2}, 6, {{1, 1.0f}}));
  for (int step = 0; step < 6; ++step) core().Step();
  driver_->Read();
  EXPECT_EQ(driver_->loader_work(), Tasks{kLoad});
  EXPECT_EQ(TierOf(2), Tier::kLoading);
  for (const int64_t waiting : {2, 3}) EXPECT_TRUE(driver_->answer(waiting).tokens.empty());
  for (const int64_t other : {4, 5}) EXPECT_EQ(driver_->answer(other).end, "length");
  driver_->Run();
  for (const int64_t waiting : {2, 3}) EXPECT_EQ(driver_->answer(waiting).end, "length");
}

TEST_F(AdapterTiersTest, AHotAdapterStaysWhileManyOthersComeOnce) {
  constexpr int64_t kHot = 1, kSwept = 30;
  const EngineOptions options = PoolFor(3);
  for (const int64_t between : {1, 4}) {  // with 4 it would always be the one used longest ago
    Open(options, 1 + kSwept);
    int64_t loads_of_hot = 0, id = 0;
    for (int64_t swept = 0; swept < kSwept; ++swept) {
      if (swept % between == 0) loads_of_hot += Ask(++id, kHot).usage.adapters[0].tier == Tier::kResident ? 0 : 1;
      EXPECT_NE(Ask(++id, kHot + 1 + swept).usage.adapters[0].tier, Tier::kResident);
    }
    EXPECT_LE(loads_of_hot, 2) << between << " between";
    EXPECT_EQ(core().Stats().adapter_loads, static_cast<uint64_t>(loads_of_hot + kSwept));
  }
}

TEST_F(AdapterTiersTest, PrefetchBringsAnAdapterToTheHostTierAndFindsItThere) {
  Open(PoolFor(1), 2);
  Hold(1, 1, HoldKind::kHost);
  EXPECT_EQ(driver_->hold(1), "");
  Hold(1, 2, HoldKind::kHost);  // waits for the same
  EXPECT_EQ(driver_->loader_work(), Tasks{kPrepare});
  Work();
  EXPECT_EQ(driver_->hold(1), "held");
  EXPECT_EQ(driver_->hold(2), "held");
  EXPECT_EQ(TierOf(1), Tier::kHost);
  EXPECT_EQ(core().Stats().adapter_packs, 1u);
  Hold(1, 3, HoldKind::kHost);
  EXPECT_EQ(driver_->hold(3), "held");
  Ask(1, 1);
  EXPECT_EQ(driver_->answer(1).usage.adapters[0].tier, Tier::kHost);
  Hold(1, 4, HoldKind::kHost);
  EXPECT_EQ(driver_->hold(4), "held");
  Hold(9, 5, HoldKind::kHost);
  EXPECT_EQ(driver_->hold(5), kErrAdapterNotFound);
}

TEST_F(AdapterTiersTest, ARequestRaisesWhatWasPrefetched) {
  Open(PoolFor(1), 2);
  core().Submit(MakeRequest(1, {1, 2}, 20, {{1, 1.0f}}));
  driver_->core().Step();
  Work();
  Hold(2, 1, HoldKind::kHost);
  EXPECT_EQ(core().residency().Find(2)->preparing, Preparing::kIdle);
  core().Submit(MakeRequest(2, {1, 2}, 4, {{2, 1.0f}}));
  EXPECT_EQ(core().residency().Find(2)->preparing, Preparing::kWaited);
  EXPECT_EQ(driver_->loader_work(), Tasks{kPrepare});
  core().Cancel(2);  // it is still wanted ahead
  EXPECT_EQ(driver_->loader_work(), Tasks{kPrepare});
  driver_->Run();
  EXPECT_EQ(driver_->hold(1), "held");
}

TEST_F(AdapterTiersTest, APreloadedAdapterIsResidentBeforeItsFirstRequest) {
  Open(PoolFor(1), 2);
  Ask(1, 1);
  Hold(2, 1, HoldKind::kDevice);
  Work();
  EXPECT_EQ(driver_->hold(1), "");
  EXPECT_EQ(TierOf(2), Tier::kLoading);
  EXPECT_EQ(TierOf(1), Tier::kHost);  // it gave way
  Work();
  EXPECT_EQ(driver_->hold(1), "held");
  EXPECT_EQ(TierOf(2), Tier::kResident);
  Ask(2, 2);
  EXPECT_EQ(driver_->answer(2).usage.adapters[0].tier, Tier::kResident);
  EXPECT_EQ(core().Stats().adapter_loads, 2u);
  Ask(3, 1);
  EXPECT_EQ(TierOf(2), Tier::kHost);  // it was no pin
}

TEST_F(AdapterTiersTest, APinnedAdapterIsNeverEvictedUntilItIsUnregistered) {
  Open(PoolFor(2), 4);
  Hold(1, 1, HoldKind::kPin);
  while (driver_->has_loader_work()) Work();
  EXPECT_EQ(driver_->hold(1), "held");
  EXPECT_EQ(core().Stats().bytes_pinned, core().Stats().bytes_adapters);
  for (int64_t id = 1; id <= 9; ++id) EXPECT_EQ(Ask(id, 2 + id % 3).end, "length");
  EXPECT_EQ(TierOf(1), Tier::kResident);
  EXPECT_GE(core().Stats().adapter_evictions, 8u);
  EXPECT_TRUE(core().CheckInvariants().ok());
  Hold(1, 2, HoldKind::kPin);  // a second time is the same
  EXPECT_EQ(driver_->hold(2), "held");
  EXPECT_EQ(core().residency().Find(1)->pins, 1);
  core().Unregister(1);
  EXPECT_EQ(core().Stats().bytes_pinned, 0);
  driver_->Read();
  EXPECT_EQ(driver_->adapter_events()[1], "retired");
}

TEST_F(AdapterTiersTest, PinsAreBoundedByBytesAlsoThoseUnderWay) {
  EngineOptions options = PoolFor(3);
  const int64_t each = core().pool().BytesOf(core().residency().Find(1)->frames_needed);
  options.pinned_adapter_bytes = 2 * each;
  Open(options, 4);
  for (int64_t handle = 1; handle <= 3; ++handle) Hold(handle, handle, HoldKind::kPin);
  EXPECT_EQ(driver_->hold(3), kErrAdapterPinned);
  core().Unregister(2);  // while it loads
  driver_->Read();
  EXPECT_EQ(driver_->hold(2), kErrAdapterNotFound);
  Hold(4, 4, HoldKind::kPin);
  while (driver_->has_loader_work()) Work();
  EXPECT_EQ(driver_->hold(1), "held");
  EXPECT_EQ(driver_->hold(4), "held");
  EXPECT_EQ(core().Stats().bytes_pinned, 2 * each);
  Hold(3, 5, HoldKind::kPin);
  EXPECT_EQ(driver_->hold(5), kErrAdapterPinned);
}

TEST_F(AdapterTiersTest, APinThatFindsNoRoomFailsAndTakesNothing) {
  Open(PoolFor(1), 3);
  core().Submit(MakeRequest(1, {1, 2}, 20, {{1, 1.0f}}));
  core().Step();
  Work();
  core().Step();
  Hold(2, 1, HoldKind::kPin);
  Work();
  EXPECT_EQ(driver_->hold(1), kErrOutOfMemory);
  EXPECT_EQ(core().Stats().bytes_pinned, 0);
  driver_->Run();
  EXPECT_EQ(driver_->answer(1).end, "length");
  // What is pinned isn't there for requests: they fail, and nothing waits for ever.
  Hold(2, 2, HoldKind::kPin);
  while (driver_->has_loader_work()) Work();
  EXPECT_EQ(driver_->hold(2), "held");
  EXPECT_EQ(Ask(2, 3).end, kErrOutOfMemory);
  EXPECT_EQ(Ask(3, 2).end, "length");
}

TEST_F(AdapterTiersTest, HoldsEndWithTheirAdapterTheirErrorOrTheEngine) {
  Open(Options(), 4);
  Hold(1, 1, HoldKind::kHost);
  core().Unregister(1);
  driver_->Read();
  EXPECT_EQ(driver_->hold(1), kErrAdapterNotFound);
  while (driver_->has_loader_work()) Work();
  std::filesystem::remove(folder_.File("a2"));
  for (const HoldKind kind : {HoldKind::kHost, HoldKind::kDevice, HoldKind::kPin}) {
    const int64_t ticket = 10 + static_cast<int64_t>(kind);
    Hold(2, ticket, kind);
    while (driver_->has_loader_work()) Work();
    EXPECT_EQ(driver_->hold(ticket), kErrAdapterChanged);
  }
  Hold(3, 3, HoldKind::kPin);
  core().Close(Status(kErrClosed, "as asked"));
  driver_->Read();
  EXPECT_EQ(driver_->hold(3), kErrClosed);
}

TEST_F(AdapterTiersTest, WherePacksCantBeKeptEverythingWorksFromTheSourceAfterOneWarning) {
  EngineOptions options = PoolFor(1);
  const Answer wanted = Ask(1, 1);
  std::ofstream(folder_.File("file")) << "x";
  options.adapter_dir = folder_.File("file/packs");
  Open(options, 2);
  for (int64_t id = 1; id <= 4; ++id) EXPECT_EQ(Ask(id, 1 + id % 2).end, "length");
  EXPECT_EQ(driver_->answer(2).tokens, wanted.tokens);
  EXPECT_EQ(driver_->answer(2).logprobs, wanted.logprobs);
  EXPECT_EQ(driver_->warnings(), std::vector<std::string>{kWarnAdapterCache});
  EXPECT_EQ(TierOf(2), Tier::kRegistered);
  Hold(1, 1, HoldKind::kHost);
  Hold(2, 2, HoldKind::kDevice);
  while (driver_->has_loader_work()) Work();
  EXPECT_EQ(driver_->hold(1), "held");
  EXPECT_EQ(driver_->hold(2), "held");
  EXPECT_EQ(TierOf(2), Tier::kResident);
}

}  // namespace
}  // namespace openlora
