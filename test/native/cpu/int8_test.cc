#include <algorithm>
#include <cmath>
#include <limits>

#include "native/cpu/cpu_fixture.h"
#include "native/test_size.h"

namespace openlora::cpu_test {
namespace {

using reference::Int8Group;

std::vector<float> ProjectOf(Ops& ops, const Weight& weight, const std::vector<float>& x, int64_t rows) {
  std::vector<float> y(static_cast<size_t>(rows * weight.out), -7.0f);
  const Product product{&weight, F32View(y.data(), rows, weight.out), -1, false};
  ops.Project({F32View(const_cast<float*>(x.data()), rows, weight.in), {&product, 1}, nullptr, nullptr});
  return y;
}

TEST(CpuInt8, APackedMatrixIsItsLayoutByteForByteOnEveryLevel) {
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 2);
    for (const auto& [out, in] : {std::pair<int64_t, int64_t>{1, 1}, {45, 300}, {64, 128}}) {
      SCOPED_TRACE(testing::Message() << NameOf(level) << " [" << out << ", " << in << "]");
      const Matrix matrix(*ops, WeightFormat::kInt8, out, in, 5);
      const int64_t groups = (in + 127) / 128, panels = (out + 31) / 32;
      ASSERT_EQ(ops->PackedBytes(WeightFormat::kInt8, out, in), panels * groups * 32 * 130);
      for (int64_t o = 0; o < panels * 32; ++o) {
        std::vector<Int8Group> expected(static_cast<size_t>(groups));
        if (o < out)
          expected = reference::Int8QuantiseRow({&matrix.values[static_cast<size_t>(o * in)], static_cast<size_t>(in)},
                                                &reference::Int8QuantiseWeights);
        for (int64_t g = 0; g < groups; ++g) {
          const uint8_t* const group = matrix.data.get() + (o / 32 * groups + g) * 32 * 130;
          const Int8Group& wanted = expected[static_cast<size_t>(g)];
          ASSERT_EQ(LoadAsFloat(group + 32 * 128, DType::kF16, o % 32), wanted.scale);
          for (int64_t k = 0; k < 128; ++k)
            ASSERT_EQ(group[k / 4 * 128 + o % 32 * 4 + k % 4] - 128, wanted.q[static_cast<size_t>(k)]);
        }
      }
    }
  }
}

TEST(CpuInt8, PackingInPiecesAndFromSixteenBitsIsPackingTheSameValues) {
  const int64_t out = 77, in = 200;
  const auto ops = MakeOps(SimdLevel::kAuto, 2);
  const std::vector<float> values = Values(3, out * in);
  const auto bytes = static_cast<size_t>(ops->PackedBytes(WeightFormat::kInt8, out, in));
  for (const DType from : {DType::kF32, DType::kF16, DType::kBF16}) {
    const size_t element = SizeOf(from);
    std::vector<uint8_t> source(static_cast<size_t>(out * in) * element + 1);
    std::vector<float> rounded;
    for (size_t i = 0; i < values.size(); ++i) {
      rounded.push_back(RoundTo(from, values[i]));
      uint32_t place = 0;
      StoreFromFloat(&place, from, 0, values[i]);
      std::memcpy(&source[1 + i * element], &place, element);
    }
    const Aligned pieces = AllocateAligned(static_cast<int64_t>(bytes)),
                  whole = AllocateAligned(static_cast<int64_t>(bytes));
    std::memset(pieces.get(), 0xff, bytes);
    ops->Pack({&source[1 + 64 * in * element], from, out - 64, in}, WeightFormat::kInt8, out, 64, pieces.get());
    ops->Pack({&source[1], from, 64, in}, WeightFormat::kInt8, out, 0, pieces.get());
    ops->Pack({rounded.data(), DType::kF32, out, in}, WeightFormat::kInt8, out, 0, whole.get());
    EXPECT_EQ(std::memcmp(pieces.get(), whole.get(), bytes), 0) << NameOf(from);
  }
}

TEST(CpuInt8, AProductIsIntegersPerGroupAndOneChainOverGroupsForAnyNumberOfRows) {
  const std::vector<std::pair<int64_t, int64_t>> few = {{45, 300}}, all = {{1, 1}, {45, 300}, {160, 128}, {300, 1100}};
  for (const auto& [out, in] : IsSmall() ? few : all)
    for (const SimdLevel level : AvailableSimdLevels()) {
      const auto ops = MakeOps(level, 1), team = MakeOps(level, 3);
      const Matrix matrix(*ops, WeightFormat::kInt8, out, in, 11);
      const std::vector<float> x = Values(12, static_cast<size_t>(20 * in));
      const std::vector<float> expected = BaseProducts(matrix, x, 20);
      for (int64_t rows = 1; rows <= 20; ++rows) {
        SCOPED_TRACE(testing::Message() << NameOf(level) << " [" << out << ", " << in << "] rows " << rows);
        const std::vector<float> of_rows(expected.begin(), expected.begin() + rows * out);
        ASSERT_EQ(ProjectOf(*ops, matrix.weight, x, rows), of_rows);
        ASSERT_EQ(ProjectOf(*team, matrix.weight, x, rows), of_rows);
      }
    }
}

// The largest integers that can occur: all weights and activations at ±127, of one sign.
TEST(CpuInt8, TheLargestSumsAreExact) {
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 1);
    Matrix matrix(*ops, WeightFormat::kInt8, 32, 128, 1);
    reference::Int8Values g;
    g.fill(1);
    reference::Int8RotateBack(g);  // rotated, they are all 1, but for rounding
    const std::vector<float> x(g.begin(), g.end());
    matrix.values.clear();
    for (int o = 0; o < 32; ++o)
      for (const float value : x) matrix.values.push_back(o % 2 == 0 ? value : -value);
    ops->Pack({matrix.values.data(), DType::kF32, 32, 128}, WeightFormat::kInt8, 32, 0, matrix.data.get());
    const auto of_x = reference::Int8QuantiseRow(x, &reference::Int8QuantiseActivations);
    ASSERT_EQ(*std::min_element(of_x[0].q.begin(), of_x[0].q.end()), 127);
    const std::vector<float> y = ProjectOf(*ops, matrix.weight, x, 1);
    EXPECT_EQ(y, BaseProducts(matrix, x, 1)) << NameOf(level);
    EXPECT_NEAR(y[0], 128, 128.0 / 1024);  // a scale is rounded up, by 2^-10 at most
    EXPECT_NEAR(y[1], -128, 128.0 / 1024);
  }
}

TEST(CpuInt8, NotANumberStaysInItsRowAndZerosGiveZero) {
  const int64_t out = 40, in = 300, rows = 11;
  constexpr float kBad[] = {NAN, INFINITY, -INFINITY, std::numeric_limits<float>::max()};
  for (const SimdLevel level : AvailableSimdLevels()) {
    SCOPED_TRACE(NameOf(level));
    const auto ops = MakeOps(level, 1);
    const Matrix matrix(*ops, WeightFormat::kInt8, out, in, 4);
    std::vector<float> x = Values(5, rows * in);
    std::fill_n(x.begin() + 9 * in, in, 0.0f);
    std::fill_n(x.begin() + 10 * in, in, 1e-40f);
    const std::vector<float> before = ProjectOf(*ops, matrix.weight, x, rows);
    for (int64_t i = 0; i < 4; ++i) x[static_cast<size_t>((2 * i + 1) * in + 137 + i)] = kBad[i];
    // Alone, the largest float is a large number; with as large a neighbour, the rotation overflows.
    x[static_cast<size_t>(7 * in + 141)] = kBad[3];
    const std::vector<float> after = ProjectOf(*ops, matrix.weight, x, rows);
    for (int64_t i = 0; i < rows * out; ++i) {
      const auto at = static_cast<size_t>(i);
      if (i / out % 2 == 1 && i / out < 8) {
        EXPECT_FALSE(std::isfinite(after[at])) << "row " << i / out;
      } else {
        EXPECT_EQ(after[at], before[at]);
        EXPECT_TRUE(i / out < 9 || after[at] == 0.0f);
      }
    }
  }
}

TEST(CpuInt8, WeightsThatAreNotFiniteOrTooLargeGiveNaNAndNoOtherOutput) {
  const int64_t out = 33, in = 130;
  std::vector<float> values = Values(6, out * in);
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  const Aligned packed = AllocateAligned(ops->PackedBytes(WeightFormat::kInt8, out, in));
  const auto pack = [&] {
    ops->Pack({values.data(), DType::kF32, out, in}, WeightFormat::kInt8, out, 0, packed.get());
  };
  const Weight weight{WeightFormat::kInt8, out, in, packed.get(), nullptr};
  const std::vector<float> x = Values(7, in);
  pack();
  const std::vector<float> before = ProjectOf(*ops, weight, x, 1);
  values[static_cast<size_t>(3 * in + 129)] = NAN;
  values[static_cast<size_t>(5 * in)] = INFINITY;
  values[static_cast<size_t>(32 * in + 64)] = 1e9f;  // its scale is beyond f16
  pack();
  const std::vector<float> after = ProjectOf(*ops, weight, x, 1);
  for (int64_t o = 0; o < out; ++o) {
    const auto at = static_cast<size_t>(o);
    if (o == 3 || o == 5 || o == 32) {
      EXPECT_TRUE(std::isnan(after[at])) << o;
    } else {
      EXPECT_EQ(after[at], before[at]);
    }
  }
}

}  // namespace
}  // namespace openlora::cpu_test
