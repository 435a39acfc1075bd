#include <gtest/gtest.h>

#include "cases/buffers.h"
#include "native/ops/ops_under_test.h"
#include "native/test_size.h"

namespace openlora {
namespace {

using cases::GuardedMatrix;
using cases::Random;
using cases::RandomValues;

std::vector<int64_t> Rows() { return IsSmall() ? std::vector<int64_t>{7} : std::vector<int64_t>{1, 2, 7, 40}; }

std::vector<int64_t> Sizes() {
  return IsSmall() ? std::vector<int64_t>{1, 17, 64} : std::vector<int64_t>{1, 3, 8, 15, 16, 17, 64, 130};
}

// Runs `op` on every Ops and on the reference: the same bits on all levels and thread counts, and within
// tolerance(index, expected) of the reference; every row alone gives its bits of the batch. op(ops, begin, end) returns
// rows [begin, end) of the result.
template <typename Op, typename Tolerance>
void Compare(int64_t rows, const Op& op, const Tolerance& tolerance) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  const std::vector<float> expected = op(*reference, int64_t{0}, rows);
  std::vector<double> tolerances;
  for (size_t i = 0; i < expected.size(); ++i) tolerances.push_back(tolerance(i, expected[i]));
  std::vector<float> first;
  for (Ops* ops : AllCpuOps()) {
    SCOPED_TRACE(ops->name());
    const std::vector<float> actual = op(*ops, int64_t{0}, rows);
    if (first.empty()) first = actual;
    EXPECT_TRUE(AreNear(actual, expected, tolerances));
    EXPECT_TRUE(AreSameBits(actual, first));
    for (int64_t row = 0; row < rows; ++row)
      EXPECT_TRUE(AreSameBits(op(*ops, row, row + 1), actual, static_cast<size_t>(row) * (actual.size() / rows)));
  }
}

GuardedMatrix MatrixOf(const std::vector<float>& values, int64_t cols, int64_t begin, int64_t end) {
  GuardedMatrix matrix(end - begin, cols);
  matrix.CopyFrom(values.data() + begin * cols);
  return matrix;
}

// A chain of squares, then a division, a root and two products.
TEST(RmsNorm, IsWithinRoundingOfTheReferenceOverRowsAndOverHeads) {
  for (const int64_t rows : Rows())
    for (const int64_t dim : Sizes())
      for (const int64_t groups : {1, 3}) {
        SCOPED_TRACE(std::to_string(rows) + " rows of " + std::to_string(groups) + " x " + std::to_string(dim));
        Random random(1);
        const std::vector<float> x = RandomValues(random, rows * groups * dim, DType::kF32, 3);
        const std::vector<float> gain = RandomValues(random, dim);
        const auto op = [&](Ops& ops, int64_t begin, int64_t end) {
          const GuardedMatrix in = MatrixOf(x, groups * dim, begin, end);
          GuardedMatrix out(end - begin, groups * dim);
          ops.RmsNorm(in.View(), gain.data(), dim, 1e-5f, out.View());
          EXPECT_TRUE(out.IsIntact() && in.IsIntact());
          return out.Values();
        };
        const double error = kUnitRoundoff * (ChainError(static_cast<double>(dim)) + 6);
        Compare(rows, op, [&](size_t, float expected) { return error * std::abs(expected); });
      }
}

TEST(RmsNorm, MayWriteOverItsInput) {
  for (Ops* ops : AllCpuOps()) {
    Random random(2);
    const std::vector<float> x = RandomValues(random, 5 * 70), gain = RandomValues(random, 70);
    const GuardedMatrix in = MatrixOf(x, 70, 0, 5), same = MatrixOf(x, 70, 0, 5);
    GuardedMatrix out(5, 70);
    ops->RmsNorm(in.View(), gain.data(), 70, 1e-6f, out.View());
    ops->RmsNorm(same.View(), gain.data(), 70, 1e-6f, same.View());
    EXPECT_TRUE(AreSameBits(same.Values(), out.Values()));
  }
}

// The angle may be an f32 product: off by u·pos·inv_freq.
TEST(RopeTable, HoldsCosinesAndSinesOfPositionTimesFrequency) {
  for (const int64_t half : {1, 4, 20, 64}) {
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < half; ++i)
      inv_freq.push_back(static_cast<float>(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half))));
    std::vector<float> long_inv_freq;
    for (const float value : inv_freq) long_inv_freq.push_back(value / 7);
    const std::vector<int32_t> positions = {0, 1, 2, 100, 8191, 131071, 5};
    const std::vector<uint8_t> is_long = {0, 1, 0, 0, 1, 0, 1};
    const auto op = [&](Ops& ops, int64_t begin, int64_t end) {
      GuardedMatrix out(end - begin, 2 * half);
      const RowsView rows{static_cast<int32_t>(end - begin), nullptr, positions.data() + begin, nullptr,
                          is_long.data() + begin};
      ops.RopeTable(rows, {inv_freq, long_inv_freq, 1.5f}, out.View());
      EXPECT_TRUE(out.IsIntact());
      return out.Values();
    };
    Compare(static_cast<int64_t>(positions.size()), op, [&](size_t i, float) {
      const size_t cols = static_cast<size_t>(2 * half);
      return 1.5 * kUnitRoundoff * (4 + positions[i / cols] * double{inv_freq[i % cols % half]});
    });
  }
}

// Two products and a sum of numbers up to 2: 3u · (|a|·|cos| + |b|·|sin|) <= 3u · 4.
TEST(Rope, RotatesTheFirstDimensionsOfEachHeadAndLeavesTheOthers) {
  for (const int64_t rows : Rows())
    for (const int64_t half : {1, 4, 10, 32})
      for (const int32_t unrotated : {0, 5}) {
        const int32_t heads = 3, head_dim = static_cast<int32_t>(2 * half) + unrotated;
        SCOPED_TRACE(std::to_string(rows) + " rows, head_dim " + std::to_string(head_dim));
        Random random(3);
        const std::vector<float> x = RandomValues(random, rows * heads * head_dim, DType::kF32, 2);
        const std::vector<float> cos_sin = RandomValues(random, rows * 2 * half);
        const auto op = [&](Ops& ops, int64_t begin, int64_t end) {
          const GuardedMatrix out = MatrixOf(x, int64_t{heads} * head_dim, begin, end);
          ops.Rope(out.View(), heads, head_dim, MatrixOf(cos_sin, 2 * half, begin, end).View());
          EXPECT_TRUE(out.IsIntact());
          return out.Values();
        };
        Compare(rows, op, [&](size_t i, float) {
          const bool is_rotated = static_cast<int64_t>(i) % head_dim < 2 * half;
          return is_rotated ? 12 * kUnitRoundoff : 0;
        });
      }
}

// Both are x / (1 + e^-z): e^-z to a few u and what z's own rounding, 3u |z|, makes of it; a sum, a division, a
// product. Below 1e-36 e^-z leaves the range of f32.
TEST(GatedActivation, IsWithinRoundingOfTheReferenceFromMinusAThousandToAThousand) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh})
    for (const int64_t rows : Rows())
      for (const int64_t cols : Sizes())
        for (const float limit : {0.01f, 3.0f, 100.0f, 1000.0f}) {
          SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + " up to " + std::to_string(limit));
          Random random(4);
          const std::vector<float> gate = RandomValues(random, rows * cols, DType::kF32, limit);
          const std::vector<float> up = RandomValues(random, rows * cols);
          const auto op = [&](Ops& ops, int64_t begin, int64_t end) {
            const GuardedMatrix out = MatrixOf(gate, cols, begin, end), by = MatrixOf(up, cols, begin, end);
            ops.GatedActivation(activation, out.View(), by.View());
            EXPECT_TRUE(out.IsIntact() && by.IsIntact());
            return out.Values();
          };
          Compare(rows, op, [&](size_t i, float expected) {
            const double x = gate[i];
            const double z = activation == Activation::kSilu ? 0 : 1.5957691216 * std::abs(x + 0.044715 * x * x * x);
            return (8 + 3 * z) * kUnitRoundoff * std::abs(expected) + 1e-36;
          });
        }
}

TEST(AddScaled, IsOneRoundingFromTheReference) {
  for (const int64_t rows : Rows())
    for (const int64_t cols : Sizes()) {
      Random random(6);
      const std::vector<float> x = RandomValues(random, rows * cols, DType::kF32, 3);
      const std::vector<float> before = RandomValues(random, rows * cols);
      const auto op = [&](Ops& ops, int64_t begin, int64_t end) {
        const GuardedMatrix in = MatrixOf(x, cols, begin, end), out = MatrixOf(before, cols, begin, end);
        ops.AddScaled(in.View(), 0.22f, out.View());
        EXPECT_TRUE(in.IsIntact() && out.IsIntact());
        return out.Values();
      };
      Compare(rows, op, [](size_t, float expected) { return kUnitRoundoff * std::abs(expected); });
    }
}

// tanh = 1 - 2 / (e^2x + 1): absolute errors of a few u times the cap, whatever x.
TEST(SoftCap, IsWithinRoundingOfTheReferenceAndNeverBeyondTheCap) {
  for (const int64_t rows : Rows())
    for (const int64_t cols : Sizes())
      for (const float limit : {0.1f, 30.0f, 3000.0f}) {
        Random random(7);
        const std::vector<float> x = RandomValues(random, rows * cols, DType::kF32, limit);
        const auto op = [&](Ops& ops, int64_t begin, int64_t end) {
          const GuardedMatrix out = MatrixOf(x, cols, begin, end);
          ops.SoftCap(out.View(), 30);
          EXPECT_TRUE(out.IsIntact());
          for (const float value : out.Values()) EXPECT_LE(std::abs(value), 30);
          return out.Values();
        };
        Compare(rows, op, [](size_t, float) { return 8 * kUnitRoundoff * 30; });
      }
}

TEST(GatherRows, CopiesTheRowsNamed) {
  for (Ops* ops : AllCpuOps()) {
    Random random(5);
    const std::vector<float> x = RandomValues(random, 9 * 33);
    const std::vector<int32_t> rows = {8, 0, 3, 3, 7};
    const GuardedMatrix in = MatrixOf(x, 33, 0, 9);
    GuardedMatrix out(5, 33);
    ops->GatherRows(in.View(), rows, out.View());
    EXPECT_TRUE(out.IsIntact());
    for (size_t i = 0; i < rows.size(); ++i)
      EXPECT_TRUE(AreSameBits({out.Row(i), out.Row(i) + 33}, x, static_cast<size_t>(rows[i]) * 33));
  }
}

}  // namespace
}  // namespace openlora
