// Scan, Weigh and Finish of kernels/sample.cuh on the simulator, over the shared case list.

#include <gtest/gtest.h>

#include <cfloat>
#include <limits>

#include "cases/sample_cases.h"
#include "cuda/sim_buffer.h"
#include "kernels/sample_finish.h"
#include "native/ops/sample_run.h"

namespace openlora {
namespace {

using cases::LogitsKind;
using cases::SampleCase;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// How the kernels are launched; results must not depend on it.
struct LaunchSizes {
  uint64_t seed = 1;
  int blocks = 3;
  int threads = 32;
  int finish_threads = 64;
  int32_t chunk = 256;
  int32_t list_max = sample::kListMin;
};
constexpr LaunchSizes kLaunches[] = {{}, {2, 1, 64, 32, 100, 128}, {3, 5, 32, 96, 512, 64}, {4, 2, 96, 64, 152, 1024}};

std::vector<SampleResult> Launched(const LaunchSizes& sizes, const std::vector<float>& logits,
                                   const std::vector<SampleRow>& rows, int64_t vocabulary) {
  static_assert(sizeof(sample::Result) == sizeof(SampleResult) && sizeof(sample::Bias) == sizeof(TokenBias) &&
                sizeof(sample::Seen) == sizeof(SeenToken) && sample::kTop == kTopLogprobsMax);
  TestMachine machine({.seed = sizes.seed});
  const auto width = static_cast<size_t>(vocabulary), stride = (width + 3) / 4 * 4 + 8;
  SimBuffer<float> x(machine, "logits", rows.empty() ? 1 : (rows.size() - 1) * stride + width);
  std::vector<sample::Row> table;
  std::vector<sample::Bias> bias;
  std::vector<sample::Seen> seen;
  for (size_t i = 0; i < rows.size(); ++i) {
    const SampleRow& row = rows[i];
    std::memcpy(x.data() + i * stride, &logits[i * width], width * sizeof(float));
    table.push_back({row.target, row.temperature, row.top_k, row.top_p, row.min_p, row.logprobs, row.seed,
                     row.draw_index, row.repetition_penalty, row.frequency_penalty, row.presence_penalty,
                     static_cast<int32_t>(bias.size()), static_cast<int32_t>(row.bias.size()),
                     static_cast<int32_t>(seen.size()), static_cast<int32_t>(row.seen.size())});
    for (const TokenBias& b : row.bias) bias.push_back({b.token, b.bias});
    for (const SeenToken& s : row.seen) seen.push_back({s.token, s.count});
  }
  const std::vector<float> before = x.values();
  const SimBuffer<int32_t> count(machine, "row count", std::vector<int32_t>{static_cast<int32_t>(rows.size())});
  const SimBuffer<sample::Row> row_table(machine, "rows", table);
  const SimBuffer<sample::Bias> biases(machine, "bias", bias);
  const SimBuffer<sample::Seen> seens(machine, "seen", seen);
  const SimBuffer<float> saved_bias(machine, "saved bias", bias.size()), saved_seen(machine, "saved seen", seen.size());
  const auto chunks = static_cast<size_t>((vocabulary + sizes.chunk - 1) / sizes.chunk);
  const size_t partials = sample::kViews * rows.size() * chunks;
  const SimBuffer<uint64_t> best(machine, "best", partials);
  const SimBuffer<sample::Bin> bins(machine, "bins", partials * sample::kBins);
  const SimBuffer<sample::Mass> masses(machine, "masses", partials);
  const SimBuffer<sample::Result> results(machine, "results", rows.size());
  const sample::Params params{.logits = x.data(),
                              .stride = static_cast<int64_t>(stride),
                              .vocabulary = static_cast<int32_t>(vocabulary),
                              .chunk = sizes.chunk,
                              .list_max = sizes.list_max,
                              .rows_max = static_cast<int32_t>(rows.size()),
                              .row_count = count.data(),
                              .rows = row_table.data(),
                              .bias = biases.data(),
                              .seen = seens.data(),
                              .saved_bias = saved_bias.data(),
                              .saved_seen = saved_seen.data(),
                              .best = best.data(),
                              .bins = bins.data(),
                              .masses = masses.data(),
                              .results = results.data()};
  const dev::Stream stream{&machine, 0};
  dev::Launch(sample::Scan, {sizes.blocks, sizes.threads, sample::kScanSharedBytes}, stream, params);
  dev::Launch(sample::Weigh, {sizes.blocks, sizes.threads, sample::kWeighSharedBytes}, stream, params);
  dev::Launch(sample::Finish, {sizes.blocks, sizes.finish_threads, sample::kFinishSharedBytes}, stream, params);
  machine.SynchronizeStream(0);
  EXPECT_EQ(machine.violation(), "");
  EXPECT_EQ(std::memcmp(before.data(), x.data(), before.size() * sizeof(float)), 0) << "a row was changed";
  std::vector<SampleResult> all(rows.size());
  if (!rows.empty()) std::memcpy(static_cast<void*>(all.data()), results.data(), rows.size() * sizeof(SampleResult));
  return all;
}

SampleResult LaunchedOne(const std::vector<float>& logits, const SampleRow& row, const LaunchSizes& sizes = {}) {
  return Launched(sizes, logits, {row}, static_cast<int64_t>(logits.size()))[0];
}

// The same to the bit; what lies beyond top_count doesn't matter.
void ExpectSame(const SampleResult& actual, const SampleResult& expected) {
  EXPECT_EQ(actual.token, expected.token);
  EXPECT_EQ(actual.logprob, expected.logprob);
  ASSERT_EQ(actual.top_count, expected.top_count);
  for (int32_t i = 0; i < actual.top_count; ++i) {
    EXPECT_EQ(actual.top_token[i], expected.top_token[i]) << i;
    EXPECT_EQ(actual.top_logprob[i], expected.top_logprob[i]) << i;
  }
}

// A logprob is x - max - log(sum): each step rounds values below 128, so 3 * 64u; the log is off by a few u of its
// value (below 16: 32u) and the relative error of the sum. That of a weight at distance d is (3d + 4)u (three roundings
// of the exponent, exp2 itself), and where most of the sum lies d < 13; truncation to 2^-44 is below u.
constexpr double kLogprobTolerance = (192 + 32 + 44) * kUnitRoundoff;

void ExpectNear(const SampleResult& actual, const SampleResult& expected) {
  const auto near = [](float a, float b) { return a == b || std::abs(double{a} - b) <= kLogprobTolerance; };
  EXPECT_TRUE(near(actual.logprob, expected.logprob)) << actual.logprob << " " << expected.logprob;
  ASSERT_EQ(actual.top_count, expected.top_count);
  for (int32_t i = 0; i < actual.top_count; ++i) {
    EXPECT_EQ(actual.top_token[i], expected.top_token[i]) << i;
    EXPECT_TRUE(near(actual.top_logprob[i], expected.top_logprob[i])) << i;
  }
}

struct Batch {
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  cases::SampleLists lists;
};
Batch BatchOf(int64_t vocabulary, LogitsKind kind, uint64_t draws) {
  Batch batch;
  cases::Random random(static_cast<uint64_t>(vocabulary) * 8 + static_cast<uint64_t>(kind));
  batch.lists = RandomLists(random, vocabulary);
  for (const SampleCase& c : cases::SampleCases())
    for (uint64_t i = 0; i < draws; ++i) {
      const std::vector<float> row = RandomLogits(random, vocabulary, kind);
      batch.logits.insert(batch.logits.end(), row.begin(), row.end());
      batch.rows.push_back(RowOf(c, 77, i, batch.lists));
    }
  return batch;
}

TEST(CudaSampleTest, EveryCaseGivesTheReferencesTokenWhateverTheLaunch) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  for (const int64_t vocabulary : {1, 50, 257, 500})
    for (const LogitsKind kind : cases::kLogitsKinds) {
      const bool is_peaked = kind == LogitsKind::kPeaked, is_flat = kind == LogitsKind::kFlat;
      if ((vocabulary == 1 && !is_peaked) || (vocabulary == 257 && !is_flat) || (vocabulary == 500 && !is_peaked))
        continue;
      const Batch batch = BatchOf(vocabulary, kind, 1);
      const std::vector<SampleResult> expected = Sample(*reference, batch.logits, batch.rows);
      std::vector<SampleResult> first;
      for (const LaunchSizes& sizes : kLaunches) {
        const std::vector<SampleResult> actual = Launched(sizes, batch.logits, batch.rows, vocabulary);
        if (first.empty()) first = actual;
        for (size_t i = 0; i < batch.rows.size(); ++i) {
          SCOPED_TRACE(Describe(cases::SampleCases()[i], vocabulary, kind) + " seed " + std::to_string(sizes.seed));
          ExpectSame(actual[i], first[i]);
          EXPECT_EQ(actual[i].token, expected[i].token);
          ExpectNear(actual[i], expected[i]);
        }
        if (HasFailure()) return;
      }
    }
}

TEST(CudaSampleTest, ARowsBitsAreThoseThatItGetsAlone) {
  const int64_t vocabulary = 180;
  for (const LogitsKind kind : {LogitsKind::kMasked}) {
    const Batch batch = BatchOf(vocabulary, kind, 1);
    const std::vector<SampleResult> together = Launched(kLaunches[0], batch.logits, batch.rows, vocabulary);
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      const auto begin = batch.logits.begin() + static_cast<int64_t>(i) * vocabulary;
      SCOPED_TRACE(cases::SampleCases()[i].name);
      ExpectSame(LaunchedOne({begin, begin + vocabulary}, batch.rows[i], kLaunches[1 + i % 3]), together[i]);
    }
  }
}

TEST(CudaSampleTest, DrawsTheReferencesTokensOverManyIndices) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  for (const LogitsKind kind : cases::kLogitsKinds) {
    const int64_t vocabulary = 130;
    cases::Random random(3);
    const std::vector<float> row_logits = RandomLogits(random, vocabulary, kind);
    std::vector<float> logits;
    std::vector<SampleRow> rows;
    for (uint64_t i = 0; i < 42; ++i) {
      logits.insert(logits.end(), row_logits.begin(), row_logits.end());
      SampleRow row;
      row.temperature = i % 2 == 0 ? 1.0f : 0.7f;
      row.top_k = i % 3 == 0 ? 30 : 0;
      row.top_p = i % 5 < 2 ? 0.8f : 1.0f;
      row.min_p = i % 7 < 3 ? 0.02f : 0.0f;
      row.seed = i << 33 | 5;
      row.draw_index = i << 31;
      rows.push_back(row);
    }
    const std::vector<SampleResult> expected = Sample(*reference, logits, rows);
    const std::vector<SampleResult> actual = Launched(kLaunches[2], logits, rows, vocabulary);
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(actual[i].token, expected[i].token) << NameOf(kind) << i;
  }
}

TEST(CudaSampleTest, FindsItsPlaceAmongManyEquals) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  std::vector<float> logits(300, 1.0f);
  std::vector<SampleRow> rows;
  std::vector<float> all;
  for (uint64_t i = 0; i < 6; ++i) {
    logits[i] = i % 2 == 0 ? 0.0f : -0.0f;
    all.insert(all.end(), logits.begin(), logits.end());
    SampleRow row;
    row.temperature = 1;
    if (i % 3 == 0) row.top_k = 200;
    if (i % 3 == 1) row.top_p = 0.5f;
    if (i % 3 == 2) row.min_p = 0.3f;
    row.draw_index = i;
    row.logprobs = 20;
    rows.push_back(row);
  }
  const std::vector<SampleResult> expected = Sample(*reference, all, rows);
  for (const LaunchSizes& sizes : kLaunches) {
    const std::vector<SampleResult> actual = Launched(sizes, all, rows, 300);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(actual[i].token, expected[i].token) << i;
      ExpectNear(actual[i], expected[i]);
    }
  }
}

TEST(CudaSampleTest, KeepsExactlyTheShareOfTopP) {
  const std::vector<float> logits(4, 0.0f);
  SampleRow row;
  row.temperature = 1;
  row.top_p = 0.5f;
  for (row.draw_index = 0; row.draw_index < 20; ++row.draw_index) EXPECT_LE(LaunchedOne(logits, row).token, 1);
}

TEST(CudaSampleTest, RefusesRowsWithNaNOrInfinityAndRowsInWhichEverythingIsForbidden) {
  const int64_t vocabulary = 150;
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  for (const int64_t at : {int64_t{0}, vocabulary / 2, vocabulary - 1})
    for (const float temperature : {0.0f, 1.0f})
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity})
        for (const int32_t target : {-1, 0}) {
          std::vector<float> row_logits(vocabulary, bad == -kInfinity ? bad : -1.0f);
          row_logits[at] = bad;
          logits.insert(logits.end(), row_logits.begin(), row_logits.end());
          SampleRow row;
          row.temperature = temperature;
          row.logprobs = 3;
          row.target = target;
          rows.push_back(row);
        }
  for (const SampleResult& result : Launched(kLaunches[0], logits, rows, vocabulary)) {
    EXPECT_EQ(result.token, -1);
    EXPECT_EQ(result.top_count, 0);
    EXPECT_EQ(result.logprob, 0);
  }
}

TEST(CudaSampleTest, ScoresATargetByItsRawLogitsWhateverTheRowWouldDraw) {
  const std::vector<float> logits = {1, 2, 3, -kInfinity};
  const std::vector<TokenBias> bias = {{0, -kInfinity}, {1, -kInfinity}, {2, -kInfinity}};
  const double log_sum = std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0));
  SampleRow row;
  row.bias = bias;
  row.temperature = 1;
  row.top_k = 1;
  for (row.target = 0; row.target < 3; ++row.target) {
    const SampleResult result = LaunchedOne(logits, row);
    EXPECT_EQ(result.token, row.target);
    EXPECT_NEAR(result.logprob, logits[static_cast<size_t>(row.target)] - log_sum, kLogprobTolerance);
    EXPECT_EQ(result.top_count, 0);
  }
  EXPECT_EQ(LaunchedOne(logits, row).logprob, -kInfinity);
}

TEST(CudaSampleTest, KeepsPenalisedLogitsFinite) {
  const std::vector<float> logits = {-3e38f, 0.5f, -kInfinity, 1e30f};
  const std::vector<SeenToken> seen = {{0, 1}, {1, 0}, {2, 2}, {3, 0}};
  for (const float repetition : {1e-40f, 1e-20f, 1e20f, FLT_MAX}) {
    SampleRow row;
    row.repetition_penalty = repetition;
    row.seen = seen;
    EXPECT_EQ(LaunchedOne(logits, row).token, repetition == 1e-40f ? 1 : 3);  // 1: both are the largest float
    row.temperature = 1;
    EXPECT_GE(LaunchedOne(logits, row).token, 0);
  }
}

TEST(CudaSampleTest, RoundsEachStepOfAPenalty) {
  SampleRow row;
  row.frequency_penalty = 0.1f;
  const std::vector<SeenToken> seen = {{0, 3}};
  row.seen = seen;
  const float rounded = 1.0f - 0.1f * 3.0f;
  EXPECT_EQ(LaunchedOne({1.0f, rounded}, row).token, 0);
  EXPECT_EQ(LaunchedOne({1.0f, std::nextafter(rounded, 2.0f)}, row).token, 1);
  EXPECT_EQ(LaunchedOne({1.0f, std::nextafter(rounded, 0.0f)}, row).token, 0);
}

TEST(CudaSampleTest, TakesTheLowestIdAmongEquals) {
  SampleRow row;
  EXPECT_EQ(LaunchedOne({-1.0f, -0.0f, 0.0f, -0.0f}, row).token, 1);
  row.temperature = 1;
  row.top_k = 1;
  row.logprobs = 2;
  std::vector<float> logits(300, 1.0f);
  logits[298] = logits[299] = 2;
  const SampleResult result = LaunchedOne(logits, row);
  EXPECT_EQ(result.token, 298);
  EXPECT_EQ(result.top_token[0], 298);
  EXPECT_EQ(result.top_token[1], 299);
}

TEST(CudaSampleTest, NoRowsAreNothing) { EXPECT_TRUE(Launched(kLaunches[0], {}, {}, 10).empty()); }

}  // namespace
}  // namespace openlora
