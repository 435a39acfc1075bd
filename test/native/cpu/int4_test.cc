#include <algorithm>
#include <cmath>
#include <limits>

#include "native/cpu/cpu_fixture.h"
#include "native/test_size.h"

namespace openlora::cpu_test {
namespace {

using reference::Int4Group;

std::vector<float> ProjectOf(Ops& ops, const Weight& weight, const std::vector<float>& x, int64_t rows) {
  std::vector<float> y(static_cast<size_t>(rows * weight.out), -7.0f);
  const Product product{&weight, F32View(y.data(), rows, weight.out), -1, false};
  ops.Project({F32View(const_cast<float*>(x.data()), rows, weight.in), {&product, 1}, nullptr, nullptr});
  return y;
}

// Weights of every size that a group may have, some of them nothing.
std::vector<float> ManySizes(int64_t out, int64_t in) {
  std::vector<float> values = Values(5, static_cast<size_t>(out * in));
  constexpr float kSizes[] = {1, 0.02f, 1e-5f, 1e-9f, 1e-40f, 0, 300, 1e6f};
  for (int64_t o = 0; o < out; ++o)
    for (int64_t k = 0; k < in; ++k)
      values[static_cast<size_t>(o * in + k)] *=
          kSizes[(o + k / kInt4GroupK) % static_cast<int64_t>(std::size(kSizes))];
  return values;
}

TEST(CpuInt4, APackedMatrixIsItsLayoutByteForByteOnEveryLevel) {
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 2);
    for (const auto& [out, in] : {std::pair<int64_t, int64_t>{1, 1}, {45, 300}, {64, 128}}) {
      SCOPED_TRACE(testing::Message() << NameOf(level) << " [" << out << ", " << in << "]");
      const std::vector<float> values = ManySizes(out, in);
      const int64_t groups = (in + 31) / 32, panels = (out + 31) / 32;
      const int64_t bytes = ops->PackedBytes(WeightFormat::kInt4, out, in);
      ASSERT_EQ(bytes, panels * groups * 32 * 18);
      const Aligned packed = AllocateAligned(bytes);
      std::memset(packed.get(), 0xff, static_cast<size_t>(bytes));
      ops->Pack({values.data(), DType::kF32, out, in}, WeightFormat::kInt4, out, 0, packed.get());
      for (int64_t o = 0; o < panels * 32; ++o) {
        std::vector<Int4Group> expected(static_cast<size_t>(groups), reference::Int4QuantiseWeights({}));
        if (o < out)
          expected = reference::Int4QuantiseRow({&values[static_cast<size_t>(o * in)], static_cast<size_t>(in)},
                                                &reference::Int4QuantiseWeights);
        for (int64_t g = 0; g < groups; ++g) {
          const uint8_t* const group = packed.get() + (o / 32 * groups + g) * 32 * 18;
          const Int4Group& wanted = expected[static_cast<size_t>(g)];
          ASSERT_EQ(LoadAsFloat(group + 32 * 16, DType::kF16, o % 32), wanted.scale) << "group " << g;
          for (int64_t k = 0; k < 32; ++k) {
            const uint8_t byte = group[k / 8 * 128 + o % 32 * 4 + k % 4];
            ASSERT_EQ(kInt4Table[k / 4 % 2 == 0 ? byte & 15 : byte >> 4], wanted.q[static_cast<size_t>(k)]);
          }
        }
      }
    }
  }
}

TEST(CpuInt4, PackingInPiecesAndFromSixteenBitsIsPackingTheSameValues) {
  const int64_t out = 77, in = 200;
  const auto ops = MakeOps(SimdLevel::kAuto, 2);
  const std::vector<float> values = Values(3, out * in);
  const auto bytes = static_cast<size_t>(ops->PackedBytes(WeightFormat::kInt4, out, in));
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
    ops->Pack({&source[1 + 64 * in * element], from, out - 64, in}, WeightFormat::kInt4, out, 64, pieces.get());
    ops->Pack({&source[1], from, 64, in}, WeightFormat::kInt4, out, 0, pieces.get());
    ops->Pack({rounded.data(), DType::kF32, out, in}, WeightFormat::kInt4, out, 0, whole.get());
    EXPECT_EQ(std::memcmp(pieces.get(), whole.get(), bytes), 0) << NameOf(from);
  }
}

TEST(CpuInt4, AProductIsIntegersPerGroupAndOneChainOverGroupsForAnyNumberOfRows) {
  const std::vector<std::pair<int64_t, int64_t>> few = {{45, 300}}, all = {{1, 1}, {45, 300}, {160, 128}, {300, 1700}};
  for (const auto& [out, in] : IsSmall() ? few : all)
    for (const SimdLevel level : AvailableSimdLevels()) {
      const auto ops = MakeOps(level, 1), team = MakeOps(level, 3);
      const Matrix matrix(*ops, WeightFormat::kInt4, out, in, 11);
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

// About the largest integers that can occur: weights on the table's end but for one that settles the scale, activations
// at 127.
TEST(CpuInt4, TheLargestSumsAreExact) {
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 1);
    Matrix matrix(*ops, WeightFormat::kInt4, 32, 32, 1);
    for (size_t i = 0; i < matrix.values.size(); ++i)
      matrix.values[i] = (i % 32 == 5 ? -123.0f : 127.0f) * (i / 32 % 2 == 0 ? 1 : -1);
    ops->Pack({matrix.values.data(), DType::kF32, 32, 32}, WeightFormat::kInt4, 32, 0, matrix.data.get());
    const std::vector<float> x(32, 127.0f);
    const std::vector<float> y = ProjectOf(*ops, matrix.weight, x, 1);
    EXPECT_EQ(y, BaseProducts(matrix, x, 1)) << NameOf(level);
    EXPECT_EQ(y[0], (31 * 127 - 123) * 127);  // a scale of ±1
    EXPECT_EQ(y[1], -(31 * 127 - 123) * 127);
  }
}

TEST(CpuInt4, NotANumberStaysInItsRowAndZerosGiveZero) {
  const int64_t out = 40, in = 300, rows = 11;
  constexpr float kBad[] = {NAN, INFINITY, -INFINITY};
  for (const SimdLevel level : AvailableSimdLevels()) {
    SCOPED_TRACE(NameOf(level));
    const auto ops = MakeOps(level, 1);
    const Matrix matrix(*ops, WeightFormat::kInt4, out, in, 4);
    std::vector<float> x = Values(5, rows * in);
    std::fill_n(x.begin() + 9 * in, in, 0.0f);
    std::fill_n(x.begin() + 10 * in, in, 1e-40f);
    const std::vector<float> before = ProjectOf(*ops, matrix.weight, x, rows);
    for (int64_t i = 0; i < 3; ++i) x[static_cast<size_t>((2 * i + 1) * in + 137 + i)] = kBad[i];
    const std::vector<float> after = ProjectOf(*ops, matrix.weight, x, rows);
    for (int64_t i = 0; i < rows * out; ++i) {
      const auto at = static_cast<size_t>(i);
      if (i / out % 2 == 1 && i / out < 6) {
        EXPECT_FALSE(std::isfinite(after[at])) << "row " << i / out;
      } else {
        EXPECT_EQ(after[at], before[at]);
        EXPECT_TRUE(i / out < 9 || after[at] == 0.0f);
      }
    }
  }
}

TEST(CpuInt4, WeightsThatAreNotFiniteOrTooLargeGiveNaNAndNoOtherOutput) {
  const int64_t out = 33, in = 130;
  std::vector<float> values = Values(6, out * in);
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  const Aligned packed = AllocateAligned(ops->PackedBytes(WeightFormat::kInt4, out, in));
  const auto pack = [&] {
    ops->Pack({values.data(), DType::kF32, out, in}, WeightFormat::kInt4, out, 0, packed.get());
  };
  const Weight weight{WeightFormat::kInt4, out, in, packed.get(), nullptr};
  const std::vector<float> x = Values(7, in);
  pack();
  const std::vector<float> before = ProjectOf(*ops, weight, x, 1);
  values[static_cast<size_t>(3 * in + 129)] = NAN;
  values[static_cast<size_t>(5 * in)] = INFINITY;
  values[static_cast<size_t>(32 * in + 64)] = 1e9f;  // its scale is beyond f16
  values[static_cast<size_t>(7 * in + 1)] = std::numeric_limits<float>::max();
  pack();
  const std::vector<float> after = ProjectOf(*ops, weight, x, 1);
  for (int64_t o = 0; o < out; ++o) {
    const auto at = static_cast<size_t>(o);
    if (o == 3 || o == 5 || o == 7 || o == 32) {
      EXPECT_TRUE(std::isnan(after[at])) << o;
    } else {
      EXPECT_EQ(after[at], before[at]);
    }
  }
}

TEST(CpuInt4, AnEmbeddingIsTheRowThatItsWeightsStandFor) {
  const int64_t vocabulary = 75, hidden = 300;
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 2);
    const Matrix table(*ops, WeightFormat::kInt4, vocabulary, hidden, 5);
    const std::vector<int32_t> tokens = {74, 0, 33};
    std::vector<float> got(3 * hidden), expected;
    for (const int32_t token : tokens) {
      const auto groups =
          reference::Int4QuantiseRow({&table.values[static_cast<size_t>(token * hidden)], static_cast<size_t>(hidden)},
                                     &reference::Int4QuantiseWeights);
      const std::vector<float> row = reference::Int4Dequantise(groups, hidden);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    ops->Embed({tokens.data(), 3, &table.weight, 1, F32View(got.data(), 3, hidden), -1, nullptr, nullptr});
    EXPECT_EQ(got, expected) << NameOf(level);
  }
}

}  // namespace
}  // namespace openlora::cpu_test
