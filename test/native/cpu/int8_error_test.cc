#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "base/prng.h"
#include "native/cpu/cpu_fixture.h"

// What int8 loses, by kind of activations: the relative rms error of y = x·Wᵀ at K = 2048, from the shipped kernels.
// Beside it Q8_0's rule, written out.

namespace openlora::cpu_test {
namespace {

constexpr int64_t kRows = 32, kIn = 2048, kOut = 128;

// Normal, a pure function of (seed, index): Box and Muller.
std::vector<float> Normals(uint64_t seed, int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    const double u = 1 - PhiloxUniform(seed, static_cast<uint64_t>(2 * i));  // (0, 1]
    const double v = PhiloxUniform(seed, static_cast<uint64_t>(2 * i + 1));
    values.push_back(static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v)));
  }
  return values;
}

// x·wᵀ as llama.cpp's Q8_0 does it: groups of 32 on both sides, scale = largest / 127 as f16.
struct Q8Block {
  int q[32];
  double scale;
};

std::vector<Q8Block> Q8Row(const float* row, int64_t in) {
  std::vector<Q8Block> blocks;
  for (int64_t begin = 0; begin < in; begin += 32) {
    Q8Block block;
    float largest = 0;
    for (int k = 0; k < 32; ++k) largest = std::max(largest, std::abs(row[begin + k]));
    const float scale = largest / 127;
    for (int k = 0; k < 32; ++k) block.q[k] = scale > 0 ? static_cast<int>(std::lround(row[begin + k] / scale)) : 0;
    block.scale = F16ToFloat(FloatToF16(scale));
    blocks.push_back(block);
  }
  return blocks;
}

double Q8Product(const std::vector<Q8Block>& x, const std::vector<Q8Block>& w) {
  double sum = 0;
  for (size_t b = 0; b < x.size(); ++b) {
    int dot = 0;
    for (int k = 0; k < 32; ++k) dot += x[b].q[k] * w[b].q[k];
    sum += x[b].scale * w[b].scale * dot;
  }
  return sum;
}

struct Data {
  std::vector<float> x = Normals(1, kRows* kIn);
  std::vector<float> w = Normals(2, kOut* kIn);
  void ScaleChannel(int64_t k, float of_x, float of_w) {
    for (int64_t row = 0; row < kRows; ++row) x[static_cast<size_t>(row * kIn + k)] *= of_x;
    for (int64_t o = 0; o < kOut; ++o) w[static_cast<size_t>(o * kIn + k)] *= of_w;
  }
};

constexpr int64_t kStrong[] = {411, 1500};  // 0.1 % of the channels

struct Errors {
  double ours = 0;
  double q8 = 0;
};

Errors ErrorsOf(const Data& data) {
  const auto ops = MakeOps(SimdLevel::kAuto, 2);
  Aligned packed = AllocateAligned(ops->PackedBytes(WeightFormat::kInt8, kOut, kIn));
  ops->Pack({data.w.data(), DType::kF32, kOut, kIn}, WeightFormat::kInt8, kOut, 0, packed.get());
  const Weight weight{WeightFormat::kInt8, kOut, kIn, packed.get(), nullptr};
  std::vector<float> y(kRows * kOut);
  const Product product{&weight, F32View(y.data(), kRows, kOut), -1, false};
  ops->Project({F32View(const_cast<float*>(data.x.data()), kRows, kIn), {&product, 1}, nullptr, nullptr});
  std::vector<std::vector<Q8Block>> of_w;
  for (int64_t o = 0; o < kOut; ++o) of_w.push_back(Q8Row(&data.w[static_cast<size_t>(o * kIn)], kIn));
  double size = 0, ours = 0, q8 = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    const float* const x = &data.x[static_cast<size_t>(row * kIn)];
    const std::vector<Q8Block> of_x = Q8Row(x, kIn);
    for (int64_t o = 0; o < kOut; ++o) {
      double exact = 0;
      for (int64_t k = 0; k < kIn; ++k) exact += double{x[k]} * data.w[static_cast<size_t>(o * kIn + k)];
      size += exact * exact;
      ours += std::pow(y[static_cast<size_t>(row * kOut + o)] - exact, 2);
      q8 += std::pow(Q8Product(of_x, of_w[static_cast<size_t>(o)]) - exact, 2);
    }
  }
  return {std::sqrt(ours / size), std::sqrt(q8 / size)};
}

struct Kind {
  const char* name;
  double q8;    // the table of the design (CPU-KERNELS.md, section 6)
  double ours;  // likewise
  std::function<void(Data&)> change;
};

std::vector<Kind> Kinds() {
  const auto strong = [](float of_x, float of_w) {
    return [=](Data& data) {
      for (const int64_t k : kStrong) data.ScaleChannel(k, of_x, of_w);
    };
  };
  const auto log_normal = [](Data& data) {
    const std::vector<float> logs = Normals(3, kIn);
    for (int64_t k = 0; k < kIn; ++k) data.ScaleChannel(k, std::exp(logs[static_cast<size_t>(k)]), 1);
  };
  return {{"normal", 0.0076, 0.0092, [](Data&) {}},
          {"log-normal channels", 0.0112, 0.0085, log_normal},
          {"0.1 % of the channels times 20", 0.0093, 0.0089, strong(20, 1)},
          {"0.1 % of the channels times 100", 0.0126, 0.0071, strong(100, 1)},
          {"the same with their weights divided by 20", 0.0179, 0.0152, strong(20, 1.0f / 20)},
          {"the same with their weights divided by 100", 0.0628, 0.0412, strong(100, 1.0f / 100)},
          {"2 channels times 1000", 0.0083, 0.0067, strong(1000, 1)}};
}

// Of a strong channel the rows are 32 draws, of both 64: their mean square varies by √(2/64), its root by 9 %.
constexpr double kMargin = 1.1;

TEST(CpuInt8Error, IsWhatTheDesignFoundForEveryKindOfActivations) {
  for (const Kind& kind : Kinds()) {
    SCOPED_TRACE(kind.name);
    Data data;
    kind.change(data);
    const Errors errors = ErrorsOf(data);
    RecordProperty(kind.name, testing::PrintToString(errors.ours) + ", Q8_0 " + testing::PrintToString(errors.q8));
    EXPECT_LE(errors.ours, kMargin * kind.ours);
    EXPECT_LE(errors.q8, kMargin * kind.q8);  // the yardstick is the table's
    if (kind.ours < kind.q8) {
      EXPECT_LT(errors.ours, errors.q8);
    } else {
      EXPECT_LE(errors.ours, kMargin * kind.ours / kind.q8 * errors.q8);
    }
  }
}

}  // namespace
}  // namespace openlora::cpu_test
