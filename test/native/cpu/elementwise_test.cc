#include <algorithm>
#include <limits>
#include <string>

#include "native/cpu/cpu_fixture.h"

namespace openlora::cpu_test {
namespace {

TEST(CpuLevels, AnUnknownLevelIsRefusedWithTheListOfThoseThatExist) {
  const auto& levels = AvailableSimdLevels();
  ASSERT_FALSE(levels.empty());
  EXPECT_EQ(levels.front(), SimdLevel::kScalar);
  for (const SimdLevel level : {SimdLevel::kNeon, SimdLevel::kAvx512}) {
    std::unique_ptr<Ops> ops;
    const Status status = CreateCpuOps(level, 1, &ops);
    const bool is_available = std::find(levels.begin(), levels.end(), level) != levels.end();
    EXPECT_EQ(status.ok(), is_available);
    if (is_available) continue;
    EXPECT_STREQ(status.code(), "ERR_SIMD_LEVEL");
    EXPECT_NE(status.message().find("scalar"), std::string::npos) << status.message();
  }
}

// Runs body(ops) on every level and thread count and wants one result.
template <typename Body>
void SameOnEveryLevel(const Body& body) {
  std::vector<float> first;
  for (const SimdLevel level : AvailableSimdLevels())
    for (const int threads : {1, 3}) {
      const auto ops = MakeOps(level, threads);
      const std::vector<float> got = body(*ops);
      if (first.empty()) first = got;
      ASSERT_EQ(got.size(), first.size());
      ASSERT_EQ(std::memcmp(got.data(), first.data(), got.size() * sizeof(float)), 0)
          << NameOf(level) << " threads " << threads;
    }
}

TEST(CpuElementwise, RmsNormIsTheSameOnEveryLevelAndRight) {
  for (const int64_t dim : {1, 7, 16, 45, 64, 2048}) {
    const int64_t rows = 5, groups = 3;
    std::vector<float> x = Values(1, static_cast<size_t>(rows * groups * dim));
    const std::vector<float> gain = Values(2, static_cast<size_t>(dim));
    SameOnEveryLevel([&](Ops& ops) {
      std::vector<float> out(x.size());
      ops.RmsNorm(F32View(x.data(), rows, groups * dim), gain.data(), dim, 1e-5f,
                  F32View(out.data(), rows, groups * dim));
      for (size_t group = 0; group < static_cast<size_t>(rows * groups); ++group) {
        double sum = 0;
        const float* values = &x[group * static_cast<size_t>(dim)];
        for (int64_t i = 0; i < dim; ++i) sum += double{values[i]} * values[i];
        const double factor = 1 / std::sqrt(sum / static_cast<double>(dim) + 1e-5);
        for (int64_t i = 0; i < dim; ++i) {
          const double wanted = values[i] * factor * gain[static_cast<size_t>(i)];
          // dim/16 + 4 roundings of the sum, halved by the root, and four more.
          const double epsilon = 0x1.0p-24 * (static_cast<double>(dim) / 32 + 8);
          EXPECT_NEAR(out[group * static_cast<size_t>(dim) + static_cast<size_t>(i)], wanted,
                      std::abs(wanted) * epsilon);
        }
      }
      return out;
    });
  }
}

TEST(CpuElementwise, SiluIsTheSameOnEveryLevelAndWithinFourUlp) {
  std::vector<float> gate, up;
  for (float value = -110; value < 110; value += 0.0371f) gate.push_back(value);
  for (const float value : {0.0f, -0.0f, 1e-30f, -1e-30f, 88.7f, -88.7f, -103.9f, 1e30f, -1e30f}) gate.push_back(value);
  up.assign(gate.size(), 1.0f);
  SameOnEveryLevel([&](Ops& ops) {
    std::vector<float> out = gate;
    const int64_t count = static_cast<int64_t>(gate.size());
    std::vector<float> factor = up;
    ops.GatedActivation(Activation::kSilu, F32View(out.data(), 1, count), F32View(factor.data(), 1, count));
    for (size_t i = 0; i < gate.size(); ++i) {
      const double wanted = gate[i] / (1 + std::exp(-double{gate[i]}));
      EXPECT_NEAR(out[i], wanted, std::abs(wanted) * 0x1.0p-22 + 1e-36) << gate[i];
    }
    return out;
  });
}

TEST(CpuElementwise, AnActivationOfNanIsNanAndOfInfinityIsInfinity) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh})
    for (const SimdLevel level : AvailableSimdLevels()) {
      const auto ops = MakeOps(level, 1);
      std::vector<float> gate = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()},
                         up = {1, 1};
      ops->GatedActivation(activation, F32View(gate.data(), 1, 2), F32View(up.data(), 1, 2));
      EXPECT_TRUE(std::isnan(gate[0])) << NameOf(level);
      EXPECT_EQ(gate[1], std::numeric_limits<float>::infinity()) << NameOf(level);
    }
}

TEST(CpuElementwise, RopeRotatesPairsAndLeavesTheRest) {
  const int64_t rows = 3, heads = 2, head_dim = 50, half = 22;
  std::vector<float> inverse;
  for (int64_t i = 0; i < half; ++i) inverse.push_back(std::pow(10000.0f, -static_cast<float>(i) / half));
  const std::vector<int32_t> positions = {0, 17, 130000};
  SameOnEveryLevel([&](Ops& ops) {
    std::vector<float> table(static_cast<size_t>(rows * 2 * half)),
        x = Values(4, static_cast<size_t>(rows * heads * head_dim));
    const std::vector<float> before = x;
    ops.RopeTable({static_cast<int32_t>(rows), nullptr, positions.data(), nullptr}, {inverse, {}, 1.5f},
                  F32View(table.data(), rows, 2 * half));
    ops.Rope(F32View(x.data(), rows, heads * head_dim), heads, head_dim, F32View(table.data(), rows, 2 * half));
    for (int64_t i = 0; i < rows * heads; ++i)
      for (int64_t d = 0; d < head_dim; ++d) {
        const float* of_head = &before[static_cast<size_t>(i * head_dim)];
        const float got = x[static_cast<size_t>(i * head_dim + d)];
        if (d >= 2 * half) {
          EXPECT_EQ(got, of_head[d]);
          continue;
        }
        const float angle =
            static_cast<float>(positions[static_cast<size_t>(i / heads)]) * inverse[static_cast<size_t>(d % half)];
        const double c = 1.5 * std::cos(double{angle}), s = 1.5 * std::sin(double{angle});
        const double wanted =
            d < half ? of_head[d] * c - of_head[d + half] * s : of_head[d] * c + of_head[d - half] * s;
        EXPECT_NEAR(got, wanted, 4e-7);
      }
    return x;
  });
}

TEST(CpuElementwise, KvAppendPutsTokensInLanesOfKAndInRowsOfV) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const int32_t heads = 2, head_dim = 5, tokens = 4;
    const auto ops = MakeOps(SimdLevel::kAuto, 2);
    const int64_t bytes = ops->KvBytes(dtype, heads, head_dim, tokens);
    EXPECT_EQ(bytes, 2 * heads * head_dim * tokens * static_cast<int64_t>(SizeOf(dtype)));
    std::vector<uint8_t> pool(static_cast<size_t>(bytes * 4));
    const std::vector<uint32_t> table = {2, 1, 3, 0};  // two blocks of two layers
    const int64_t begin = 0;
    const KvView kv{pool.data(), bytes, tokens, dtype, 2, heads, head_dim, table.data(), &begin};
    const std::vector<int32_t> positions = {3, 4, 5}, sequence = {0, 0, 0};
    std::vector<float> k = Values(1, 3 * heads * head_dim), v = Values(2, 3 * heads * head_dim);
    ops->KvAppend(F32View(k.data(), 3, heads * head_dim), F32View(v.data(), 3, heads * head_dim),
                  {3, nullptr, positions.data(), sequence.data()}, kv, 1);
    for (size_t row = 0; row < 3; ++row) {
      const int32_t position = positions[row], slot = position % tokens;
      const uint8_t* frame = pool.data() + (position < tokens ? 1 : 0) * bytes;
      for (int32_t h = 0; h < heads; ++h)
        for (int32_t d = 0; d < head_dim; ++d) {
          const size_t from = row * heads * head_dim + static_cast<size_t>(h * head_dim + d);
          EXPECT_EQ(LoadAsFloat(frame, dtype, (h * head_dim + d) * tokens + slot), RoundTo(dtype, k[from]));
          EXPECT_EQ(LoadAsFloat(frame, dtype, heads * head_dim * tokens + (h * tokens + slot) * head_dim + d),
                    RoundTo(dtype, v[from]));
        }
    }
  }
}

TEST(CpuElementwise, KvAppendForDotsPutsPairsOfHeadDimInKAndOfTokensInV) {
  const int32_t heads = 2, head_dim = 6, tokens = 4;
  const auto ops = MakeOps(SimdLevel::kAuto, 2);
  const int64_t bytes = ops->KvBytes(DType::kBF16, heads, head_dim, tokens);
  std::vector<uint8_t> pool(static_cast<size_t>(bytes * 2));
  const std::vector<uint32_t> table = {1, 0};  // two blocks of one layer
  const int64_t begin = 0;
  KvView kv{pool.data(), bytes, tokens, DType::kBF16, 1, heads, head_dim, table.data(), &begin};
  kv.has_bf16_dots = true;
  const std::vector<int32_t> positions = {2, 3, 4}, sequence = {0, 0, 0};
  std::vector<float> k = Values(1, 3 * heads * head_dim), v = Values(2, 3 * heads * head_dim);
  std::vector<uint16_t> expected(static_cast<size_t>(bytes));  // two frames of 16 bits; the rest is zero
  for (int32_t row = 0; row < 3; ++row) {
    const int32_t slot = positions[row] % tokens;
    const auto frame = expected.begin() + (positions[row] < tokens ? bytes / 2 : 0);
    for (int32_t h = 0; h < heads; ++h)
      for (int32_t d = 0; d < head_dim; ++d) {
        const size_t from = static_cast<size_t>((row * heads + h) * head_dim + d);
        frame[((h * head_dim / 2 + d / 2) * tokens + slot) * 2 + d % 2] = FloatToBF16(k[from]);
        frame[heads * head_dim * tokens + ((h * tokens / 2 + slot / 2) * head_dim + d) * 2 + slot % 2] =
            FloatToBF16(v[from]);
      }
  }
  ops->KvAppend(F32View(k.data(), 3, heads * head_dim), F32View(v.data(), 3, heads * head_dim),
                {3, nullptr, positions.data(), sequence.data()}, kv, 0);
  EXPECT_EQ(std::memcmp(pool.data(), expected.data(), pool.size()), 0);
}

// Of rows of one KV head of `head_dim`, one after another: their scales, and their integers as [row][d].
struct Int8Rows {
  std::vector<float> scales;
  std::vector<int8_t> q;
};
Int8Rows AppendInt8(Ops* ops, const std::vector<float>& k, const std::vector<float>& v, int32_t head_dim, bool is_key) {
  const auto tokens = static_cast<int32_t>(k.size()) / head_dim;
  EXPECT_LE(tokens, 16);
  const int64_t bytes = ops->KvBytes(DType::kI8, 1, head_dim, 16), scale_bytes = KvScaleBytes(DType::kI8, 1, 16);
  EXPECT_EQ(bytes, 2 * 16 * head_dim);
  EXPECT_EQ(scale_bytes, 2 * 16 * 2);
  std::vector<uint8_t> pool(static_cast<size_t>(bytes) * 2, 0x55), scales(static_cast<size_t>(scale_bytes) * 2, 0x55);
  const uint32_t frame = 1;
  const int64_t begin = 0;
  const KvView kv{pool.data(), bytes, 16, DType::kI8, 1, 1, head_dim, &frame, &begin, scales.data(), scale_bytes};
  std::vector<int32_t> positions, sequence(static_cast<size_t>(tokens));
  for (int32_t t = 0; t < tokens; ++t) positions.push_back(t);
  std::vector<float> key = k, value = v;
  ops->KvAppend(F32View(key.data(), tokens, head_dim), F32View(value.data(), tokens, head_dim),
                {tokens, nullptr, positions.data(), sequence.data()}, kv, 0);
  EXPECT_TRUE(std::all_of(pool.begin(), pool.begin() + bytes, [](uint8_t byte) { return byte == 0x55; }));
  EXPECT_TRUE(std::all_of(scales.begin(), scales.begin() + scale_bytes, [](uint8_t byte) { return byte == 0x55; }));
  const auto* q = reinterpret_cast<const int8_t*>(pool.data() + bytes);
  const auto* scale = reinterpret_cast<const uint16_t*>(scales.data() + scale_bytes);
  Int8Rows rows;
  for (int32_t t = 0; t < tokens; ++t) {
    rows.scales.push_back(BF16ToFloat(scale[is_key ? t : 16 + t]));
    for (int32_t d = 0; d < head_dim; ++d) rows.q.push_back(is_key ? q[d * 16 + t] : q[(16 + t) * head_dim + d]);
  }
  return rows;
}

// Rows of every size that an f32 has, their largest element where it is hardest to scale.
TEST(CpuElementwise, KvAppendInInt8RoundsEachRowByItselfToNearest) {
  constexpr int32_t kHeadDim = 37;
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  for (int exponent = -149; exponent < 128; ++exponent) {
    std::vector<float> rows = Values(static_cast<uint64_t>(exponent + 200), 3 * kHeadDim);
    for (float& value : rows) value = std::ldexp(value, exponent);
    rows[3] = std::ldexp(1.0f, exponent);                   // / 127 is rounded
    rows[kHeadDim + 4] = -std::ldexp(0x1.fcp0f, exponent);  // 127 / 64: the scale is a power of two
    rows[2 * kHeadDim + 5] = std::ldexp(0x1.fffffep0f, exponent);
    for (const bool is_key : {true, false}) {
      const std::vector<float> other(rows.size(), 1.0f);
      const Int8Rows got = AppendInt8(ops.get(), is_key ? rows : other, is_key ? other : rows, kHeadDim, is_key);
      for (size_t row = 0; row < 3; ++row) {
        const float* const values = &rows[row * kHeadDim];
        double largest = 0;
        for (int32_t d = 0; d < kHeadDim; ++d) largest = std::max(largest, double{std::abs(values[d])});
        const double scale = got.scales[row], exact = largest / 127;
        // The next bf16 upwards; f32 rounds what is smaller than any other number to zero, and the row with it.
        EXPECT_TRUE(std::isfinite(scale));
        EXPECT_GE(scale, exact * (1 - 0x1.0p-24) - 0x1.0p-150) << exponent;
        EXPECT_LE(scale, std::max(exact * (1 + 0x1.01p-7), exact + 0x1.0p-133)) << exponent;
        for (int32_t d = 0; d < kHeadDim; ++d) {
          const int q = got.q[row * kHeadDim + static_cast<size_t>(d)];
          EXPECT_LE(std::abs(q), 127);
          if (scale == 0) {
            EXPECT_EQ(q, 0);
          } else {
            const double ratio = double{values[d]} / scale;
            EXPECT_LE(std::abs(q - ratio), 0.5 + 127 * 0x1.0p-24) << exponent;
          }
        }
        if (HasFailure()) return;
      }
    }
  }
}

TEST(CpuElementwise, KvAppendInInt8TakesTiesToEvenAndKnowsZeroNaNAndInfinity) {
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> rows = {
      127, 0.5f,  1.5f, -2.5f, -126.5f,  // scale 1
      0,   -0.0f, 0,    0,     0,        //
      1,   kNaN,  2,    3,     4,        //
      1,   2,     3,    4,     -kInfinity,
  };
  const Int8Rows got = AppendInt8(ops.get(), rows, rows, 5, true);
  EXPECT_EQ(got.scales[0], 1);
  EXPECT_EQ(got.scales[1], 0);
  EXPECT_TRUE(std::isnan(got.scales[2]));
  EXPECT_TRUE(std::isnan(got.scales[3]));
  EXPECT_EQ(got.q, (std::vector<int8_t>{127, 0, 2, -2, -126, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(CpuElementwise, GatherRowsCopies) {
  const auto ops = MakeOps(SimdLevel::kAuto, 2);
  std::vector<float> x = Values(1, 6 * 10), out(3 * 10);
  const std::vector<int32_t> rows = {5, 0, 5};
  ops->GatherRows(F32View(x.data(), 6, 10), rows, F32View(out.data(), 3, 10));
  for (size_t i = 0; i < 3; ++i)
    for (size_t c = 0; c < 10; ++c) EXPECT_EQ(out[i * 10 + c], x[static_cast<size_t>(rows[i]) * 10 + c]);
}

}  // namespace
}  // namespace openlora::cpu_test
