#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/core_driver.h"
#include "engine/tiny_model.h"
#include "native/test_size.h"

// Service of tenants and adapters by the engine's own scheduler, on a tiny model.

namespace openlora {

// Tokens of a request, and what they cost as the scheduler counts: the last one of an answer is never computed.
struct Size {
  int32_t prompt = 24;
  int32_t answer = 20;
  double cost() const { return prompt + 2.0 * (answer - 1); }
};
inline constexpr Size kSize;
inline const double kCost = kSize.cost();

class FairnessTest : public testing::Test {
 protected:
  void Open(const EngineOptions& options) {
    driver_ = std::make_unique<CoreDriver>(options);
    ASSERT_TRUE(driver_->opened().ok()) << driver_->opened().message();
  }
  void Submit(const std::string& tenant, std::vector<AdapterUse> adapters = {}, int32_t priority = 0,
              Size size = kSize) {
    std::vector<int32_t> prompt(static_cast<size_t>(size.prompt), static_cast<int32_t>(next_ % 97));
    prompt[0] = static_cast<int32_t>(next_ / 97 % 97);  // nobody else's, so that all of it is computed
    Request request = MakeRequest(next_, std::move(prompt), size.answer, std::move(adapters));
    request.tenant = tenant;
    request.priority = priority;
    driver_->core().Submit(request);
    sizes_[next_] = size;
    requests_[tenant].push_back(next_++);
  }
  // A large one.
  AdapterManifest AdapterOf(int64_t handle) const {
    return TinyAdapter(folder_, "a" + std::to_string(handle), 64, 0, static_cast<uint64_t>(handle));
  }
  void Step() {
    ASSERT_LT(++steps_, 20'000) << "a request never ends";
    driver_->core().Step();
    driver_->Read();
    while (driver_->has_loader_work()) driver_->DoLoaderWork();
  }
  // What came out of it, in the scheduler's units; a prompt counts when its first token is there.
  virtual double ServiceOf(const std::string& tenant) {
    double service = 0;
    for (const int64_t request : requests_[tenant]) {
      const size_t tokens = driver_->answer(request).tokens.size();
      if (tokens > 0) service += Size{sizes_[request].prompt, static_cast<int32_t>(tokens)}.cost();
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
        EXPECT_EQ(driver_->answer(request).tokens.size(), static_cast<size_t>(sizes_[request].answer));
      }
    }
  }
  // Steps until nothing is left; by how much the service of each was ahead of the other's at the most, while both have
  // requests without a token.
  struct Leads {
    double a = 0;
    double b = 0;
  };
  Leads LargestLeads(const std::string& a, const std::string& b) {
    Leads leads;
    while (!AllEnded()) {
      const bool have_work = Waiting(a) > 1 && Waiting(b) > 1;
      Step();
      if (testing::Test::HasFatalFailure()) return leads;
      if (!have_work) continue;
      const double lead = ServiceOf(a) - ServiceOf(b);
      leads = {std::max(leads.a, lead), std::max(leads.b, -lead)};
    }
    return leads;
  }
  double LargestGap(const std::string& a, const std::string& b) {
    const Leads leads = LargestLeads(a, b);
    return std::max(leads.a, leads.b);
  }

  TestFolder folder_{"fairness"};
  std::unique_ptr<CoreDriver> driver_;
  std::map<std::string, std::vector<int64_t>> requests_;
  std::map<int64_t, Size> sizes_;
  int64_t next_ = 1;
  int steps_ = 0;
};

}  // namespace openlora
