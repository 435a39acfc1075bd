// Service of tenants and adapters by the engine's own scheduler, on a tiny model.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "engine/core_driver.h"
#include "engine/tiny_model.h"

namespace openlora {
namespace {

constexpr int32_t kPrompt = 24;
constexpr int32_t kAnswer = 20;
constexpr double kCost = kPrompt + 2.0 * kAnswer;  // of a request, as the scheduler counts

class FairnessTest : public testing::Test {
 protected:
  void Open(const EngineOptions& options) {
    driver_ = std::make_unique<CoreDriver>(options);
    ASSERT_TRUE(driver_->opened().ok()) << driver_->opened().message();
  }
  void Submit(const std::string& tenant, std::vector<AdapterUse> adapters = {}, int32_t priority = 0) {
    Request request = MakeRequest(next_, std::vector<int32_t>(kPrompt, static_cast<int32_t>(next_ % 97)), kAnswer,
                                  std::move(adapters));
    request.tenant = tenant;
    request.priority = priority;
    driver_->core().Submit(request);
    requests_[tenant].push_back(next_++);
  }
  void Step() {
    ASSERT_LT(++steps_, 20'000) << "a request never ends";
    driver_->core().Step();
    driver_->Read();
    while (driver_->has_loader_work()) driver_->DoLoaderWork();
  }
  // What came out of it, in the scheduler's units; a prompt counts when its first token is there.
  double ServiceOf(const std::string& tenant) {
    double service = 0;
    for (const int64_t request : requests_[tenant]) {
      const size_t tokens = driver_->answer(request).tokens.size();
      if (tokens > 0) service += kPrompt + 2.0 * static_cast<double>(tokens);
    }
    return service;
  }
  int64_t Waiting(const std::string& tenant) {
    return std::count_if(requests_[tenant].begin(), requests_[tenant].end(),
                         [&](int64_t request) { return driver_->answer(request).tokens.empty(); });
  }
  bool AllEnded() { return driver_->core().requests() == 0; }
  void ExpectAllWhole() {
    for (const auto& [tenant, requests] : requests_) {
      for (const int64_t request : requests) {
        EXPECT_EQ(driver_->answer(request).end, "length") << request << " of " << tenant;
        EXPECT_EQ(driver_->answer(request).tokens.size(), static_cast<size_t>(kAnswer));
      }
    }
  }
  // Steps until nothing is left; the largest difference of service while both have requests without a token.
  double LargestGap(const std::string& a, const std::string& b) {
    double gap = 0;
    while (!AllEnded()) {
      const bool have_work = Waiting(a) > 1 && Waiting(b) > 1;
      Step();
      if (testing::Test::HasFatalFailure()) return gap;
      if (have_work) gap = std::max(gap, std::abs(ServiceOf(a) - ServiceOf(b)));
    }
    return gap;
  }

  TestFolder folder_{"fairness"};
  std::unique_ptr<CoreDriver> driver_;
  std::map<std::string, std::vector<int64_t>> requests_;
  int64_t next_ = 1;
  int steps_ = 0;
};

TEST_F(FairnessTest, TenantsWithWorkWaitingGetTheSameServiceWhereRowsAreShort) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  for (int i = 0; i < 60; ++i) Submit("flood");
  for (int i = 0; i < 12; ++i) Submit("other");
  EXPECT_LE(LargestGap("flood", "other"), 2 * kCost);
  ExpectAllWhole();
}

TEST_F(FairnessTest, TenantsWithWorkWaitingGetTheSameServiceWhereMemoryIsShort) {
  EngineOptions options = TinyOptions(folder_);
  options.pool_bytes = 16 * 2 * (4 << 10);  // 16 blocks of 16 tokens: five requests
  options.max_context = 64;
  Open(options);
  for (int i = 0; i < 60; ++i) Submit("flood");
  for (int i = 0; i < 4; ++i) Step();
  const double head_start = ServiceOf("flood");
  for (int i = 0; i < 20; ++i) Submit("other");
  EXPECT_LE(LargestGap("flood", "other") - head_start, 2 * kCost);
  ExpectAllWhole();
}

// Steps that the requests of a quiet tenant, one at a time, wait for their first token: the 99th percentile.
class QuietTenantTest : public FairnessTest {
 protected:
  int WaitOfQuiet(bool has_flood, const EngineOptions& options) {
    Open(options);
    requests_.clear();
    std::vector<int> waits;
    for (int i = 0; i < 40; ++i) {
      Submit("quiet");
      const int64_t id = requests_["quiet"].back();
      int wait = 0;
      while (driver_->answer(id).end.empty()) {
        while (has_flood && Waiting("flood") < 30) Submit("flood");
        if (driver_->answer(id).tokens.empty()) ++wait;
        Step();
        if (testing::Test::HasFatalFailure()) return 1'000'000;
      }
      waits.push_back(wait);
    }
    while (!AllEnded()) Step();
    ExpectAllWhole();
    std::sort(waits.begin(), waits.end());
    return waits[waits.size() * 99 / 100];
  }
};

TEST_F(QuietTenantTest, WaitsNotMuchLongerBesideAFloodWhereRowsAreShort) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 2 * kPrompt;  // the half is for prompts
  const int alone = WaitOfQuiet(false, options);
  EXPECT_LE(WaitOfQuiet(true, options), 2 * alone) << "alone " << alone;
}

TEST_F(QuietTenantTest, WaitsNotMuchLongerBesideAFloodWhereMemoryIsShort) {
  EngineOptions options = TinyOptions(folder_);
  options.pool_bytes = 16 * 2 * (4 << 10);
  options.max_context = 64;
  const int alone = WaitOfQuiet(false, options);
  EXPECT_LE(WaitOfQuiet(true, options), 2 * alone) << "alone " << alone;
}

TEST_F(FairnessTest, APriorityCountsAmongTheRequestsOfItsOwnTenantAlone) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  for (int i = 0; i < 30; ++i) Submit("loud", {}, 1000);
  for (int i = 0; i < 10; ++i) Submit("meek", {}, -1000);
  EXPECT_LE(LargestGap("loud", "meek"), 2 * kCost);
  ExpectAllWhole();
}

TEST_F(FairnessTest, AnUnpopularAdapterIsServedBesideAPopularOne) {
  EngineOptions options = TinyOptions(folder_);
  options.max_batch_tokens = 8;
  Open(options);
  driver_->Register(1, TinyAdapter(folder_, "popular", 8, 0, 5));
  driver_->Register(2, TinyAdapter(folder_, "unpopular", 8, 0, 6));
  for (int i = 0; i < 60; ++i) Submit("", {{1, 1.0f}});
  Submit("", {{2, 1.0f}});
  const int64_t unpopular = requests_[""].back();
  while (driver_->answer(unpopular).end.empty()) Step();
  int64_t before = 0;
  for (const int64_t request : requests_[""]) before += driver_->answer(request).end.empty() ? 0 : 1;
  EXPECT_LT(before, 20);
  while (!AllEnded()) Step();
  ExpectAllWhole();
}

TEST_F(FairnessTest, AStepReadsNoMoreOfAdaptersThanItMayAndAllAreServed) {
  EngineOptions options = TinyOptions(folder_);
  {
    CoreDriver probe(options);
    probe.Register(1, TinyAdapter(folder_, "a1", 16, 0, 1));
    options.batch_lora_bytes = 3 * probe.core().residency().Find(1)->bytes;
  }
  Open(options);
  for (int64_t handle = 1; handle <= 10; ++handle)
    driver_->Register(handle, TinyAdapter(folder_, "a" + std::to_string(handle), 16, 0, static_cast<uint64_t>(handle)));
  for (int64_t handle = 1; handle <= 10; ++handle) Submit("", {{handle, 1.0f}});
  uint64_t read = 0, largest = 0;
  while (!AllEnded()) {
    Step();
    const uint64_t now = driver_->core().Stats().lora_bytes_read;
    largest = std::max(largest, now - std::exchange(read, now));
  }
  EXPECT_GT(largest, static_cast<uint64_t>(options.batch_lora_bytes) / 2);
  EXPECT_LE(largest, static_cast<uint64_t>(options.batch_lora_bytes));
  ExpectAllWhole();
}

TEST_F(FairnessTest, AnAdapterBeyondTheBudgetIsReadAlone) {
  EngineOptions options = TinyOptions(folder_);
  options.batch_lora_bytes = 1;
  Open(options);
  driver_->Register(1, TinyAdapter(folder_, "a", 16, 0, 1));
  driver_->Register(2, TinyAdapter(folder_, "b", 16, 0, 2));
  for (int i = 0; i < 6; ++i) Submit("", {{1 + i % 2, 1.0f}});
  for (int i = 0; i < 6; ++i) Submit("");
  while (!AllEnded()) Step();
  ExpectAllWhole();
}

TEST_F(FairnessTest, ATenantsQueueIsBoundedAndNobodyElses) {
  EngineOptions options = TinyOptions(folder_);
  options.max_queued = 10;
  options.max_queued_per_tenant = 4;
  Open(options);
  for (int i = 0; i < 6; ++i) Submit("a");
  for (int i = 0; i < 2; ++i) Submit("b");
  for (int i = 0; i < 5; ++i) Submit("");
  while (!AllEnded()) Step();
  const auto refused = [&](const std::string& tenant) {
    return std::count_if(requests_[tenant].begin(), requests_[tenant].end(),
                         [&](int64_t request) { return driver_->answer(request).end == kErrOverloaded; });
  };
  EXPECT_EQ(refused("a"), 2);
  EXPECT_EQ(refused("b"), 0);
  EXPECT_EQ(refused(""), 1);
}

}  // namespace
}  // namespace openlora
