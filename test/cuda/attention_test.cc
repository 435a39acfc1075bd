// Append, Decode, Merge and Prefill of kernels/attention.cuh on the simulator, over the cases of the shared list whose
// cache is of 16 bits.

#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cuda/sim_attention.h"
#include "native/ops/ops_under_test.h"
#include "native/test_size.h"

namespace openlora {
namespace {

using cases::AttentionCase;
using cases::AttentionData;
using cases::AttentionRows;
using Bits = std::vector<uint16_t>;

// Of the shared list, those of 16 bits, fewer where they cost much and show little; cases that it has in f32 alone are
// taken in bf16, as it does for bf16 dots.
std::vector<AttentionCase> SimCases() {
  std::vector<AttentionCase> list;
  for (AttentionCase c : cases::AttentionCases()) {
    const std::string_view name = c.name;
    if (c.head_dim % 8 != 0 || c.has_bf16_dots) continue;
    if (name == "decode at a border" || name == "chunk over a border" || name == "window over spans") {
      if (c.window > 129 || c.sequences[0].cached == 1023 || c.sequences[0].cached == 1000) continue;
      c.dtype = DType::kBF16;
    }
    if (c.dtype == DType::kF16 && (name == "head_dim" || name == "frame tokens" || name == "several spans")) continue;
    if (name == "group" && c.heads % 4 == 0) continue;
    if (c.dtype == DType::kF16 || c.dtype == DType::kBF16) list.push_back(c);
  }
  return list;
}

// Every token of every sequence, and the rows of the step.
std::vector<AttentionRows> AllTokens(const AttentionCase& c) {
  std::vector<AttentionRows> all;
  for (size_t s = 0; s < c.sequences.size(); ++s)
    all.push_back({static_cast<int32_t>(s), 0, c.sequences[s].cached + c.sequences[s].rows});
  return all;
}
std::vector<AttentionRows> StepRows(const AttentionCase& c) {
  std::vector<AttentionRows> step = AllTokens(c);
  for (size_t s = 0; s < step.size(); ++s) step[s].begin = c.sequences[s].cached;
  return step;
}

// The output of a (row, head) and how far from it the kernels may be, in double. The scores of q' = q * (scale * log2
// e), rounded, are powers of two. With S = ‖q'‖·max‖k‖ >= |s|: a score is off by ds = u·(chain over head_dim + 3)·S, s
// - max by u·2S more, and a cap by 8u·cap; a rescale by u times its exponent, of which all add up to 2S and the cap,
// and 3u, once a step of at least 16 tokens and once a split. A weight's relative error is that, 4u of the power, and e
// of its rounding, 2⁻⁸ in bf16 and 2⁻¹¹ in f16 (2⁻²⁵ below f16's least normal); the sums are chains over n tokens.
// Weights that are off by w of themselves move a mean by 2w/(1-w) of max|v|. At last the output is rounded.
struct WantedHead {
  std::vector<double> out;
  double of_weights = 0, of_rounding = 0;
  double Tolerance(size_t d) const { return of_weights + of_rounding * (std::abs(out[d]) + of_weights) + 0x1p-25; }
};
WantedHead WantedOf(const AttentionData& data, int32_t sequence, int32_t position, int32_t head) {
  constexpr float kLog2E = 1.44269504f;
  const AttentionCase& c = data.shape;
  const auto s = static_cast<size_t>(sequence);
  const int32_t dim = c.head_dim;
  const int64_t kv_cols = int64_t{c.kv_heads} * dim, kv_begin = int64_t{head / (c.heads / c.kv_heads)} * dim;
  const int32_t begin = c.window > 0 ? std::max(0, position + 1 - c.window) : 0;
  const float* const q_row = data.q[s].data() + (int64_t{position} * c.heads + head) * dim;
  std::vector<float> q;
  for (int32_t d = 0; d < dim; ++d)
    q.push_back(cases::Rounded(q_row[d] * (cases::AttentionRun::Scale(c) * kLog2E), c.dtype));
  double k_norm = 0, v_max = 0, max = -std::numeric_limits<double>::infinity(), sum = 0;
  const double cap = double{c.soft_cap} * kLog2E;
  std::vector<double> p;
  for (int32_t j = begin; j <= position; ++j) {
    const float* const k = data.k[s].data() + j * kv_cols + kv_begin;
    double score = 0;
    for (int32_t d = 0; d < dim; ++d) score += double{q[static_cast<size_t>(d)]} * k[d];
    p.push_back(cap > 0 ? cap * std::tanh(score / cap) : score);
    max = std::max(max, p.back());
    k_norm = std::max(k_norm, Norm(k, dim));
  }
  WantedHead wanted{std::vector<double>(static_cast<size_t>(dim))};
  for (double& weight : p) sum += weight = std::exp2(weight - max);
  for (int32_t j = begin; j <= position; ++j)
    for (int32_t d = 0; d < dim; ++d) {
      const double v = data.v[s][static_cast<size_t>(j * kv_cols + kv_begin + d)];
      wanted.out[static_cast<size_t>(d)] += p[static_cast<size_t>(j - begin)] / sum * v;
      v_max = std::max(v_max, std::abs(v));
    }
  const bool is_f16 = c.dtype == DType::kF16;
  const double n = position + 1 - begin, size = Norm(q.data(), dim) * k_norm;
  const double ds = (ChainError(dim) + 3) * size + 2 * size + (2 * size + cap) + 8 * cap;
  wanted.of_rounding = is_f16 ? 0x1p-11 : 0x1p-8;
  const double w = kUnitRoundoff * (ds + ChainError(n) + 3 * (n / 16 + n / 256 + 2) + 4) + wanted.of_rounding +
                   (is_f16 ? n * 0x1p-25 : 0);
  wanted.of_weights = 2 * w / (1 - w) * v_max;
  return wanted;
}

float FloatOf(const AttentionCase& c, uint16_t bits) {
  return c.dtype == DType::kF16 ? F16ToFloat(bits) : BF16ToFloat(bits);
}

void ExpectWanted(const AttentionData& data, const std::vector<AttentionRows>& rows, const Bits& out) {
  const AttentionCase& c = data.shape;
  size_t at = 0;
  for (const AttentionRows& r : rows)
    for (int32_t position = r.begin; position < r.end; ++position)
      for (int32_t head = 0; head < c.heads; ++head) {
        const WantedHead wanted = WantedOf(data, r.sequence, position, head);
        for (size_t d = 0; d < static_cast<size_t>(c.head_dim); ++d, ++at)
          ASSERT_NEAR(FloatOf(c, out[at]), wanted.out[d], wanted.Tolerance(d))
              << cases::Describe(c) << " sequence " << r.sequence << " position " << position << " head " << head
              << " column " << d;
      }
  ASSERT_EQ(at, out.size());
}

// Every token that a row of the step sees.
std::vector<AttentionRows> TokensBefore(const AttentionCase& c) {
  std::vector<AttentionRows> seen = AllTokens(c);
  for (size_t s = 0; s < seen.size() && c.window > 0; ++s)
    seen[s].begin = std::max(0, c.sequences[s].cached + 1 - c.window);
  return seen;
}

bool IsLong(const AttentionCase& c) {
  return std::any_of(c.sequences.begin(), c.sequences.end(), [](const auto& s) { return s.cached + s.rows > 100; });
}

TEST(CudaAttentionTest, EveryCaseIsTheReferenceInEveryOrderAndPrefillIsDecode) {
  uint64_t index = 0;
  for (const AttentionCase& c : SimCases()) {
    SCOPED_TRACE(cases::Describe(c));
    const AttentionData data(c);
    Bits first;
    ++index;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      if (IsLong(c) && seed % 4 != index % 4) continue;  // slow: each has one seed, all seeds have some
      TestMachine machine({.seed = seed});
      SimAttention sim(machine, data);
      ASSERT_EQ(sim.Append(TokensBefore(c)), "");
      Bits decoded, prefilled;
      ASSERT_EQ(sim.Attend(StepRows(c), kDecode, &decoded), "");
      ASSERT_EQ(sim.Attend(StepRows(c), kPrefill, &prefilled), "");
      EXPECT_EQ(prefilled, decoded) << "seed " << seed;
      if (first.empty()) ExpectWanted(data, StepRows(c), first = decoded);
      EXPECT_EQ(decoded, first) << "seed " << seed;
      if (HasFailure()) return;
    }
  }
}

// Rows one by one, each before the next token is there, are those of the whole sequence at once.
TEST(CudaAttentionTest, ARowsBitsAreThoseThatItGetsAlone) {
  const auto kind = [](const AttentionCase& c) { return std::string(c.name); };
  for (const AttentionCase& c : OneOfEachKind(SimCases(), kind)) {
    SCOPED_TRACE(cases::Describe(c));
    const AttentionData data(c);
    TestMachine machine, other({.seed = 9});
    SimAttention whole(machine, data), grown(other, data);
    ASSERT_EQ(whole.Append(TokensBefore(c)), "");
    Bits together;
    ASSERT_EQ(whole.Attend(StepRows(c), {.is_prefill = true, .is_split = false, .blocks = 1}, &together), "");
    auto next = together.begin();
    for (const AttentionRows& r : StepRows(c)) {
      ASSERT_EQ(grown.Append({{r.sequence, TokensBefore(c)[static_cast<size_t>(r.sequence)].begin, r.begin}}), "");
      for (int32_t position = r.begin; position < r.end; ++position, next += c.heads * c.head_dim) {
        ASSERT_EQ(grown.Append({{r.sequence, position, position + 1}}, 1), "");
        if (position > r.begin + 1 && position + 1 < r.end) continue;
        Bits alone;
        const AttentionWay way = {.is_prefill = position % 3 == 1, .is_split = true, .blocks = 1 + position % 5};
        ASSERT_EQ(grown.Attend({{r.sequence, position, position + 1}}, way, &alone), "");
        ASSERT_EQ(alone, Bits(next, next + c.heads * c.head_dim)) << "sequence " << r.sequence << " at " << position;
      }
    }
  }
}

TEST(CudaAttentionTest, ARowsBitsDependOnNoTile) {
  for (const int32_t heads : {3, 40})
    for (const int32_t window : {0, 40}) {
      const AttentionCase c{.name = "tiles",
                            .heads = heads,
                            .head_dim = 24,
                            .dtype = DType::kF16,
                            .frame_tokens = 8,
                            .sequences = {{0, 1}, {253, 5}},
                            .window = window,
                            .seed = 20};
      SCOPED_TRACE(cases::Describe(c));
      const AttentionData data(c);
      TestMachine machine;
      SimAttention sim(machine, data);
      ASSERT_EQ(sim.Append(AllTokens(c)), "");
      Bits first;
      ASSERT_EQ(sim.Attend(StepRows(c), kDecode, &first), "");
      ExpectWanted(data, StepRows(c), first);
      for (const bool is_prefill : {false, true})
        for (const bool is_split : {false, true})
          for (const int tile_pairs : {heads == 3 ? 5 : 11, 37}) {
            if (!is_prefill && (!is_split || tile_pairs > attention::kTileRows)) continue;
            Bits out;
            ASSERT_EQ(sim.Attend(StepRows(c), {is_prefill, is_split, tile_pairs, 7}, &out), "");
            EXPECT_EQ(out, first) << is_prefill << is_split << " tiles of " << tile_pairs;
          }
    }
}

TEST(CudaAttentionTest, EveryHeadDimIsTheReferenceWithoutBankConflicts) {
  for (const int32_t head_dim : {8, 72, 96, 104, 128, 136, 256}) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      if (head_dim != 256 && (head_dim % 32 == 0) != (dtype == DType::kF16)) continue;  // either, in turn
      const AttentionCase c{.name = "head_dim",
                            .heads = 6,
                            .kv_heads = 2,
                            .head_dim = head_dim,
                            .dtype = dtype,
                            .frame_tokens = 4,
                            .sequences = {{30, 3}, {254, 3}},
                            .window = 200,
                            .seed = 21};
      SCOPED_TRACE(cases::Describe(c));
      const AttentionData data(c);
      TestMachine machine({.seed = static_cast<uint64_t>(head_dim)});
      SimAttention sim(machine, data);
      ASSERT_EQ(sim.Append(AllTokens(c)), "");
      Bits decoded, prefilled;
      ASSERT_EQ(sim.Attend(StepRows(c), kDecode, &decoded), "");
      ASSERT_EQ(sim.Attend(StepRows(c), kPrefill, &prefilled), "");
      EXPECT_EQ(prefilled, decoded);
      ExpectWanted(data, StepRows(c), decoded);
      if (kIsSimulated) {
        EXPECT_EQ(machine.counts().matrix_replays, 0u);
      }
      if (HasFailure()) return;
    }
  }
}

// K and V of random f32: to nearest, ties to even; no slot but those of the rows is written.
TEST(CudaAttentionTest, AppendRoundsAndWritesTheRowsAlone) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const AttentionCase c{.name = "append",
                          .heads = 3,
                          .kv_heads = 3,
                          .head_dim = 136,
                          .dtype = dtype,
                          .frame_tokens = 8,
                          .sequences = {{0, 21}, {0, 9}},
                          .seed = 22};
    AttentionData data(c);
    cases::Random random(23);
    for (auto* values : {&data.k, &data.v})
      for (auto& of_sequence : *values)
        of_sequence = cases::RandomValues(random, static_cast<int64_t>(of_sequence.size()), DType::kF32, 5);
    const std::vector<AttentionRows> rows = {{0, 3, 18}, {1, 8, 9}};
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      TestMachine machine({.seed = seed});
      SimAttention sim(machine, data);
      ASSERT_EQ(sim.Append(rows, static_cast<int>(seed)), "");
      for (const AttentionRows& r : rows)
        for (int32_t position = 0; position < c.sequences[static_cast<size_t>(r.sequence)].rows; ++position)
          for (int32_t i = 0; i < 2 * c.kv_heads * c.head_dim; ++i) {
            const int32_t head = i / c.head_dim % c.kv_heads, d = i % c.head_dim;
            const bool is_value = i / c.head_dim >= c.kv_heads, is_row = position >= r.begin && position < r.end;
            const float value =
                (is_value ? data.v : data.k)[static_cast<size_t>(r.sequence)]
                                            [static_cast<size_t>((position * c.kv_heads + head) * c.head_dim + d)];
            const uint16_t bits = dtype == DType::kF16 ? FloatToF16(value) : FloatToBF16(value);
            ASSERT_EQ(sim.Row(is_value, r.sequence, position, head)[d], is_row ? bits : 0xffff)
                << is_value << " sequence " << r.sequence << " position " << position << " head " << head << " " << d;
          }
    }
  }
}

// K or V that isn't finite: NaN for the rows that see the token, in all columns of the head; nothing for the others.
TEST(CudaAttentionTest, OfKOrVThatIsNotFiniteIsNaNForWhoeverSeesItAlone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : {DType::kF16, DType::kBF16})
    for (const bool is_key : {true, false})
      for (const float value : {kNaN, is_key ? kNaN : kInfinity, is_key || dtype == DType::kBF16 ? kNaN : 65520.0f}) {
        AttentionData data({.name = "NaN",
                            .heads = 4,
                            .kv_heads = 2,
                            .head_dim = 24,
                            .dtype = dtype,
                            .sequences = {{0, 40}, {0, 3}},
                            .window = 17,
                            .seed = 24});
        const std::vector<AttentionRows> rows = AllTokens(data.shape);
        TestMachine machine;
        Bits expected;
        {
          SimAttention clean(machine, data);
          ASSERT_EQ(clean.Append(rows), "");
          ASSERT_EQ(clean.Attend(rows, kDecode, &expected), "");
        }
        constexpr int32_t kBad = 9, kCols = 48;  // a token of the first KV head
        (is_key ? data.k : data.v)[0][kBad * kCols + 5] = value;
        SimAttention sim(machine, data);
        ASSERT_EQ(sim.Append(rows), "");
        for (const AttentionWay& way : {kDecode, kPrefill}) {
          Bits out;
          ASSERT_EQ(sim.Attend(rows, way, &out), "");
          for (size_t i = 0; i < out.size(); ++i) {
            const size_t row = i / 96;
            const bool sees = row >= kBad && row < kBad + 17 && i % 96 < 48;
            ASSERT_EQ(std::isnan(FloatOf(data.shape, out[i])), sees) << "row " << row << " column " << i % 96;
            if (!sees) {
              ASSERT_EQ(out[i], expected[i]) << "row " << row << " column " << i % 96;
            }
          }
        }
      }
}

TEST(CudaAttentionTest, OfOneTokenIsItsValue) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const AttentionCase c{.name = "one token", .kv_heads = 2, .head_dim = 40, .dtype = dtype};
    const AttentionData data(c);
    TestMachine machine;
    SimAttention sim(machine, data);
    Bits out;
    ASSERT_EQ(sim.Append(AllTokens(c)), "");
    ASSERT_EQ(sim.Attend(AllTokens(c), kDecode, &out), "");
    ASSERT_EQ(out.size(), 80u);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(FloatOf(c, out[i]), data.v[0][i]);
  }
}

TEST(CudaAttentionTest, ABatchWithoutRowsTouchesNothing) {
  const AttentionData data({.name = "none", .dtype = DType::kBF16});
  TestMachine machine;
  SimAttention sim(machine, data);
  Bits out;
  ASSERT_EQ(sim.Append({}), "");
  ASSERT_EQ(sim.Attend({}, kDecode, &out), "");
  ASSERT_EQ(sim.Attend({}, kPrefill, &out), "");
  EXPECT_TRUE(out.empty());
  if (kIsSimulated) {
    EXPECT_EQ(machine.counts().async_copies, 0u);
  }
}

}  // namespace
}  // namespace openlora
