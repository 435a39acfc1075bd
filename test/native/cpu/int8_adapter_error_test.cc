#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/prng.h"
#include "native/cpu/cpu_fixture.h"
#include "native/llama_rules.h"
#include "ops/cpu/layout.h"

// What int8 adapters lose: the relative rms error of x·Aᵀ·Bᵀ from the shipped kernels, beside the same with A and B
// rounded by the rule of llama.cpp's Q8_0 (groups of 32, f16 scales) and to bf16.

namespace openlora::cpu_test {
namespace {

constexpr int64_t kRows = 16, kIn = 1100, kOut = 320;

// Normal, a pure function of (seed, index): Box and Muller.
std::vector<float> Normals(uint64_t seed, int64_t count, float size) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    const double u = 1 - PhiloxUniform(seed, static_cast<uint64_t>(2 * i));  // (0, 1]
    const double v = PhiloxUniform(seed, static_cast<uint64_t>(2 * i + 1));
    values.push_back(size * static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v)));
  }
  return values;
}

struct Data {
  int32_t rank = 0;
  std::vector<float> x, a, b;
};

// In double.
std::vector<double> Products(const Data& data, const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<double> y(kRows * kOut);
  for (int64_t row = 0; row < kRows; ++row)
    for (int32_t r = 0; r < data.rank; ++r) {
      double h = 0;
      for (int64_t k = 0; k < kIn; ++k)
        h += double{data.x[static_cast<size_t>(row * kIn + k)]} * a[static_cast<size_t>(r * kIn + k)];
      for (int64_t o = 0; o < kOut; ++o)
        y[static_cast<size_t>(row * kOut + o)] += h * b[static_cast<size_t>(o * data.rank + r)];
    }
  return y;
}

double ErrorOf(const std::vector<double>& exact, const auto& y) {
  double size = 0, error = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    size += exact[i] * exact[i];
    error += std::pow(y[i] - exact[i], 2);
  }
  return std::sqrt(error / size);
}

// By the kernels, onto zeros.
std::vector<float> KernelProducts(const Data& data, DType dtype) {
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  Adapters adapters(dtype, ShrinkChunk(dtype));
  adapters.Add(*ops, {Site{data.rank, kIn, kOut, data.a, data.b, 1}});
  Matrix none(*ops, DType::kF32, kOut, kIn, 1);
  std::memset(none.data.get(), 0, static_cast<size_t>(ops->PackedBytes(DType::kF32, kOut, kIn)));
  std::vector<int32_t> rows;
  for (int32_t row = 0; row < kRows; ++row) rows.push_back(row);
  const std::vector<float> ones(kRows, 1.0f);
  const int32_t start[] = {0, kRows}, slot[] = {0};
  const EntriesView entries{kRows, rows.data(), ones.data(), 1, start, slot};
  std::vector<float> y(kRows * kOut);
  const Product product{&none.weight, F32View(y.data(), kRows, kOut), 0, false};
  ops->Project({F32View(const_cast<float*>(data.x.data()), kRows, kIn), {&product, 1}, &entries, &adapters.Pages()});
  return y;
}

// The groups of 32 columns of each rank by Q8_0's rule; element (r, c) at r * rank_step + c * column_step.
std::vector<float> RoundedAsQ8(std::vector<float> values, int32_t rank, int64_t columns, int64_t rank_step,
                               int64_t column_step) {
  for (int32_t r = 0; r < rank; ++r)
    for (int64_t begin = 0; begin < columns; begin += 32) {
      float group[32] = {};
      const auto at = [&](int64_t i) -> float& {
        return values[static_cast<size_t>(r * rank_step + (begin + i) * column_step)];
      };
      const int64_t count = std::min<int64_t>(32, columns - begin);
      for (int64_t i = 0; i < count; ++i) group[i] = at(i);
      RoundQ8(group);
      for (int64_t i = 0; i < count; ++i) at(i) = group[i];
    }
  return values;
}

TEST(CpuInt8AdapterError, OfNormalWeightsIsThatOfQ8) {
  // (largest of 32 normals, 2.36 in the mean square, / 127) / √12 is 0.54 %, of A and of B: 0.76 % of their product. A
  // scale that is rounded up to bf16 is 0.4 % larger in the mean. What A loses is measured by rows x rank independent
  // sums: the relative deviation of a root mean square of n of them is 1 / √(2 n); three of those. Of weights of 1e-4,
  // f16 scales are subnormal.
  std::printf("%18s %9s %9s %9s\n", "", "int8", "Q8_0", "bf16");
  for (const float size : {1.0f, 0.02f, 1e-4f})
    for (const int32_t rank : {1, 8, 16, 64}) {
      const Data data{rank, Normals(1, kRows * kIn, 1), Normals(2, rank * kIn, size), Normals(3, kOut * rank, size)};
      const std::vector<double> exact = Products(data, data.a, data.b);
      const double int8 = ErrorOf(exact, KernelProducts(data, DType::kI8));
      const double q8 = ErrorOf(
          exact, Products(data, RoundedAsQ8(data.a, rank, kIn, kIn, 1), RoundedAsQ8(data.b, rank, kOut, 1, rank)));
      const double bf16 = ErrorOf(exact, KernelProducts(data, DType::kBF16));
      std::printf("rank %2d, of %6g: %8.3f%% %8.3f%% %8.3f%%\n", rank, double{size}, 100 * int8, 100 * q8, 100 * bf16);
      const double chance = 1 + 3 / std::sqrt(2.0 * kRows * rank);
      EXPECT_LE(int8, 1.004 * 0.0076 * chance);
      EXPECT_GE(int8, 0.004);  // it is int8 that was measured
      EXPECT_LE(int8, 1.004 * chance * q8);
    }
}

// The worst that a value can be off is half a scale.
TEST(CpuInt8AdapterError, OfAValueIsHalfAStepAtMostAndZerosStayZeros) {
  for (const float size : {1e30f, 1.0f, 1e-3f, 1e-30f, 1e-37f, 1e-42f}) {
    const auto ops = MakeOps(SimdLevel::kAuto, 1);
    std::vector<float> a = Normals(5, 8 * 480, size);
    for (int64_t k = 64; k < 96; ++k) a[static_cast<size_t>(k)] = 0;
    std::vector<uint8_t> tile(static_cast<size_t>(TileBytes(DType::kI8, 8, 480)));
    ops->PackTileA(a.data(), 480, 8, 480, DType::kI8, tile.data());
    for (int32_t rank = 0; rank < 8; ++rank)
      for (int64_t begin = 0; begin < 480; begin += 32) {
        float largest = 0;
        for (int64_t k = begin; k < begin + 32; ++k)
          largest = std::max(largest, std::abs(a[static_cast<size_t>(rank * 480 + k)]));
        for (int64_t k = begin; k < begin + 32; ++k) {
          const float value = a[static_cast<size_t>(rank * 480 + k)];
          const float held = TileAValue(tile.data(), DType::kI8, 8, rank, k);
          // Half of a 127th, and its scale up to 2^-7 larger; below 2^-126 there are no scales.
          const double bound = std::max(double{largest} / 254 * (1 + 0x1p-7), largest < 127 * 0x1p-126 ? largest : 0.0);
          ASSERT_LE(std::abs(double{held} - value), bound * (1 + 1e-6)) << value;
          if (largest == 0) {
            ASSERT_EQ(held, 0);
          }
        }
      }
  }
}

}  // namespace
}  // namespace openlora::cpu_test
