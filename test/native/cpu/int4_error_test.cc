#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "base/prng.h"
#include "native/cpu/cpu_fixture.h"
#include "native/llama_rules.h"

// What int4 loses, by kind of weights: their relative rms error, from the shipped packing. Beside it Q4_0's rule.

namespace openlora::cpu_test {
namespace {

constexpr int64_t kRows = 256, kIn = 1024;

double Uniform(uint64_t index) { return 1 - PhiloxUniform(11, index); }  // (0, 1]

double Normal(uint64_t index) {
  return std::sqrt(-2 * std::log(Uniform(2 * index))) * std::cos(2 * std::numbers::pi * Uniform(2 * index + 1));
}

double Student5(uint64_t index) {
  double squares = 0;
  for (uint64_t i = 1; i < 6; ++i) squares += std::pow(Normal(8 * index + i), 2);
  return Normal(8 * index) / std::sqrt(squares / 5);
}

double Laplace(uint64_t index) { return (Uniform(2 * index) < 0.5 ? 1 : -1) * std::log(Uniform(2 * index + 1)); }

double ErrorOf(const std::vector<float>& exact, const std::vector<float>& rounded) {
  double size = 0, error = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    size += std::pow(exact[i], 2);
    error += std::pow(rounded[i] - exact[i], 2);
  }
  return std::sqrt(error / size);
}

struct Kind {
  const char* name;
  double q4;    // the table of the design (CPU-KERNELS.md, section 6)
  double ours;  // likewise
  double (*draw)(uint64_t index);
};

// 8,192 groups: their error's own spread is below 1 %.
constexpr double kMargin = 1.02;

TEST(CpuInt4Error, IsWhatTheDesignFoundForEveryKindOfWeights) {
  const auto ops = MakeOps(SimdLevel::kAuto, 1);
  for (const Kind& kind : {Kind{"normal", 0.086, 0.074, Normal}, Kind{"Student's", 0.108, 0.087, Student5},
                           Kind{"Laplace's", 0.107, 0.086, Laplace}}) {
    SCOPED_TRACE(kind.name);
    std::vector<float> w, q4, ours(kRows * kIn);
    for (uint64_t i = 0; i < kRows * kIn; ++i) w.push_back(static_cast<float>(kind.draw(i)));
    q4 = w;
    for (size_t i = 0; i < q4.size(); i += 32) RoundQ4(&q4[i]);
    const Aligned packed = AllocateAligned(ops->PackedBytes(WeightFormat::kInt4, kRows, kIn));
    ops->Pack({w.data(), DType::kF32, kRows, kIn}, WeightFormat::kInt4, kRows, 0, packed.get());
    const Weight weight{WeightFormat::kInt4, kRows, kIn, packed.get(), nullptr};
    std::vector<int32_t> rows(kRows);
    for (int32_t row = 0; row < kRows; ++row) rows[static_cast<size_t>(row)] = row;
    ops->Embed({rows.data(), kRows, &weight, 1, F32View(ours.data(), kRows, kIn), -1, nullptr, nullptr});
    const double error = ErrorOf(w, ours), yardstick = ErrorOf(w, q4);
    RecordProperty(kind.name, testing::PrintToString(error) + ", Q4_0 " + testing::PrintToString(yardstick));
    EXPECT_LE(error, kMargin * kind.ours);
    EXPECT_NEAR(yardstick, kind.q4, 0.02 * kind.q4);
  }
}

}  // namespace
}  // namespace openlora::cpu_test
