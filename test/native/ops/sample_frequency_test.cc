#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "native/ops/sample_run.h"
#include "native/test_size.h"

namespace openlora {
namespace {

using cases::LogitsKind;
using cases::SampleCase;

// The exact probabilities of a row, in double, by the definition: logits biased and penalised, divided by the
// temperature, the tokens sorted, cut at top_k, at top_p, at min_p.
std::vector<double> ExactProbabilities(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<double> p(logits.begin(), logits.end());
  for (const auto& [token, bias] : row.bias) p[token] += bias;
  for (const auto& [token, count] : row.seen) {
    const double factor = p[token] < 0 ? double{row.repetition_penalty} : 1 / double{row.repetition_penalty};
    p[token] = p[token] * factor - double{row.frequency_penalty} * count;
    if (count > 0) p[token] -= row.presence_penalty;
  }
  const double max = *std::max_element(p.begin(), p.end());
  for (double& value : p) value = std::exp((value - max) / row.temperature);
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  for (size_t i = row.top_k > 0 ? row.top_k : p.size(); i < p.size(); ++i) p[order[i]] = 0;
  double total = std::accumulate(p.begin(), p.end(), 0.0), before = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double mass = p[order[i]];
    const bool is_beyond_top_p = row.top_p < 1 && before >= row.top_p * total;
    if (i > 0 && (is_beyond_top_p || mass < row.min_p * p[order[0]])) p[order[i]] = 0;
    before += mass;
  }
  total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= total;
  return p;
}

// How often each token comes in so many draws. The reference and every SIMD level choose the same in the first of them.
std::vector<double> Count(const std::vector<float>& logits, SampleRow row, uint64_t draws) {
  static const std::unique_ptr<Ops> reference = CreateReferenceOps();
  constexpr size_t kBatch = 500;
  std::vector<float> batch;
  for (size_t i = 0; i < kBatch; ++i) batch.insert(batch.end(), logits.begin(), logits.end());
  std::vector<double> counts(logits.size());
  row.logprobs = -1;
  std::vector<SampleRow> rows(kBatch, row);
  for (uint64_t draw = 0; draw < draws; draw += kBatch) {
    for (size_t i = 0; i < kBatch; ++i) rows[i].draw_index = draw + i;
    const std::vector<SampleResult> results = Sample(CpuOpsFor(SimdLevel::kAuto, 1), batch, rows);
    for (const SampleResult& result : results) ++counts[result.token];
    if (draw > 0) continue;
    std::vector<Ops*> all = {reference.get()};
    for (const SimdLevel level : AvailableSimdLevels()) all.push_back(&CpuOpsFor(level, 1));
    for (Ops* ops : all) {
      const std::vector<SampleResult> same = Sample(*ops, batch, rows);
      for (size_t i = 0; i < kBatch; ++i) EXPECT_EQ(same[i].token, results[i].token) << ops->name() << ", draw " << i;
    }
  }
  return counts;
}

// Pearson's χ²; tokens expected less than five times share a cell. Mean df, variance 2 df: five deviations. A token
// without probability never comes.
void ExpectFrequencies(const std::vector<double>& counts, const std::vector<double>& p) {
  const double draws = std::accumulate(counts.begin(), counts.end(), 0.0);
  double chi_square = 0, cells = 0, rare_expected = 0, rare_count = 0;
  const auto add_cell = [&](double count, double expected) {
    chi_square += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t token = 0; token < p.size(); ++token) {
    const double expected = p[token] * draws;
    if (expected == 0) {
      EXPECT_EQ(counts[token], 0) << "token " << token;
    } else if (expected < 5) {
      rare_expected += expected;
      rare_count += counts[token];
    } else {
      add_cell(counts[token], expected);
    }
  }
  if (rare_expected >= 5) add_cell(rare_count, rare_expected);
  EXPECT_LE(chi_square, cells - 1 + 5 * std::sqrt(2 * cells));
}

TEST(SampleFrequency, IsTheExactProbability) {
  constexpr int64_t kVocabulary = 60;
  const uint64_t draws = BySize(2000, 100'000, 400'000);
  for (const LogitsKind kind : {LogitsKind::kFlat, LogitsKind::kTies, LogitsKind::kMasked, LogitsKind::kPeaked})
    for (const SampleCase& c : cases::SampleCases()) {
      if (c.temperature < 1e-6f) continue;
      SCOPED_TRACE(Describe(c, kVocabulary, kind));
      cases::Random random(21);
      const std::vector<float> logits = RandomLogits(random, kVocabulary, kind);
      const cases::SampleLists lists = RandomLists(random, kVocabulary);
      const SampleRow row = RowOf(c, 1234, 0, lists);
      ExpectFrequencies(Count(logits, row, draws), ExactProbabilities(logits, row));
    }
}

// test/parity/make_sampling_references.py writes these.
struct Saved {
  std::vector<float> logits;
  std::vector<SeenToken> seen;
  std::vector<TokenBias> bias;
  std::vector<SampleRow> rows;  // spans point into the lists
  std::vector<std::vector<double>> p;
};

void Read(std::istream& file, Saved* saved) {
  size_t vocabulary = 0, ids = 0, biases = 0, count = 0;
  file >> vocabulary >> ids >> biases >> count;
  saved->logits.resize(vocabulary);
  for (float& logit : saved->logits) file >> logit;
  for (size_t i = 0; i < ids; ++i) {
    int32_t token = 0;
    file >> token;
    if (std::none_of(saved->seen.begin(), saved->seen.end(), [=](const SeenToken& s) { return s.token == token; }))
      saved->seen.push_back({token, 0});
  }
  saved->bias.resize(biases);
  for (auto& [token, bias] : saved->bias) file >> token >> bias;
  for (size_t i = 0; i < count; ++i) {
    SampleRow row;
    int has_bias = 0;
    file >> row.temperature >> row.top_k >> row.top_p >> row.min_p >> row.repetition_penalty >> has_bias;
    if (has_bias != 0) row.bias = saved->bias;
    if (row.repetition_penalty != 1) row.seen = saved->seen;
    saved->rows.push_back(row);
    saved->p.emplace_back(vocabulary);
    for (double& p : saved->p.back()) file >> p;
  }
}

TEST(SampleFrequency, IsTheProbabilityThatTheProcessorsOfTransformersLeave) {
  Saved saved;
  std::ifstream file(std::string(OPENLORA_SOURCE_DIR) + "/test/data/sampling/distributions.txt");
  Read(file, &saved);
  ASSERT_TRUE(file.good());
  ASSERT_GE(saved.rows.size(), 19u);
  for (size_t i = 0; i < saved.rows.size(); ++i) {
    SCOPED_TRACE("setting " + std::to_string(i));
    const std::vector<double> exact = ExactProbabilities(saved.logits, saved.rows[i]);
    for (size_t token = 0; token < exact.size(); ++token) {
      EXPECT_EQ(exact[token] > 0, saved.p[i][token] > 0) << token;
      // Parameters are f32 here, so an exponent is off by up to u·|x|·3 (penalty, temperature, saved with nine digits),
      // |x| < 128; its exponential, and the sum of them, by as much relative to themselves.
      EXPECT_NEAR(exact[token], saved.p[i][token], 2 * 3 * 128 * kUnitRoundoff * saved.p[i][token]) << token;
    }
    ExpectFrequencies(Count(saved.logits, saved.rows[i], BySize(2000, 100'000, 400'000)), saved.p[i]);
  }
}

}  // namespace
}  // namespace openlora
