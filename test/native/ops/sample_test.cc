#include <gtest/gtest.h>

#include <limits>

#include "base/prng.h"
#include "cases/sample_cases.h"
#include "native/ops/sample_run.h"
#include "native/test_size.h"

namespace openlora {
namespace {

using cases::LogitsKind;
using cases::SampleCase;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void ExpectSame(const SampleResult& actual, const SampleResult& expected, double tolerance) {
  ASSERT_EQ(actual.token, expected.token);
  EXPECT_NEAR(actual.logprob, expected.logprob, tolerance);
  ASSERT_EQ(actual.top_count, expected.top_count);
  for (int32_t i = 0; i < actual.top_count; ++i) {
    EXPECT_EQ(actual.top_token[i], expected.top_token[i]) << i;
    if (expected.top_logprob[i] == -kInfinity) {
      EXPECT_EQ(actual.top_logprob[i], -kInfinity) << i;
    } else {
      EXPECT_NEAR(actual.top_logprob[i], expected.top_logprob[i], tolerance) << i;
    }
  }
}

// A logprob is off by its own rounding (|logprob| < 64: 64u) and by the relative error of the sum of exponentials: a
// few u each, 64 of them to a lane of kSumBlock, so 64u + 8u.
constexpr double kLogprobTolerance = 136 * kUnitRoundoff;

TEST(Sample, ChoosesTheTokensOfTheReferenceOnEveryLevelAndThreadCount) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  const std::vector<int64_t> few = {1, 17, 257, 1023}, all = {1, 2, 15, 16, 17, 255, 256, 257, 1023, 1025, 5000};
  for (const int64_t vocabulary : IsSmall() ? few : all)
    for (const LogitsKind kind : cases::kLogitsKinds)
      for (const SampleCase& c : cases::SampleCases()) {
        SCOPED_TRACE(Describe(c, vocabulary, kind));
        cases::Random random(static_cast<uint64_t>(vocabulary) * 8 + static_cast<uint64_t>(kind));
        std::vector<float> logits;
        std::vector<SampleRow> rows;
        const cases::SampleLists lists = RandomLists(random, vocabulary);
        for (uint64_t i = 0; i < 5; ++i) {
          const std::vector<float> row = RandomLogits(random, vocabulary, kind);
          logits.insert(logits.end(), row.begin(), row.end());
          rows.push_back(RowOf(c, 77, i, lists));
        }
        const std::vector<SampleResult> expected = Sample(*reference, logits, rows);
        for (Ops* ops : AllCpuOps()) {
          SCOPED_TRACE(ops->name());
          const std::vector<SampleResult> actual = Sample(*ops, logits, rows);
          for (size_t i = 0; i < rows.size(); ++i) ExpectSame(actual[i], expected[i], kLogprobTolerance);
          if (HasFailure()) return;
        }
      }
}

TEST(Sample, GivesARowTheSameResultAloneAndInAnyBatchToTheBit) {
  const int64_t vocabulary = IsSmall() ? 700 : 3000;
  for (const LogitsKind kind : cases::kLogitsKinds) {
    cases::Random random(5);
    std::vector<float> logits;
    std::vector<SampleRow> rows;
    const cases::SampleLists lists = RandomLists(random, vocabulary);
    const std::vector<SampleCase> list = cases::SampleCases();
    for (size_t i = 0; i < list.size(); ++i) {
      const std::vector<float> row = RandomLogits(random, vocabulary, kind);
      logits.insert(logits.end(), row.begin(), row.end());
      rows.push_back(RowOf(list[i], i, i, lists));
    }
    std::vector<SampleResult> first;
    for (Ops* ops : AllCpuOps()) {
      const std::vector<SampleResult> together = Sample(*ops, logits, rows);
      if (first.empty()) first = together;
      for (size_t i = 0; i < rows.size(); ++i) {
        SCOPED_TRACE(Describe(list[i], vocabulary, kind) + ops->name());
        ExpectSame(together[i], first[i], 0);
        const auto begin = logits.begin() + static_cast<int64_t>(i) * vocabulary;
        ExpectSame(SampleOne(*ops, {begin, begin + vocabulary}, rows[i]), together[i], 0);
      }
    }
  }
}

TEST(Sample, FindsTheReferencesTokenInAVocabularyOf152Thousand) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  for (const LogitsKind kind : cases::kLogitsKinds) {
    cases::Random random(9);
    const std::vector<float> logits = RandomLogits(random, 151936, kind);
    const cases::SampleLists lists = RandomLists(random, 151936);
    size_t place = 0;
    for (const SampleCase& c : cases::SampleCases()) {
      if (IsSmall() && place++ % std::size(cases::kLogitsKinds) != static_cast<size_t>(kind))
        continue;  // each case on one kind
      SCOPED_TRACE(Describe(c, 151936, kind));
      const SampleRow row = RowOf(c, 1, 2, lists);
      ExpectSame(SampleOne(CpuOpsFor(SimdLevel::kAuto, 1), logits, row), SampleOne(*reference, logits, row),
                 kLogprobTolerance);
    }
  }
}

TEST(Sample, TakesTheLowestIdAmongEquals) {
  for (Ops* ops : AllCpuOps())
    for (const int64_t vocabulary : {3, 300, 4000}) {
      std::vector<float> logits(vocabulary, 1.0f);
      EXPECT_EQ(SampleOne(*ops, logits, {}).token, 0);
      logits[vocabulary - 1] = logits[vocabulary - 2] = 2;
      EXPECT_EQ(SampleOne(*ops, logits, {}).token, vocabulary - 2);
      SampleRow top_1;
      top_1.temperature = 1;
      top_1.top_k = 1;
      top_1.logprobs = 2;
      const SampleResult result = SampleOne(*ops, logits, top_1);
      EXPECT_EQ(result.token, vocabulary - 2);
      EXPECT_EQ(result.top_token[0], vocabulary - 2);
      EXPECT_EQ(result.top_token[1], vocabulary - 1);
    }
}

TEST(Sample, RefusesRowsWithNaNOrInfinityAndRowsInWhichEverythingIsForbidden) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  std::vector<Ops*> all = AllCpuOps();
  all.push_back(reference.get());
  for (Ops* ops : all)
    for (const int64_t vocabulary : {1, 40, 777})
      for (const int64_t at : {int64_t{0}, vocabulary / 2, vocabulary - 1})
        for (const float temperature : {0.0f, 1.0f})
          for (const float bad :
               {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
            SCOPED_TRACE(ops->name());
            SampleRow row;
            row.temperature = temperature;
            row.logprobs = 3;
            std::vector<float> logits(vocabulary, -1.0f);
            EXPECT_EQ(SampleOne(*ops, logits, row).token,
                      temperature == 0 ? 0 : SampleOne(*reference, logits, row).token);
            logits[at] = bad;
            EXPECT_EQ(SampleOne(*ops, logits, row).token, -1);
            row.target = 0;
            EXPECT_EQ(SampleOne(*ops, logits, row).token, -1);
            EXPECT_EQ(SampleOne(*ops, std::vector<float>(vocabulary, -kInfinity), {}).token, -1);
          }
}

TEST(Sample, NeverDrawsAForbiddenTokenAndReportsItsRawLogprob) {
  const std::vector<float> logits = {5, 1, 0, -kInfinity};
  const std::vector<TokenBias> bias = {{0, -kInfinity}, {2, 2.0f}};
  for (Ops* ops : AllCpuOps()) {
    SampleRow row;
    row.bias = bias;
    row.logprobs = 4;
    const SampleResult greedy = SampleOne(*ops, logits, row);
    EXPECT_EQ(greedy.token, 2);
    EXPECT_NEAR(greedy.logprob, 0 - std::log(std::exp(5.0) + std::exp(1.0) + 1), 1e-6);
    EXPECT_EQ(greedy.top_token[0], 0);
    EXPECT_EQ(greedy.top_logprob[3], -kInfinity);
    row.temperature = 1;
    for (row.draw_index = 0; row.draw_index < 200; ++row.draw_index) {
      const int32_t token = SampleOne(*ops, logits, row).token;
      EXPECT_TRUE(token == 1 || token == 2) << token;
    }
  }
}

TEST(Sample, ScoresATargetByItsRawLogitsWhateverTheRowWouldDraw) {
  const std::vector<float> logits = {1, 2, 3, -kInfinity};
  const std::vector<TokenBias> bias = {{0, -kInfinity}, {1, -kInfinity}, {2, -kInfinity}};
  const double log_sum = std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0));
  for (Ops* ops : AllCpuOps()) {
    SampleRow row;
    row.bias = bias;
    row.temperature = 1;
    row.top_k = 1;
    for (row.target = 0; row.target < 3; ++row.target) {
      const SampleResult result = SampleOne(*ops, logits, row);
      EXPECT_EQ(result.token, row.target);
      EXPECT_NEAR(result.logprob, logits[row.target] - log_sum, 1e-6);
      EXPECT_EQ(result.top_count, 0);
    }
    EXPECT_EQ(SampleOne(*ops, logits, row).logprob, -kInfinity);
  }
}

TEST(Sample, PenalisesWhatWasSeenByTheFormulaAndLeavesTheLogitsAsTheyWere) {
  // x / 2 = 2, x * 2 = -2, then - 0.5 * 3 - 0.25 for token 2; token 3 was in the prompt alone.
  const std::vector<float> logits = {1.0f, -1.0f, 4.0f, 6.0f, -0.0f};
  const std::vector<SeenToken> seen = {{1, 0}, {2, 3}, {3, 0}, {4, 0}};
  const std::vector<TokenBias> bias = {{0, 2.0f}};
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  std::vector<Ops*> all = AllCpuOps();
  all.push_back(reference.get());
  for (Ops* ops : all) {
    SampleRow row;
    row.repetition_penalty = 2;
    row.frequency_penalty = 0.5f;
    row.presence_penalty = 0.25f;
    row.seen = seen;
    EXPECT_EQ(SampleOne(*ops, logits, row).token, 3);  // {1, -2, 0.25, 3, 0}
    row.bias = bias;
    row.logprobs = 5;
    const SampleResult result = SampleOne(*ops, logits, row);
    EXPECT_EQ(result.token, 0);  // {3, …, 3, …}: the lower id
    EXPECT_EQ(result.top_token[0], 3);
    EXPECT_EQ(result.top_token[1], 2);
    row.presence_penalty = -4;  // {3, -2, 4.5, 3, 0}
    EXPECT_EQ(SampleOne(*ops, logits, row).token, 2);
  }
}

TEST(Sample, KeepsPenalisedLogitsFinite) {
  constexpr float kMax = std::numeric_limits<float>::max();
  const std::vector<float> logits = {-3e38f, 0.5f, -kInfinity, 1e30f};
  const std::vector<SeenToken> seen = {{0, 1}, {1, 0}, {2, 2}, {3, 0}};
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  std::vector<Ops*> all = AllCpuOps();
  all.push_back(reference.get());
  for (Ops* ops : all)
    for (const float repetition : {1e-40f, 1e-20f, 1e20f, kMax}) {
      SCOPED_TRACE(ops->name() + std::to_string(repetition));
      SampleRow row;
      row.repetition_penalty = repetition;
      row.seen = seen;
      EXPECT_EQ(SampleOne(*ops, logits, row).token, repetition == 1e-40f ? 1 : 3);  // 1: both are the largest float
      row.temperature = 1;
      EXPECT_GE(SampleOne(*ops, logits, row).token, 0);
    }
}

}  // namespace
}  // namespace openlora
