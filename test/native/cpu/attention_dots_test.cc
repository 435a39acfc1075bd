// Attention by bf16 dots (ops/kv_view.h, KvView::has_bf16_dots) beside its expression written down without tiles, bit
// for bit on every level.

#include <bit>
#include <cmath>
#include <limits>

#include "base/prng.h"
#include "native/cpu/cpu_fixture.h"
#include "native/test_size.h"

namespace openlora::cpu_test {
namespace {

constexpr int kBlock = 128, kSpan = 1024, kLanes = 16;

float BF16Of(float value) { return reference::RoundToBF16(reference::Flush(value)); }

// As in math-inl.h.
float Exp(float x) {
  x = std::max(-104.0f, std::min(89.0f, x));
  const float shifted = std::fma(x, 1.44269504f, 0x1.8p23f);
  const float n = shifted - 0x1.8p23f;
  const float r = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = std::fma(p, r, c);
  p = std::fma(p, r * r, r + 1.0f);
  const int half = static_cast<int>(n) >> 1;
  return p * std::ldexp(1.0f, half) * std::ldexp(1.0f, static_cast<int>(n) - half);
}

float Power(float x) { return Exp(x * 0.693147181f); }

// 2^x for x <= 0, rounded to bf16.
float Weight(float x) {
  x = std::max(-100.0f, x);
  const float n = std::nearbyint(x), r = x - n;
  float p = 9.58285509e-3f;
  for (const float c : {5.59064347e-2f, 2.40240986e-1f, 6.93124192e-1f, 1.0f}) p = std::fma(p, r, c);
  return BF16Of(std::ldexp(p, static_cast<int>(n)) - 0x1p-100f);
}

struct State {
  float max = -std::numeric_limits<float>::infinity();
  std::vector<float> sums = std::vector<float>(kLanes);
  std::vector<float> out;

  void Scale(float by) {
    for (float& sum : sums) sum *= by;
    for (float& value : out) value *= by;
  }
};

struct Row {
  const std::vector<float>& q;  // [head_dim], rounded
  const std::vector<float>& k;  // [tokens][head_dim], bf16 numbers
  const std::vector<float>& v;
  int head_dim;
  int begin;
  int end;

  std::span<const float> Key(int t) const {
    return {&k[static_cast<size_t>(t * head_dim)], static_cast<size_t>(head_dim)};
  }
  float Value(int t, int d) const { return t < begin || t >= end ? 0 : v[static_cast<size_t>(t * head_dim + d)]; }
};

// Tokens [begin, end) of one block.
void AddBlock(const Row& row, int begin, int end, State* state) {
  std::vector<float> scores;
  float max = state->max;
  for (int t = begin; t < end; ++t) max = std::max(max, scores.emplace_back(reference::BF16Dot(row.q, row.Key(t))));
  if (max > state->max) state->Scale(Power(state->max - max));
  state->max = max;
  const auto weight = [&](int t) {
    return t < begin || t >= end ? 0 : Weight(scores[static_cast<size_t>(t - begin)] - max);
  };
  for (int even = begin / 2 * 2; even < end; even += 2) {
    float& sum = state->sums[static_cast<size_t>(even / 2 % kLanes)];
    sum = sum + weight(even + 1) + weight(even);
    for (int d = 0; d < row.head_dim; ++d) {
      float& out = state->out[static_cast<size_t>(d)];
      out = reference::FlushingFma(weight(even + 1), row.Value(even + 1, d), out);
      out = reference::FlushingFma(weight(even), row.Value(even, d), out);
    }
  }
}

std::vector<float> Expected(const Row& row) {
  State all;
  for (int span = row.begin / kSpan * kSpan; span < row.end; span += kSpan) {
    State state;
    state.out.resize(static_cast<size_t>(row.head_dim));
    for (int block = std::max(span, row.begin / kBlock * kBlock); block < std::min(row.end, span + kSpan);
         block += kBlock)
      AddBlock(row, std::max(row.begin, block), std::min(row.end, block + kBlock), &state);
    if (span <= row.begin) {
      all = state;
      continue;
    }
    const float max = std::max(all.max, state.max), by = Power(state.max - max);
    all.Scale(Power(all.max - max));
    all.max = max;
    for (size_t i = 0; i < kLanes; ++i) all.sums[i] = std::fma(state.sums[i], by, all.sums[i]);
    for (size_t d = 0; d < all.out.size(); ++d) all.out[d] = std::fma(state.out[d], by, all.out[d]);
  }
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) all.sums[i] += all.sums[i + half];
  for (float& value : all.out) value /= all.sums[0];
  return all.out;
}

struct Problem {
  int heads = 1;
  int head_dim = 16;
  int frame_tokens = 16;
  int window = 0;
  float scale = 1;
  int first_row = 0;
  std::vector<float> q = {};  // [tokens][heads][head_dim]
  std::vector<float> k = {};  // [tokens][head_dim], bf16 numbers
  std::vector<float> v = {};
};

std::vector<float> Expected(const Problem& p) {
  std::vector<float> out;
  const int tokens = static_cast<int>(p.k.size()) / p.head_dim;
  for (int row = p.first_row; row < tokens; ++row)
    for (int head = 0; head < p.heads; ++head) {
      std::vector<float> q;
      for (int d = 0; d < p.head_dim; ++d)
        q.push_back(
            BF16Of(p.q[static_cast<size_t>((row * p.heads + head) * p.head_dim + d)] * (p.scale * 1.44269504f)));
      const std::vector<float> of_row =
          Expected(Row{q, p.k, p.v, p.head_dim, p.window > 0 ? std::max(0, row + 1 - p.window) : 0, row + 1});
      out.insert(out.end(), of_row.begin(), of_row.end());
    }
  return out;
}

std::vector<float> Actual(Ops& ops, const Problem& p) {
  const int tokens = static_cast<int>(p.k.size()) / p.head_dim, rows = tokens - p.first_row;
  const int64_t bytes = ops.KvBytes(DType::kBF16, 1, p.head_dim, p.frame_tokens);
  const int blocks = (tokens + p.frame_tokens - 1) / p.frame_tokens;
  const Aligned pool = AllocateAligned(bytes * blocks);
  std::memset(pool.get(), 0, static_cast<size_t>(bytes * blocks));
  std::vector<uint32_t> table;
  for (int block = 0; block < blocks; ++block) table.push_back(static_cast<uint32_t>(blocks - 1 - block));
  const int64_t begin = 0;
  KvView kv{pool.get(), bytes, p.frame_tokens, DType::kBF16, 1, 1, p.head_dim, table.data(), &begin};
  kv.has_bf16_dots = true;
  std::vector<int32_t> positions, sequence(static_cast<size_t>(tokens));
  for (int t = 0; t < tokens; ++t) positions.push_back(t);
  std::vector<float> k = p.k, v = p.v, q = p.q, out(static_cast<size_t>(rows * p.heads * p.head_dim), -7.0f);
  ops.KvAppend(F32View(k.data(), tokens, p.head_dim), F32View(v.data(), tokens, p.head_dim),
               {tokens, nullptr, positions.data(), sequence.data()}, kv, 0);
  const int64_t cols = int64_t{p.heads} * p.head_dim;
  ops.Attention({F32View(q.data() + p.first_row * cols, rows, cols),
                 F32View(out.data(), rows, cols),
                 {rows, nullptr, positions.data() + p.first_row, sequence.data()},
                 kv,
                 0,
                 p.heads,
                 p.scale,
                 p.window,
                 0});
  return out;
}

void ExpectSame(const Problem& problem) {
  const std::vector<float> expected = Expected(problem);
  for (const SimdLevel level : AvailableSimdLevels())
    for (const int threads : {1, 3}) {
      const std::vector<float> actual = Actual(*MakeOps(level, threads), problem);
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < actual.size(); ++i)
        ASSERT_TRUE(std::bit_cast<uint32_t>(actual[i]) == std::bit_cast<uint32_t>(expected[i]) ||
                    (std::isnan(actual[i]) && std::isnan(expected[i])))
            << "[" << i << "] is " << std::hexfloat << actual[i] << ", wanted " << expected[i] << ", " << NameOf(level);
    }
}

std::vector<float> BF16Values(uint64_t seed, int64_t count, float times) {
  std::vector<float> values = Values(seed, static_cast<size_t>(count));
  for (float& value : values) value = RoundTo(DType::kBF16, value * times);
  return values;
}

Problem RandomProblem(int heads, int head_dim, int tokens, float q_size) {
  Problem p{.heads = heads, .head_dim = head_dim, .scale = 1 / std::sqrt(static_cast<float>(head_dim))};
  p.q = Values(1, static_cast<size_t>(tokens * heads * head_dim));
  for (float& q : p.q) q *= q_size;
  p.k = BF16Values(2, tokens * head_dim, 2);
  p.v = BF16Values(3, tokens * head_dim, 1);
  return p;
}

TEST(CpuAttentionDots, ARowIsOneExpressionOverWhatItSees) {
  Problem small = RandomProblem(3, 20, 47, 3);
  for (const int frame_tokens : {2, 4, 8, 16}) {
    small.frame_tokens = frame_tokens;
    ExpectSame(small);
  }
  for (const int window : {1, 2, 7, 16, 33}) {
    small.window = window;
    ExpectSame(small);
  }
  Problem blocks = RandomProblem(7, 64, 270, 3);
  blocks.first_row = 120;
  ExpectSame(blocks);
  Problem spans = RandomProblem(2, 16, 2060, 3);  // a row in the first span, rows in three
  spans.first_row = 2045;
  ExpectSame(spans);
}

// Scores of hundreds: weights from one to nothing, and a largest score that rises from block to block.
TEST(CpuAttentionDots, WeightsGoDownToZero) {
  Problem p = RandomProblem(2, 32, 300, 60);
  p.first_row = 250;
  for (size_t i = 0; i < p.k.size(); ++i) p.k[i] *= std::exp2(static_cast<float>(i / (32 * 64)));
  ExpectSame(p);
}

// Scores about 1 of q about 2^-126, a bf16 or not, denormal or not.
TEST(CpuAttentionDots, QIsRoundedAfterItsDenormalsAreZero) {
  Problem p{.heads = 1, .head_dim = 2, .scale = 0.693147181f};
  const float of_q[] = {0x1p-126f,        -0x1p-126f,        0x1.fffffep-127f, 0x1.ffp-127f, 0x1p-149f, 0x1.01p-126f,
                        0x1.010001p-126f, -0x1.030002p-126f, 0x1.fffffep-126f, 0x1.7fp-125f, -0.0f,     0x1.02p-127f};
  for (size_t i = 0; i < std::size(of_q); ++i) {
    p.q.insert(p.q.end(), {of_q[i], of_q[(i * 5 + 1) % std::size(of_q)]});
    p.k.insert(p.k.end(), {i % 3 == 0 ? 0x1p126f : -0x1.2p126f, i % 2 == 0 ? -0x1.4p125f : 0x1p126f});
    p.v.insert(p.v.end(), {static_cast<float>(i), 1});
  }
  ExpectSame(p);
  const std::vector<float> out = Actual(*MakeOps(SimdLevel::kAuto, 1), p);
  EXPECT_GT(out[2], 0.9f);  // q of the second row is not zero: its weights are not equal
}

// Values about 2^-126: products and sums become denormal, and rescaled ones too.
TEST(CpuAttentionDots, ChainsOfValuesFlush) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    Problem p = RandomProblem(1, 16, 200, 8);
    p.first_row = 100;
    for (size_t i = 0; i < p.v.size(); ++i) {
      const uint64_t draw = Philox(seed, i);
      const float size = std::ldexp(1.0f, -130 + static_cast<int>(draw % 12));
      p.v[i] = RoundTo(DType::kBF16, (draw % 5 == 0 ? -size : size) * (1 + static_cast<float>(draw / 64 % 128) / 128));
    }
    ExpectSame(p);
  }
}

TEST(CpuAttentionDots, NaNAndInfinitiesReachWhoeverSeesThem) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {kNaN, kInfinity, -kInfinity})
    for (const int which : {0, 1, 2}) {
      Problem p = RandomProblem(2, 16, 40, 2);
      if (which == 0) p.q[35 * 32 + 3] = bad;
      if (which == 1) p.k[21 * 16 + 3] = bad;
      if (which == 2) p.v[21 * 16 + 3] = bad;
      p.window = 9;
      const std::vector<float> out = Actual(*MakeOps(SimdLevel::kAuto, 1), p);
      for (int row = 0; row < 40; ++row) {
        const bool is_seen = which == 0 ? row == 35 : row >= 21 && row < 30;
        const float got = out[static_cast<size_t>(row * 32 + 3)];
        EXPECT_FALSE(!is_seen && !std::isfinite(got)) << row;
        EXPECT_FALSE(is_seen && std::isfinite(got) && (which != 1 || std::isnan(bad))) << row;
      }
    }
  std::vector<uint32_t> payloads = {0x7fffffffu, 0xffffffffu, 0x7f800001u, 0xff80ffffu};
  for (const uint32_t payload : payloads)
    for (const SimdLevel level : AvailableSimdLevels()) {
      Problem p = RandomProblem(1, 16, 3, 2);
      p.q[2 * 16 + 1] = std::bit_cast<float>(payload);
      const std::vector<float> out = Actual(*MakeOps(level, 1), p);
      EXPECT_TRUE(std::isnan(out[2 * 16])) << NameOf(level);
    }
}

}  // namespace
}  // namespace openlora::cpu_test
