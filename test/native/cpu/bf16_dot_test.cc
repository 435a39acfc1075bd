#include <cmath>
#include <limits>
#include <string>

#include "base/prng.h"
#include "native/cpu/cpu_fixture.h"
#include "native/test_size.h"

namespace openlora::cpu_test {
namespace {

constexpr WeightFormat kFormat = WeightFormat::kBF16Dot;

std::vector<float> ProjectOf(Ops& ops, const Weight& weight, const std::vector<float>& x, int64_t rows,
                             const std::vector<float>* onto = nullptr) {
  std::vector<float> y(static_cast<size_t>(rows * weight.out), -7.0f);
  if (onto != nullptr) y = *onto;
  const Product product{&weight, F32View(y.data(), rows, weight.out), -1, onto != nullptr};
  ops.Project({F32View(const_cast<float*>(x.data()), rows, weight.in), {&product, 1}, nullptr, nullptr});
  return y;
}

// The same numbers, zeros of the same sign; any NaN equals any other.
testing::AssertionResult AreSame(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (actual.size() != expected.size()) return testing::AssertionFailure() << actual.size() << " values";
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    if (std::memcmp(&actual[i], &expected[i], sizeof(float)) != 0)
      return testing::AssertionFailure() << "[" << i << "] is " << std::hexfloat << actual[i] << ", wanted "
                                         << expected[i];
  }
  return testing::AssertionSuccess();
}

// A matrix of these values, which are bf16 numbers.
Matrix MatrixOf(Ops& ops, int64_t out, int64_t in, const std::vector<float>& values) {
  Matrix matrix(ops, kFormat, out, in, 1);
  matrix.values = values;
  ops.Pack({values.data(), DType::kF32, out, in}, kFormat, out, 0, matrix.data.get());
  return matrix;
}

// On every level, alone and in a team, for these numbers of rows.
void ExpectChains(int64_t out, int64_t in, const std::vector<float>& w, const std::vector<float>& x, int64_t rows_max,
                  const std::vector<int64_t>& rows_of) {
  std::vector<float> expected;
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 1), team = MakeOps(level, 3);
    const Matrix matrix = MatrixOf(*ops, out, in, w);
    if (expected.empty()) expected = BaseProducts(matrix, x, rows_max);
    for (const int64_t rows : rows_of) {
      SCOPED_TRACE(testing::Message() << NameOf(level) << " [" << out << ", " << in << "] rows " << rows);
      const std::vector<float> of_rows(expected.begin(), expected.begin() + rows * out);
      ASSERT_TRUE(AreSame(ProjectOf(*ops, matrix.weight, x, rows), of_rows));
      ASSERT_TRUE(AreSame(ProjectOf(*team, matrix.weight, x, rows), of_rows));
    }
  }
}

std::vector<int64_t> EveryRowCount() {
  std::vector<int64_t> rows;
  for (int64_t r = 1; r <= 20; r += IsSmall() ? 5 : 1) rows.push_back(r);
  rows.push_back(64);
  return rows;
}

std::vector<float> BF16Values(uint64_t seed, int64_t count) {
  std::vector<float> values = Values(seed, static_cast<size_t>(count));
  for (float& value : values) value = RoundTo(DType::kBF16, value);
  return values;
}

TEST(CpuBF16Dot, AnOutputIsOneChainOverPairsForAnyNumberOfRowsAndThreads) {
  using Shape = std::pair<int64_t, int64_t>;
  const std::vector<Shape> few = {{1, 1}, {45, 301}, {160, 64}},
                           all = {{1, 1}, {33, 2}, {45, 301}, {160, 64}, {300, 1100}, {64, 769}, {512, 63}};
  for (const auto& [out, in] : IsSmall() ? few : all)
    ExpectChains(out, in, BF16Values(11, out * in), Values(12, static_cast<size_t>(64 * in)), 64, EveryRowCount());
}

// A bf16 whose exponent field is in [low, high], cut off at those of finite numbers.
float BF16Of(uint64_t draw, int low, int high) {
  const int exponent = std::clamp(low + static_cast<int>(draw % static_cast<uint64_t>(high - low + 1)), 0, 254);
  const uint64_t fraction = draw / 1024 % 4 == 0 ? 0 : draw / 4096 % 128;
  return BF16ToFloat(static_cast<uint16_t>((draw >> 40 & 1) << 15 | static_cast<uint64_t>(exponent) << 7 | fraction));
}

// Products around 2^-126 of both signs, so that sums become denormal, cancel, and go up again.
TEST(CpuBF16Dot, DenormalsAreZeroAsOperandsAndAsResults) {
  int flushed = 0;
  for (uint64_t seed = 0; seed < (IsSmall() ? 2 : 8); ++seed) {
    const int64_t out = 70, in = 37, rows = 17;
    std::vector<float> w, x(static_cast<size_t>(rows * in));
    const int exponent = 20 + static_cast<int>(seed) * 13;  // of w, around it; x takes the product to 2^-126
    for (uint64_t i = 0; i < static_cast<uint64_t>(out * in); ++i)
      w.push_back(BF16Of(Philox(seed, i), exponent - 6, exponent + 4));
    for (uint64_t i = 0; i < x.size(); ++i)
      x[i] = BF16Of(Philox(seed + 100, i), 128 - exponent - 6, 128 - exponent + 4);
    for (uint64_t i = 0; i < x.size(); i += 7) x[i] += x[i] * 0x1.8p-9f;  // not a bf16
    for (size_t o = 0; o < static_cast<size_t>(out); ++o)
      flushed += reference::BF16Dot({x.data(), static_cast<size_t>(in)}, {&w[o * in], static_cast<size_t>(in)}) !=
                 Chain(DType::kBF16, x.data(), &w[o * in], in, 0);
    ExpectChains(out, in, w, x, rows, {1, 3, 8, 17});
  }
  EXPECT_GT(flushed, 20);  // or nothing here was tested
}

// 2^-126 less something: rounded to 24 bits it may be 2^-126 or less than that, where f32, denormals included, has only
// 2^-126. A denormal weight and a denormal x are zero beside factors of any size.
TEST(CpuBF16Dot, ResultsAreRoundedBeforeTheyAreTooSmall) {
  constexpr float kLeast = 0x1p-126f;
  struct Border {
    float w[2], x[2];  // k even, k odd; the odd one comes first
    float sum;
  };
  const Border borders[] = {
      {{-0x1p-75f, 0x1p-63f}, {0x1p-77f, 0x1p-63f}, kLeast},          // less 2^-152: rounds up
      {{-0x1p-75f, 0x1p-63f}, {0x1p-76f, 0x1p-63f}, kLeast},          // less 2^-151: to even
      {{-0x1.02p-75f, 0x1p-63f}, {0x1p-76f, 0x1p-63f}, 0},            // a little more
      {{0x1.02p-75f, -0x1p-63f}, {0x1p-76f, 0x1p-63f}, -0.0f},        //
      {{-0x1.fep-75f, 0x1p-63f}, {0x1p-76f, 0x1p-63f}, 0},            // nearly 2^-150
      {{0x1p-100f, 0x1p-126f}, {0x1p-27f, 0x1p127f}, 2},              // a result below 2^-126 adds nothing
      {{0x1p-127f, 0x1p-63f}, {0x1p127f, 0x1p-63f}, kLeast},          // a denormal weight
      {{0x1p127f, 0x1p-63f}, {0x1p-127f, 0x1p-63f}, kLeast},          // a denormal x
      {{0x1p127f, 0x1p-63f}, {0x1.fffffcp-127f, 0x1p-63f}, 0x1p+1f},  // one that rounds to 2^-126
      {{0, -0x1p-100f}, {0, 0x1p-27f}, 0},                            // -0 + 0
  };
  for (const Border& border : borders) {
    const std::vector<float> x(border.x, border.x + 2), w(border.w, border.w + 2);
    std::vector<float> expected = {reference::BF16Dot(x, w)};
    EXPECT_TRUE(AreSame(expected, {border.sum})) << &border - borders;
    for (const SimdLevel level : AvailableSimdLevels()) {
      const auto ops = MakeOps(level, 1);
      const Matrix matrix = MatrixOf(*ops, 1, 2, w);
      EXPECT_TRUE(AreSame(ProjectOf(*ops, matrix.weight, x, 1), expected)) << NameOf(level) << " " << &border - borders;
    }
  }
}

TEST(CpuBF16Dot, WhatFollowsTheChainIsFlushedToo) {
  const std::vector<float> bias = {0x1p-130f, 0x1p-126f, -0x1.8p-126f, 1},
                           onto = {0x1p-127f, -0x1.8p-126f, 0x1p-126f, 2};
  const std::vector<float> x = {0}, w(4, 1.0f);
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 1);
    Matrix matrix = MatrixOf(*ops, 4, 1, w);
    matrix.weight.bias = bias.data();
    EXPECT_TRUE(AreSame(ProjectOf(*ops, matrix.weight, x, 1), {0, 0x1p-126f, -0x1.8p-126f, 1})) << NameOf(level);
    EXPECT_TRUE(AreSame(ProjectOf(*ops, matrix.weight, x, 1, &onto), {0, -0.0f, -0.0f, 3})) << NameOf(level);
  }
}

// The mode of the threads is for these products alone: others beside and after them keep their denormals.
TEST(CpuBF16Dot, OtherProductsKeepTheirDenormals) {
  const int64_t out = 40, in = 64, rows = 3;
  const std::vector<float> x(static_cast<size_t>(rows * in), 0x1p-70f);
  for (const SimdLevel level : AvailableSimdLevels())
    for (const int threads : {1, 3}) {
      const auto ops = MakeOps(level, threads);
      std::vector<float> values(static_cast<size_t>(out * in), 0x1p-70f);
      const Matrix dots = MatrixOf(*ops, out, in, values);
      Matrix plain(*ops, DType::kBF16, out, in, 1);
      ops->Pack({values.data(), DType::kF32, out, in}, DType::kBF16, out, 0, plain.data.get());
      std::vector<float> of_dots(static_cast<size_t>(rows * out), 1.0f), of_plain = of_dots;
      const Product products[] = {{&dots.weight, F32View(of_dots.data(), rows, out), -1, false},
                                  {&plain.weight, F32View(of_plain.data(), rows, out), -1, false}};
      ops->Project({F32View(const_cast<float*>(x.data()), rows, in), products, nullptr, nullptr});
      EXPECT_EQ(of_dots, std::vector<float>(of_dots.size(), 0.0f)) << NameOf(level);
      EXPECT_EQ(of_plain, std::vector<float>(of_plain.size(), 0x1p-134f)) << NameOf(level);
      volatile float tiny = 0x1p-70f;
      EXPECT_EQ(tiny * tiny, 0x1p-140f);
    }
}

TEST(CpuBF16Dot, NotANumberAndInfinityStayInTheirRowsAndOutputs) {
  const int64_t out = 40, in = 131, rows = 11;
  constexpr float kBad[] = {NAN, -NAN, INFINITY, -INFINITY, std::numeric_limits<float>::max()};  // rounds to infinity
  std::vector<float> x = Values(5, rows * in), w = BF16Values(6, out * in);
  for (int64_t i = 0; i < 5; ++i) x[static_cast<size_t>((2 * i + 1) * in + 100 + i)] = kBad[i];
  x[static_cast<size_t>(5 * in + 110)] = -INFINITY;  // beside an infinity of either sign
  w[static_cast<size_t>(7 * in + 130)] = INFINITY;
  w[static_cast<size_t>(9 * in)] = NAN;
  ExpectChains(out, in, w, x, rows, {1, 2, 5, 8, 11});
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  const std::vector<float> y = ProjectOf(*ops, MatrixOf(*ops, out, in, w).weight, x, rows);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t o = 0; o < out; ++o)
      EXPECT_EQ(std::isfinite(y[static_cast<size_t>(row * out + o)]), (row % 2 == 0 || row > 9) && o != 7 && o != 9);
}

TEST(CpuBF16Dot, RoundsToTheNearestTiesToEven) {
  const std::vector<float> x = {0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, -0x1.01p0f, 0x1.fefffep0f, 0x1.ffp0f};
  const std::vector<float> expected = {1, 0x1.04p0f, 0x1.02p0f, -1, 0x1.fep0f, 2};
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 1);
    const Matrix one = MatrixOf(*ops, 1, 1, {1});
    EXPECT_EQ(ProjectOf(*ops, one.weight, x, static_cast<int64_t>(x.size())), expected) << NameOf(level);
  }
}

TEST(CpuBF16Dot, LosesARoundingOfXAndNoMore) {
  const int64_t in = 2048, out = 64, rows = 4;
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  const std::vector<float> w = BF16Values(1, out * in), x = Values(2, rows * in);
  const std::vector<float> y = ProjectOf(*ops, MatrixOf(*ops, out, in, w).weight, x, rows);
  double error = 0, size = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t o = 0; o < out; ++o) {
      double exact = 0;
      for (int64_t k = 0; k < in; ++k)
        exact += double{x[static_cast<size_t>(row * in + k)]} * w[static_cast<size_t>(o * in + k)];
      const double difference = y[static_cast<size_t>(row * out + o)] - exact;
      error += difference * difference;
      size += exact * exact;
    }
  // x in [1, 2) is off by at most 2^-8: uniform, 2^-8 / √3 as a root of mean squares, where that of x is √(7/3).
  EXPECT_NEAR(std::sqrt(error / size), 0x1p-8 / std::sqrt(7.0), 0x1p-8 / std::sqrt(7.0) / 5);
}

}  // namespace
}  // namespace openlora::cpu_test
