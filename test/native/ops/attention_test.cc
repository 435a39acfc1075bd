#include <gtest/gtest.h>

#include "cases/attention_run.h"
#include "native/ops/ops_under_test.h"
#include "native/test_size.h"

namespace openlora {
namespace {

using cases::AttentionCase;
using cases::AttentionData;
using cases::AttentionRows;
using cases::AttentionRun;

std::vector<AttentionCase> Cases() {
  const std::vector<AttentionCase> all = cases::AttentionCases();
  if (!IsSmall()) return all;
  return OneOfEachKind(all, [](const AttentionCase& c) { return std::pair{std::string(c.name), c.dtype}; });
}

// Error of one output, relative to the largest |v| (the weights add up to 1). With S = scale·‖q‖·max‖k‖ >= |s|:
// a score is off by ds = u·(chain over head_dim + 3)·S, s - max by u·2S more, and a cap by 8u·cap; a weight's relative
// error is that plus e^x's few u; the sums are chains over n tokens, rescaled once a block of at least 16 tokens.
std::vector<double> Tolerances(const AttentionData& data, const std::vector<AttentionRows>& rows) {
  const AttentionCase& c = data.shape;
  const int64_t q_cols = int64_t{c.heads} * c.head_dim, kv_cols = int64_t{c.kv_heads} * c.head_dim;
  std::vector<double> tolerance;
  for (const AttentionRows& r : rows)
    for (int32_t position = r.begin; position < r.end; ++position)
      for (int32_t head = 0; head < c.heads; ++head) {
        const int64_t kv_begin = int64_t{head / (c.heads / c.kv_heads)} * c.head_dim;
        double k_norm = 0, v_max = 0;
        for (int32_t j = 0; j <= position; ++j) {
          k_norm = std::max(k_norm, Norm(&data.k[r.sequence][j * kv_cols + kv_begin], c.head_dim));
          for (int32_t d = 0; d < c.head_dim; ++d)
            v_max = std::max(v_max, double{std::abs(data.v[r.sequence][j * kv_cols + kv_begin + d])});
        }
        const double q_norm = Norm(&data.q[r.sequence][position * q_cols + int64_t{head} * c.head_dim], c.head_dim);
        const double s = AttentionRun::Scale(c) * q_norm * k_norm;
        const double ds = (ChainError(c.head_dim) + 3) * s + 2 * s + 8 * c.soft_cap;
        const double n = position + 1;
        tolerance.insert(tolerance.end(), c.head_dim,
                         kUnitRoundoff * (2 * ds + ChainError(n) + 3 * n / 16 + 10) * v_max);
      }
  return tolerance;
}

TEST(Attention, IsWithinRoundingOfTheReferenceAndTheSameBitsOnEveryLevelAndThreadCount) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  for (const AttentionCase& c : Cases()) {
    SCOPED_TRACE(Describe(c));
    const AttentionData data(c);
    AttentionRun expected_run(*reference, data);
    expected_run.Append(expected_run.AllTokens());
    const std::vector<float> expected = expected_run.Attend(expected_run.StepRows());
    const std::vector<double> tolerance = Tolerances(data, expected_run.StepRows());
    std::vector<float> first;
    for (Ops* ops : AllCpuOps()) {
      SCOPED_TRACE(ops->name());
      AttentionRun run(*ops, data);
      run.Append(run.AllTokens());
      const std::vector<float> actual = run.Attend(run.StepRows());
      if (first.empty()) first = actual;
      EXPECT_TRUE(AreNear(actual, expected, tolerance));
      EXPECT_TRUE(AreSameBits(actual, first));
      if (HasFailure()) return;
    }
  }
}

bool IsLong(const AttentionCase& c) {
  return std::any_of(c.sequences.begin(), c.sequences.end(), [](const auto& s) { return s.cached + s.rows > 400; });
}

// A prompt at once, and as it grows: in chunks, then token by token, each row attended before the next ones exist.
TEST(Attention, GivesARowTheSameBitsInPrefillInChunksAndInDecodeWhateverItsNeighbours) {
  for (const AttentionCase& c : Cases()) {
    SCOPED_TRACE(Describe(c));
    const AttentionData data(c);
    for (const SimdLevel level : AvailableSimdLevels()) {
      // Slow, and nothing there depends on the level.
      if (IsLong(c) && (level != AvailableSimdLevels().back() || (IsSmall() && c.dtype != DType::kBF16))) continue;
      Ops& ops = CpuOpsFor(level, 1);
      SCOPED_TRACE(ops.name());
      AttentionRun whole(ops, data), chunks(ops, data);
      const std::vector<AttentionRows> all = whole.AllTokens(), step = whole.StepRows();
      whole.Append(all);
      for (const AttentionRows& sequence : all) {
        const std::vector<float> expected = whole.Attend({sequence});  // alone, all of its tokens
        const size_t cols = static_cast<size_t>(c.heads) * c.head_dim;
        for (int32_t begin = 0, size = 0; begin < sequence.end; begin += size) {
          size = begin < step[sequence.sequence].begin ? std::min(97, step[sequence.sequence].begin - begin) : 1;
          chunks.Append({{sequence.sequence, begin, begin + size}});
          EXPECT_TRUE(AreSameBits(chunks.Attend({{sequence.sequence, begin, begin + size}}), expected, begin * cols))
              << size << " rows at " << begin;
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST(Attention, OfOneTokenReturnsItsValueAsTheCacheRoundsIt) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (Ops* ops : AllCpuOps()) {
      AttentionData data({.name = "one token", .heads = 2, .kv_heads = 2, .head_dim = 40, .dtype = dtype});
      cases::Random random(7);
      data.v[0] = cases::RandomValues(random, 80);  // not rounded yet
      AttentionRun run(*ops, data);
      run.Append(run.AllTokens());
      const std::vector<float> out = run.Attend(run.StepRows());
      ASSERT_EQ(out.size(), 80u);
      for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], cases::Rounded(data.v[0][i], dtype)) << ops->name();
    }
}

TEST(Attention, SplitsOneLongSequenceOverThreadsWithoutChangingABit) {
  const AttentionCase c{.name = "long",
                        .heads = 7,
                        .kv_heads = 1,
                        .head_dim = 64,
                        .dtype = DType::kBF16,
                        .sequences = {{5000, 1}},
                        .seed = 3};
  const AttentionData data(c);
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 8}) {
    AttentionRun run(CpuOpsFor(SimdLevel::kAuto, threads), data);
    run.Append(run.AllTokens());
    const std::vector<float> out = run.Attend(run.StepRows());
    if (first.empty()) first = out;
    EXPECT_TRUE(AreSameBits(out, first)) << threads;
  }
}

}  // namespace
}  // namespace openlora
