#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/prng.h"
#include "engine/core_driver.h"
#include "engine/tiny_model.h"

namespace openlora {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<int32_t> Prompt(uint64_t seed) {
  std::vector<int32_t> prompt;
  for (uint64_t i = 0; i < 20; ++i) prompt.push_back(static_cast<int32_t>(Philox(seed, i) % 101));
  return prompt;
}

class PenaltiesTest : public testing::Test {
 protected:
  std::vector<int32_t> Run(Request request) {
    request.id = ++id_;
    driver_.core().Submit(request);
    driver_.Run();
    end_ = driver_.answer(id_).end;
    return driver_.answer(id_).tokens;
  }

  TestFolder folder_{"penalties"};
  CoreDriver driver_{TinyOptions(folder_)};
  int64_t id_ = 0;
  std::string end_;
};

// The token that follows, when the answer so far is part of the prompt.
Request Continued(Request request, const std::vector<int32_t>& answer, size_t length) {
  request.tokens.insert(request.tokens.end(), answer.begin(), answer.begin() + static_cast<std::ptrdiff_t>(length));
  request.max_tokens = 1;
  return request;
}

TEST_F(PenaltiesTest, RepetitionCountsThePromptAndTheAnswerAlike) {
  for (const float repetition : {1.3f, 0.5f}) {
    Request request = MakeRequest(1, Prompt(1), 40);
    const std::vector<int32_t> plain = Run(request);
    request.repetition_penalty = repetition;
    const std::vector<int32_t> answer = Run(request);
    EXPECT_NE(answer, plain);
    EXPECT_EQ(answer.size(), plain.size());
    for (size_t i = 0; i < answer.size(); ++i)
      EXPECT_EQ(Run(Continued(request, answer, i)), std::vector<int32_t>{answer[i]}) << i;
  }
}

TEST_F(PenaltiesTest, PresenceAndFrequencyCountTheAnswerAlone) {
  for (const auto& [presence, frequency] : {std::pair{1.5f, 0.0f}, {0.0f, 0.9f}, {1.0f, 0.5f}, {-0.8f, -0.3f}}) {
    Request request = MakeRequest(1, Prompt(2), 60);
    const std::vector<int32_t> plain = Run(request);
    request.presence_penalty = presence;
    request.frequency_penalty = frequency;
    const std::vector<int32_t> answer = Run(request);
    EXPECT_NE(answer, plain);
    EXPECT_EQ(answer.size(), plain.size());
    // The same by a bias for each step.
    Request biased = MakeRequest(1, Prompt(2), 1);
    for (size_t i = 0; i < answer.size(); ++i) {
      EXPECT_EQ(Run(Continued(biased, answer, i)), std::vector<int32_t>{answer[i]}) << i;
      const auto known = std::find_if(biased.logit_bias.begin(), biased.logit_bias.end(),
                                      [&](const TokenBias& bias) { return bias.token == answer[i]; });
      if (known == biased.logit_bias.end()) {
        biased.logit_bias.push_back({answer[i], -presence - frequency});
      } else {
        known->bias -= frequency;
      }
    }
  }
}

TEST_F(PenaltiesTest, BiasForbidsAndChoosesButNoEndComesBeforeMinTokens) {
  Request request = MakeRequest(1, Prompt(3), 10);
  request.logit_bias = {{50, 100.0f}};
  EXPECT_EQ(Run(request), std::vector<int32_t>(10, 50));
  request.logit_bias = {{50, 100.0f}, {51, 99.0f}};
  request.eos_tokens = {50};
  request.min_tokens = 4;
  EXPECT_EQ(Run(request), (std::vector<int32_t>{51, 51, 51, 51, 50}));
  EXPECT_EQ(end_, "eos");
  const int32_t first = Run(MakeRequest(1, Prompt(3), 1))[0];
  Request forbidding = MakeRequest(1, Prompt(3), 40);
  forbidding.temperature = 5;
  forbidding.logit_bias = {{first, -kInfinity}};
  const std::vector<int32_t> answer = Run(forbidding);
  EXPECT_EQ(answer.size(), 40u);
  EXPECT_EQ(std::count(answer.begin(), answer.end(), first), 0);
}

TEST_F(PenaltiesTest, ThatMakeNoSenseAreRefused) {
  const auto refused = [&](const auto& change) {
    Request request = MakeRequest(1, Prompt(4), 2);
    change(request);
    Run(request);
    return end_;
  };
  for (const float bad : {0.0f, -1.0f, kInfinity, std::nanf("")})
    EXPECT_EQ(refused([&](Request& r) { r.repetition_penalty = bad; }), kErrInvalidRequest) << bad;
  for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
    EXPECT_EQ(refused([&](Request& r) { r.presence_penalty = bad; }), kErrInvalidRequest) << bad;
    EXPECT_EQ(refused([&](Request& r) { r.frequency_penalty = bad; }), kErrInvalidRequest) << bad;
  }
  for (const float bad : {kInfinity, std::nanf("")})
    EXPECT_EQ(refused([&](Request& r) { r.logit_bias = {{1, bad}}; }), kErrInvalidRequest) << bad;
  EXPECT_EQ(refused([](Request& r) { r.logit_bias = {{1, 1}, {1, 2}}; }), kErrInvalidRequest);
  for (const int32_t bad : {-1, 101})
    EXPECT_EQ(refused([&](Request& r) { r.logit_bias = {{bad, 1}}; }), kErrTokenRange);
  EXPECT_EQ(refused([](Request& r) { r.logit_bias = {{100, -kInfinity}}; }), "length");
}

}  // namespace
}  // namespace openlora
