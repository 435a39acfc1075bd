#include <gtest/gtest.h>

#include <limits>

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
  return OneOfEachKind(all, [](const AttentionCase& c) { return std::pair{std::string(c.name), HeldAs(c)}; });
}

struct KvHeld {
  DType dtype;
  bool has_bf16_dots = false;
};
constexpr KvHeld kHeld[] = {{DType::kF32}, {DType::kF16}, {DType::kBF16}, {DType::kBF16, true}, {DType::kI8}};

double Largest(const float* values, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, double{std::abs(values[i])});
  return largest;
}

// Error of one output, relative to the largest |v| (the weights add up to 1). With S = scale·‖q‖·max‖k‖ >= |s|:
// a score is off by ds = u·(chain over head_dim + 3)·S, s - max by u·2S more, and a cap by 8u·cap; a weight's relative
// error is that plus e^x's few u; the sums are chains over n tokens, rescaled once a block of at least 16 tokens. In
// int8 a score and a weight are multiplied by a scale, one u each, and a row grows by half a step for each element at
// most: a step is the scale, largest / 127 rounded up to bf16. By bf16 dots q is rounded as in the reference, to rows
// longer by 2^-8 at most; a rescale multiplies by a power that is off by u times its exponent, of which there are S
// and the cap; a weight is off by e = 2^-8 of itself and 3e-6 (its power), which moves a mean by 2e/(1-e) of max|v|.
std::vector<double> Tolerances(const AttentionData& data, const std::vector<AttentionRows>& rows) {
  constexpr double kHalfStep = (1 + 0x1.0p-7) / 254;  // of the largest
  const AttentionCase& c = data.shape;
  const int is_int8 = c.dtype == DType::kI8 ? 1 : 0;
  constexpr double kWeight = 0x1p-8 + 3e-6;
  const double of_weights = c.has_bf16_dots ? 2 * kWeight / (1 - kWeight) : 0;
  const int64_t q_cols = int64_t{c.heads} * c.head_dim, kv_cols = int64_t{c.kv_heads} * c.head_dim;
  std::vector<double> tolerance;
  for (const AttentionRows& r : rows)
    for (int32_t position = r.begin; position < r.end; ++position)
      for (int32_t head = 0; head < c.heads; ++head) {
        const int64_t kv_begin = int64_t{head / (c.heads / c.kv_heads)} * c.head_dim;
        double k_norm = 0, v_max = 0;
        for (int32_t j = 0; j <= position; ++j) {
          const float* k = &data.k[r.sequence][j * kv_cols + kv_begin];
          const float* v = &data.v[r.sequence][j * kv_cols + kv_begin];
          const double grown = is_int8 ? std::sqrt(c.head_dim) * Largest(k, c.head_dim) * kHalfStep : 0;
          k_norm = std::max(k_norm, Norm(k, c.head_dim) + grown);
          v_max = std::max(v_max, Largest(v, c.head_dim) * (is_int8 ? 1 + kHalfStep : 1));
        }
        const double q_norm = Norm(&data.q[r.sequence][position * q_cols + int64_t{head} * c.head_dim], c.head_dim);
        const double s = AttentionRun::Scale(c) * q_norm * k_norm * (c.has_bf16_dots ? 1 + 0x1p-8 : 1);
        const double of_rescales = c.has_bf16_dots ? 2 * s : 0;
        const double ds = (ChainError(c.head_dim) + 3 + is_int8) * s + 2 * s + of_rescales + 8 * c.soft_cap;
        const double n = position + 1;
        tolerance.insert(tolerance.end(), c.head_dim,
                         (kUnitRoundoff * (2 * ds + ChainError(n) + 3 * n / 16 + 10 + is_int8) + of_weights) * v_max);
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
  for (const KvHeld& held : kHeld)
    for (Ops* ops : AllCpuOps()) {
      if (held.dtype == DType::kI8) continue;
      const DType dtype = held.dtype;
      AttentionData data({.name = "one token",
                          .heads = 2,
                          .kv_heads = 2,
                          .head_dim = 40,
                          .dtype = dtype,
                          .has_bf16_dots = held.has_bf16_dots});
      cases::Random random(7);
      data.v[0] = cases::RandomValues(random, 80);  // not rounded yet
      AttentionRun run(*ops, data);
      run.Append(run.AllTokens());
      const std::vector<float> out = run.Attend(run.StepRows());
      ASSERT_EQ(out.size(), 80u);
      for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], cases::Rounded(data.v[0][i], dtype)) << ops->name();
    }
}

// What int8 makes of a row, in double.
std::vector<double> Int8Row(const float* row, int32_t count) {
  const auto exact = static_cast<float>(Largest(row, count)) / 127;
  double scale = BF16ToFloat(FloatToBF16(exact));
  if (scale < double{exact}) scale = BF16ToFloat(static_cast<uint16_t>(FloatToBF16(exact) + 1));
  std::vector<double> rounded;
  for (int32_t d = 0; d < count; ++d)
    rounded.push_back(scale > 0 ? std::nearbyint(static_cast<float>(row[d] / scale)) * scale : 0.0);
  return rounded;
}

TEST(Attention, OfOneTokenReturnsItsValueInInt8) {
  constexpr int32_t kHeadDim = 40;
  for (Ops* ops : AllCpuOps()) {
    AttentionData data({.name = "one token",
                        .heads = 3,
                        .kv_heads = 3,
                        .head_dim = kHeadDim,
                        .dtype = DType::kI8,
                        .sequences = {{0, 1}}});
    std::fill_n(data.v[0].begin() + kHeadDim, kHeadDim, 0.0f);                    // a row of zeros
    for (int32_t d = 0; d < kHeadDim; ++d) data.v[0][2 * kHeadDim + d] *= 3e38f;  // near the largest f32
    AttentionRun run(*ops, data);
    run.Append(run.AllTokens());
    const std::vector<float> out = run.Attend(run.StepRows());
    ASSERT_EQ(out.size(), 3u * kHeadDim);
    for (int32_t head = 0; head < 3; ++head) {
      const std::vector<double> expected = Int8Row(&data.v[0][head * kHeadDim], kHeadDim);
      for (int32_t d = 0; d < kHeadDim; ++d)
        EXPECT_EQ(out[head * kHeadDim + d], static_cast<float>(expected[d])) << ops->name() << " head " << head;
    }
  }
}

// A token that isn't finite: NaN for the rows that see it with every weight, nothing for the others.
void ExpectHurt(Ops& ops, const KvHeld& held, bool is_key, int32_t bad) {
  SCOPED_TRACE(std::string(NameOf(held.dtype)) + (held.has_bf16_dots ? " dots" : "") + (is_key ? " K " : " V ") +
               std::to_string(bad) + " " + ops.name());
  AttentionData data({.name = "NaN",
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = 24,
                      .dtype = held.dtype,
                      .sequences = {{0, 40}, {0, 3}},
                      .window = 17,
                      .has_bf16_dots = held.has_bf16_dots});
  AttentionRun clean(ops, data);
  clean.Append(clean.AllTokens());
  const std::vector<float> expected = clean.Attend(clean.StepRows());
  constexpr int32_t kCols = 48;  // the first KV head
  auto& spoilt = (is_key ? data.k : data.v)[0];
  spoilt[bad * kCols + 5] = std::numeric_limits<float>::quiet_NaN();
  AttentionRun run(ops, data);
  run.Append(run.AllTokens());
  const std::vector<float> out = run.Attend(run.StepRows());
  ASSERT_EQ(out.size(), expected.size());
  for (int32_t row = 0; row < 43; ++row)
    for (int32_t i = 0; i < 96; ++i) {
      const int32_t at = row * 96 + i;
      const bool sees = row >= bad && row < bad + 17 && i < 48;
      const bool is_hurt = sees && (is_key || held.dtype == DType::kI8 || i % 24 == 5);
      EXPECT_EQ(std::isnan(out[at]), is_hurt) << "row " << row << " column " << i;
      if (!is_hurt) {
        EXPECT_EQ(out[at], expected[at]) << "row " << row << " column " << i;
      }
      if (testing::Test::HasFailure()) return;
    }
}

TEST(Attention, OfKOrVThatIsNaNIsNaNForWhoeverSeesItAlone) {
  for (const KvHeld& held : kHeld)
    for (const bool is_key : {true, false})
      for (const int32_t bad : {8, 9})  // either token of a pair
        for (Ops* ops : AllCpuOps()) ExpectHurt(*ops, held, is_key, bad);
}

// Elsewhere infinite K is plus or minus infinity times q; int8 has no infinity.
TEST(Attention, OfAnInfinityInInt8IsNaN) {
  for (const bool is_key : {true, false})
    for (Ops* ops : AllCpuOps()) {
      AttentionData data({.name = "infinity", .dtype = DType::kI8, .sequences = {{0, 6}}});
      (is_key ? data.k : data.v)[0][3 * 64 + 1] = -std::numeric_limits<float>::infinity();
      AttentionRun run(*ops, data);
      run.Append(run.AllTokens());
      const std::vector<float> out = run.Attend(run.StepRows());
      ASSERT_EQ(out.size(), 6u * 128);
      for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i >= 3 * 128) << ops->name() << " at " << i;
    }
}

TEST(Attention, IsByBF16DotsOverKVInBF16BesideProductsThatRoundX) {
  for (const WeightFormat base : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kBF16Dot}) {
    EXPECT_TRUE(HasBF16Dots(base, DType::kBF16, 64, 16));
    EXPECT_TRUE(HasBF16Dots(base, DType::kBF16, 6, 2));
    EXPECT_FALSE(HasBF16Dots(base, DType::kBF16, 65, 16)) << "pairs of head_dim";
    EXPECT_FALSE(HasBF16Dots(base, DType::kBF16, 64, 1)) << "pairs of tokens";
    for (const DType kv : {DType::kF32, DType::kF16, DType::kI8}) EXPECT_FALSE(HasBF16Dots(base, kv, 64, 16));
  }
  for (const WeightFormat base : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16})
    EXPECT_FALSE(HasBF16Dots(base, DType::kBF16, 64, 16));
}

TEST(Attention, SplitsOneLongSequenceOverThreadsWithoutChangingABit) {
  for (const KvHeld& held : kHeld) {
    const AttentionCase c{.name = "long",
                          .heads = 7,
                          .kv_heads = 1,
                          .head_dim = 64,
                          .dtype = held.dtype,
                          .sequences = {{5000, 1}},
                          .seed = 3,
                          .has_bf16_dots = held.has_bf16_dots};
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
}

}  // namespace
}  // namespace openlora
