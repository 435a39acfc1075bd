// The kernels of kernels/elementwise.cuh on the simulator against double arithmetic. u = 2⁻²⁴.

#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "cases/buffers.h"
#include "cuda/sim_buffer.h"
#include "native/ops/ops_under_test.h"

namespace openlora {
namespace {

using cases::Random;
using cases::RandomValues;

// Rows [begin, end) of a matrix, and how they are to be computed.
struct RowRange {
  TestMachine& machine;
  int32_t begin;
  int32_t end;
  int blocks;

  int32_t rows() const { return end - begin; }
};

// How a matrix stands in memory: rows `stride` apart, the first one `shift` elements from a multiple of 256 bytes.
struct Layout {
  int32_t rows;
  int32_t columns;
  int64_t stride;
  int64_t shift;
};

// Aligned, ragged, shorter than four columns, of several chunks, and misaligned rows.
std::vector<Layout> Layouts() {
  return {{1, 64, 64, 0}, {9, 4, 4, 0}, {5, 1030, 1032, 0}, {3, 33, 37, 1}, {4, 3, 4, 0}, {2, 2056, 2057, 0}};
}

std::string Describe(const Layout& layout) {
  return std::to_string(layout.rows) + " x " + std::to_string(layout.columns);
}

// The run's rows of a matrix in device memory. Nothing behind the last one, poison between.
template <class T>
class DeviceRows {
 public:
  DeviceRows(const RowRange& range, const Layout& layout)
      : layout_(layout),
        rows_(range.rows()),
        buffer_(range.machine, "rows",
                rows_ == 0 ? 0 : static_cast<size_t>(layout.shift + (rows_ - 1) * layout.stride + layout.columns)) {}
  DeviceRows(const RowRange& range, const Layout& layout, const std::vector<T>& all) : DeviceRows(range, layout) {
    for (int64_t row = 0; row < rows_; ++row)
      std::memcpy(data() + row * layout.stride, &all[static_cast<size_t>((range.begin + row) * layout.columns)],
                  static_cast<size_t>(layout.columns) * sizeof(T));
  }

  T* data() const { return buffer_.data() + layout_.shift; }
  // Fails if a kernel wrote beside the rows.
  std::vector<T> Values() const {
    std::vector<T> values;
    std::vector<uint8_t> beside(buffer_.size() * sizeof(T), 0xff);
    for (int64_t row = 0; row < rows_; ++row) {
      const T* const from = data() + row * layout_.stride;
      values.insert(values.end(), from, from + layout_.columns);
      std::memcpy(&beside[static_cast<size_t>(layout_.shift + row * layout_.stride) * sizeof(T)], from,
                  static_cast<size_t>(layout_.columns) * sizeof(T));
    }
    EXPECT_EQ(std::memcmp(beside.data(), buffer_.data(), beside.size()), 0) << "written beside the rows";
    return values;
  }

 private:
  Layout layout_;
  int64_t rows_;
  SimBuffer<T> buffer_;
};

SimBuffer<int32_t> RowCount(const RowRange& range) {
  return {range.machine, "row count", std::vector<int32_t>{range.rows()}};
}

// op(RowRange) of all rows: the same bits in every order and on every grid. Rows alone get theirs, no rows nothing.
template <class Op>
auto InEveryOrder(int32_t rows, const Op& op) {
  TestMachine machine({.seed = 1});
  const auto all = op(RowRange{machine, 0, rows, 3});
  const size_t row_size = all.size() / static_cast<size_t>(rows);
  const auto expect = [&](uint64_t seed, int32_t begin, int32_t end, int blocks) {
    TestMachine other({.seed = seed});
    const auto same = op(RowRange{other, begin, end, blocks});
    EXPECT_EQ(same.size(), row_size * static_cast<size_t>(end - begin));
    EXPECT_EQ(std::memcmp(same.data(), &all[0] + row_size * static_cast<size_t>(begin), same.size() * sizeof(all[0])),
              0)
        << "rows " << begin << " to " << end << ", seed " << seed << ", " << blocks << " blocks";
  };
  expect(2, 0, rows, 1);
  expect(3, 0, rows, 2);
  expect(4, 0, rows, 7);
  for (const int32_t row : {0, rows / 2, rows - 1}) expect(5, row, row + 1, 2);
  expect(6, 0, 0, 3);
  return all;
}

// A value of 16 bits is that of some number within `tolerance` of `wanted`, rounded.
testing::AssertionResult IsRounded(uint16_t actual, DType dtype, double wanted, double tolerance) {
  const double value = dtype == DType::kF16 ? F16ToFloat(actual) : BF16ToFloat(actual);
  const auto rounded = [&](double x) { return double{cases::Rounded(static_cast<float>(x), dtype)}; };
  if (rounded(wanted - tolerance) <= value && value <= rounded(wanted + tolerance)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << value << ", wanted " << wanted << " ± " << tolerance << " as " << NameOf(dtype);
}

constexpr DType kHalves[] = {DType::kBF16, DType::kF16};

template <class Params>
void RunOn(const RowRange& range, dev::Kernel<Params> kernel, const std::type_identity_t<Params>& params) {
  EXPECT_EQ(RunKernel(range.machine, kernel, {range.blocks, elementwise::kThreads}, params), "");
}

template <class T>
std::vector<T> GatherOn(const RowRange& range, dev::Kernel<elementwise::CopyRowsParams> kernel, const Layout& layout,
                        const std::vector<float>& x, const std::vector<int32_t>& index) {
  const SimBuffer<int32_t> rows = RowCount(range);
  const RowRange whole{range.machine, 0, layout.rows, 1};
  const DeviceRows<float> in(index.empty() ? range : whole, layout, x);
  const SimBuffer<int32_t> list(range.machine, "index",
                                index.empty() ? index : std::vector(&index[0] + range.begin, &index[0] + range.end));
  const DeviceRows<T> out(range, layout);
  RunOn(range, kernel,
        {rows.data(), index.empty() ? nullptr : list.data(), layout.columns, in.data(), layout.stride, out.data(),
         layout.stride});
  return out.Values();
}

TEST(CudaElementwiseTest, CopyRowsGathersAndRounds) {
  for (const Layout& layout : Layouts()) {
    SCOPED_TRACE(Describe(layout));
    Random random(1);
    const std::vector<float> x = RandomValues(random, int64_t{layout.rows} * layout.columns, DType::kF32, 3);
    for (const bool has_index : {false, true}) {
      std::vector<int32_t> index;
      for (int32_t i = 0; has_index && i < layout.rows + 2; ++i) index.push_back(random.Below(layout.rows));
      const int32_t rows = has_index ? static_cast<int32_t>(index.size()) : layout.rows;
      const auto run = [&](auto type, auto kernel) {
        return InEveryOrder(
            rows, [&](const RowRange& range) { return GatherOn<decltype(type)>(range, kernel, layout, x, index); });
      };
      const std::vector<float> copied = run(0.0f, elementwise::CopyRowsF32);
      const std::vector<uint16_t> bf16 = run(uint16_t{}, elementwise::CopyRowsBF16);
      const std::vector<uint16_t> f16 = run(uint16_t{}, elementwise::CopyRowsF16);
      ASSERT_EQ(copied.size(), static_cast<size_t>(rows) * static_cast<size_t>(layout.columns));
      for (size_t i = 0; i < copied.size(); ++i) {
        const size_t row = i / static_cast<size_t>(layout.columns), column = i % static_cast<size_t>(layout.columns);
        const size_t from = has_index ? static_cast<size_t>(index[row]) : row;
        const float wanted = x[from * static_cast<size_t>(layout.columns) + column];
        ASSERT_EQ(copied[i], wanted) << i;
        ASSERT_EQ(bf16[i], FloatToBF16(wanted)) << i;
        ASSERT_EQ(f16[i], FloatToF16(wanted)) << i;
      }
    }
  }
}

TEST(CudaElementwiseTest, AddScaledIsOneFusedMultiplyAdd) {
  for (const Layout& layout : Layouts()) {
    SCOPED_TRACE(Describe(layout));
    Random random(2);
    const std::vector<float> x = RandomValues(random, int64_t{layout.rows} * layout.columns, DType::kF32, 3);
    const std::vector<float> before = RandomValues(random, int64_t{layout.rows} * layout.columns);
    const std::vector<float> sum = InEveryOrder(layout.rows, [&](const RowRange& range) {
      const SimBuffer<int32_t> rows = RowCount(range);
      const DeviceRows<float> in(range, layout, x), out(range, layout, before);
      RunOn(range, elementwise::AddScaled,
            {rows.data(), layout.columns, 0.22f, in.data(), layout.stride, out.data(), layout.stride});
      return out.Values();
    });
    for (size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], std::fma(x[i], 0.22f, before[i])) << i;
  }
}

// tanh = 1 - d, d = 2 / (e + 1), e = e^2x. Of e: Exp2 4u, its argument 2u·|2x|, which count e·d²/2 <= 1/2 and 0.23
// times; of d: the sum and the division 2u·d; of tanh and of the product u·|tanh| each. Together below 8u.
TEST(CudaElementwiseTest, SoftCapIsTanhAndNeverBeyondTheCap) {
  for (const Layout& layout : Layouts())
    for (const float limit : {0.1f, 30.0f, 3000.0f}) {
      SCOPED_TRACE(Describe(layout) + " up to " + std::to_string(limit));
      Random random(3);
      std::vector<float> x = RandomValues(random, int64_t{layout.rows} * layout.columns, DType::kF32, limit);
      x[0] = 0;
      x[1] = -INFINITY;
      x[2] = 3e38f;
      const std::vector<float> capped = InEveryOrder(layout.rows, [&](const RowRange& range) {
        const SimBuffer<int32_t> rows = RowCount(range);
        const DeviceRows<float> in(range, layout, x);
        RunOn(range, elementwise::SoftCap, {rows.data(), layout.columns, 30, in.data(), layout.stride});
        return in.Values();
      });
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_NEAR(capped[i], 30 * std::tanh(double{x[i]} / 30), 8 * kUnitRoundoff * 30) << x[i];
        ASSERT_LE(std::abs(capped[i]), 30);
      }
    }
}

std::vector<uint16_t> GatedOn(const RowRange& range, DType dtype, elementwise::Activation activation,
                              const Layout& layout, const std::vector<float>& gate, const std::vector<float>& up) {
  const SimBuffer<int32_t> rows = RowCount(range);
  const Layout to = {layout.rows, layout.columns, layout.stride + 4, layout.shift};
  const DeviceRows<float> of_gate(range, layout, gate), of_up(range, to, up);
  const DeviceRows<uint16_t> out(range, to);
  RunOn(range, dtype == DType::kF16 ? elementwise::GatedActivationF16 : elementwise::GatedActivationBF16,
        {rows.data(), layout.columns, activation, of_gate.data(), layout.stride, of_up.data(), to.stride, out.data(),
         to.stride});
  return out.Values();
}

// x / (1 + e), e = e^-z: of e Exp2's 4u and its argument's 4u·z (x², two factors, a sum, a product), a sum, a division
// and a product. Where e isn't finite a result below 1e-36 is zero.
TEST(CudaElementwiseTest, GatedActivationIsAccurateFromMinusToPlusAnything) {
  for (const elementwise::Activation activation : {elementwise::Activation::kSilu, elementwise::Activation::kGeluTanh})
    for (const Layout& layout : Layouts())
      for (const DType dtype : kHalves) {
        const bool is_silu = activation == elementwise::Activation::kSilu;
        SCOPED_TRACE(Describe(layout) + (is_silu ? " silu" : " gelu"));
        Random random(4);
        std::vector<float> gate, up = RandomValues(random, int64_t{layout.rows} * layout.columns);
        for (size_t i = 0; i < up.size(); ++i)
          gate.push_back(random.Symmetric() * (i % 3 == 0 ? 1000.0f : i % 3 == 1 ? 9.0f : 0.01f));
        const float special[] = {0.0f, -88.0f, -89.0f, 60000.0f, -1e30f, -104.0f, -0.0f, -20.0f};
        for (size_t i = 0; i < std::min(up.size() / 2, std::size(special)); ++i) gate[2 * i] = special[i];
        const std::vector<uint16_t> out = InEveryOrder(
            layout.rows, [&](const RowRange& range) { return GatedOn(range, dtype, activation, layout, gate, up); });
        for (size_t i = 0; i < out.size(); ++i) {
          const double x = gate[i];
          const double z = is_silu ? x : 2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
          const double wanted = x / (1 + std::exp(-z)) * up[i];
          const double error = wanted == 0 ? 0 : (8 + 4 * std::abs(z)) * kUnitRoundoff * std::abs(wanted);
          ASSERT_TRUE(IsRounded(out[i], dtype, wanted, error + 1e-36)) << x << " * " << up[i];
        }
      }
}

struct NormCase {
  Layout layout;
  bool adds;
};

std::vector<NormCase> NormCases() {
  std::vector<NormCase> list;
  for (const Layout& layout : Layouts()) list.push_back({layout, layout.columns % 2 == 0});
  for (const bool adds : {false, true}) list.push_back({{7, 260, 264, 0}, adds});
  list.push_back({{1, 8196, 8196, 0}, true});  // three quads in a thread
  return list;
}

constexpr float kEps = 0.01f, kResidualScale = 0.22f;

// Of any format; T is uint16_t or float. The residual first, then the norm.
template <class T>
std::vector<T> NormOn(const RowRange& range, dev::Kernel<elementwise::RmsNormParams> kernel, const NormCase& c,
                      const std::vector<float>& residual, const std::vector<float>& x, const std::vector<float>& gain,
                      std::vector<float>* residual_out) {
  const SimBuffer<int32_t> rows = RowCount(range);
  const SimBuffer<float> gains(range.machine, "gain", gain);
  const DeviceRows<float> stream(range, c.layout, residual), added(range, c.layout, x);
  const Layout to = {c.layout.rows, c.layout.columns, (c.layout.columns + 7) / 8 * 8, 0};
  const DeviceRows<T> out(range, to);
  const int threads = elementwise::NormThreads(c.layout.columns);
  EXPECT_EQ(RunKernel(range.machine, kernel, {range.blocks, threads, elementwise::kNormSharedBytes},
                      {rows.data(), c.layout.columns, kEps, c.adds ? added.data() : nullptr, c.layout.stride,
                       kResidualScale, stream.data(), c.layout.stride, gains.data(), out.data(), to.stride}),
            "");
  if (range.rows() == c.layout.rows) *residual_out = stream.Values();
  return out.Values();
}

// A sum of positive numbers, `depth` additions deep, is within depth·u; of its mean 2u more and half of it all in the
// root, 4u of Rsqrt, and two products.
double NormError(double depth) { return kUnitRoundoff * (depth / 2 + 7); }

double InverseRoot(const float* values, int64_t dim) {
  return 1 / std::sqrt(Norm(values, dim) * Norm(values, dim) / static_cast<double>(dim) + double{kEps});
}

TEST(CudaElementwiseTest, RmsNormAddsToTheResidualAndNormsIt) {
  for (const NormCase& c : NormCases()) {
    SCOPED_TRACE(Describe(c.layout) + (c.adds ? ", adds" : ""));
    Random random(5);
    const auto dim = static_cast<size_t>(c.layout.columns);
    const std::vector<float> before = RandomValues(random, int64_t{c.layout.rows} * c.layout.columns, DType::kF32, 3);
    const std::vector<float> x = RandomValues(random, int64_t{c.layout.rows} * c.layout.columns, DType::kF32, 9);
    const std::vector<float> gain = RandomValues(random, c.layout.columns);
    std::vector<float> residual;
    const auto run = [&](auto type, auto kernel) {
      return InEveryOrder(c.layout.rows, [&](const RowRange& range) {
        return NormOn<decltype(type)>(range, kernel, c, before, x, gain, &residual);
      });
    };
    const std::vector<float> floats = run(0.0f, elementwise::RmsNormF32);
    const std::vector<uint16_t> bf16 = run(uint16_t{}, elementwise::RmsNormBF16);
    const std::vector<uint16_t> f16 = run(uint16_t{}, elementwise::RmsNormF16);
    const int warps = elementwise::NormThreads(c.layout.columns) / 32;
    const double error = NormError(4 * elementwise::kNormQuads + 5 + warps);
    for (size_t i = 0; i < floats.size(); ++i) {
      ASSERT_EQ(residual[i], c.adds ? std::fma(x[i], kResidualScale, before[i]) : before[i]) << i;
      const double wanted =
          residual[i] * InverseRoot(&residual[i / dim * dim], c.layout.columns) * double{gain[i % dim]};
      ASSERT_NEAR(floats[i], wanted, error * std::abs(wanted)) << i;
      ASSERT_EQ(bf16[i], FloatToBF16(floats[i])) << i;
      ASSERT_EQ(f16[i], FloatToF16(floats[i])) << i;
    }
  }
}

TEST(CudaElementwiseTest, RmsNormMayWriteOverItsInput) {
  const Layout layout = {3, 1030, 1032, 0};
  Random random(6);
  const std::vector<float> x = RandomValues(random, 3 * 1030), gain = RandomValues(random, 1030);
  std::vector<float> residual;
  TestMachine machine;
  const RowRange range{machine, 0, 3, 2};
  const std::vector<float> apart =
      NormOn<float>(range, elementwise::RmsNormF32, {layout, false}, x, x, gain, &residual);
  const SimBuffer<int32_t> rows = RowCount(range);
  const SimBuffer<float> gains(machine, "gain", gain);
  const DeviceRows<float> in_place(range, layout, x);
  const dev::Shape shape{2, elementwise::NormThreads(1030), elementwise::kNormSharedBytes};
  ASSERT_EQ(RunKernel(machine, elementwise::RmsNormF32, shape,
                      {rows.data(), 1030, kEps, nullptr, 0, 1, in_place.data(), layout.stride, gains.data(),
                       in_place.data(), layout.stride}),
            "");
  EXPECT_EQ(in_place.Values(), apart);
}

TEST(CudaElementwiseTest, NormsOfAnyDimHaveAsManyThreadsAsHoldIt) {
  for (int dim = 1; dim <= elementwise::kNormDimMax; ++dim) {
    const int threads = elementwise::NormThreads(dim);
    ASSERT_TRUE(threads % 32 == 0 && threads <= elementwise::kNormThreadsMax) << dim;
    ASSERT_GE(threads * 4 * elementwise::kNormQuads, dim);
  }
}

TEST(CudaElementwiseTest, HeadNormNormsEachVectorWithItsGain) {
  for (const int32_t dim : {1, 6, 64, 128, 318, elementwise::kHeadNormDimMax})
    for (const auto& [q_heads, k_heads] : {std::pair{5, 2}, {1, 0}, {3, 9}}) {
      SCOPED_TRACE(std::to_string(q_heads + k_heads) + " of " + std::to_string(dim));
      const Layout layout = {3, dim * (q_heads + k_heads), dim * (q_heads + k_heads + 1), 0};
      Random random(7);
      const std::vector<float> x = RandomValues(random, int64_t{3} * layout.columns, DType::kF32, 3);
      const std::vector<float> q_gain = RandomValues(random, dim), k_gain = RandomValues(random, dim);
      const std::vector<float> out =
          InEveryOrder(layout.rows, [&, groups = std::pair{q_heads, k_heads}](const RowRange& range) {
            const SimBuffer<int32_t> rows = RowCount(range);
            const SimBuffer<float> q(range.machine, "q gain", q_gain), k(range.machine, "k gain", k_gain);
            const DeviceRows<float> in_place(range, layout, x);
            RunOn(range, elementwise::HeadNorm,
                  {rows.data(),
                   dim,
                   kEps,
                   {groups.first, groups.second},
                   {q.data(), k.data()},
                   in_place.data(),
                   layout.stride});
            return in_place.Values();
          });
      const double error = NormError(4 * elementwise::kHeadNormQuads + 5);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t inside = i % static_cast<size_t>(dim);
        const size_t head = i % static_cast<size_t>(layout.columns) / static_cast<size_t>(dim);
        const double gain = (head < static_cast<size_t>(q_heads) ? q_gain : k_gain)[inside];
        const double wanted = x[i] * InverseRoot(&x[i - inside], dim) * gain;
        ASSERT_NEAR(out[i], wanted, error * std::abs(wanted)) << i;
      }
    }
}

struct TableCase {
  std::vector<int32_t> positions;
  std::vector<uint8_t> is_long;  // or empty
  std::vector<float> inv_freq;
  std::vector<float> long_inv_freq;  // or empty
};

std::vector<float> TableOn(const RowRange& range, const TableCase& c, float factor) {
  const auto of_run = [&](const auto& all) {
    return std::vector(all.begin() + (all.empty() ? 0 : range.begin),
                       all.empty() ? all.end() : all.begin() + range.end);
  };
  const auto half = static_cast<int32_t>(c.inv_freq.size());
  const SimBuffer<int32_t> rows = RowCount(range), positions(range.machine, "positions", of_run(c.positions));
  const SimBuffer<uint8_t> is_long(range.machine, "is long", of_run(c.is_long));
  const SimBuffer<float> inv_freq(range.machine, "frequencies", c.inv_freq),
      long_inv_freq(range.machine, "long frequencies", c.long_inv_freq);
  const Layout layout = {static_cast<int32_t>(c.positions.size()), 2 * half, 2 * half + 3, 0};
  const DeviceRows<float> out(range, layout);
  RunOn(range, elementwise::RopeTable,
        {rows.data(), positions.data(), c.is_long.empty() ? nullptr : is_long.data(), inv_freq.data(),
         c.long_inv_freq.empty() ? nullptr : long_inv_freq.data(), half, factor, out.data(), layout.stride});
  return out.Values();
}

// The bound that CosSinOf derives, 2.4u, and u of the factor's product. The angle is an f32, as Hugging Face has it.
void ExpectTable(const TableCase& c, const std::vector<float>& table, float factor) {
  const size_t half = c.inv_freq.size();
  for (size_t row = 0; row < c.positions.size(); ++row)
    for (size_t i = 0; i < half; ++i) {
      const bool is_long = !c.is_long.empty() && c.is_long[row] != 0 && !c.long_inv_freq.empty();
      const float angle = static_cast<float>(c.positions[row]) * (is_long ? c.long_inv_freq : c.inv_freq)[i];
      ASSERT_LE(angle, elementwise::kRopeAngleMax);
      const double tolerance = 3.4 * kUnitRoundoff * double{factor};
      ASSERT_NEAR(table[row * 2 * half + i], factor * std::cos(double{angle}), tolerance) << angle;
      ASSERT_NEAR(table[row * 2 * half + half + i], factor * std::sin(double{angle}), tolerance) << angle;
    }
}

TEST(CudaElementwiseTest, RopeTableHoldsCosinesAndSines) {
  for (const size_t half : {1, 3, 64})
    for (const bool has_long : {false, true})
      for (const bool has_rows : {false, true}) {
        TableCase c;
        c.positions = {0, 1, 2, 100, 8191, 131071, 5, 1'000'000, 1 << 20};
        if (has_rows) c.is_long = {0, 1, 0, 0, 7, 0, 1, 1, 0};
        for (size_t i = 0; i < half; ++i)
          c.inv_freq.push_back(
              static_cast<float>(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half))));
        for (size_t i = 0; has_long && i < half; ++i) c.long_inv_freq.push_back(c.inv_freq[i] / 7);
        const std::vector<float> table = InEveryOrder(static_cast<int32_t>(c.positions.size()),
                                                      [&](const RowRange& range) { return TableOn(range, c, 1.5f); });
        ExpectTable(c, table, 1.5f);
      }
}

// Integers near multiples of pi/2 (numerators of convergents of pi, their halves and multiples), and all over the
// range.
TEST(CudaElementwiseTest, AnglesOfTwoMillionAreReducedExactly) {
  TableCase c;
  c.positions = {11,     22,     333,    344,    355,     710,     52174,   103993,    104348,
                 208341, 312689, 573204, 833719, 1146408, 1667438, 1980127, 2'097'152, 1'048'576};
  Random random(8);
  for (int i = 0; i < 1500; ++i) c.positions.push_back(random.Below(1 << 21));
  for (int i = 0; i < 8; ++i) c.inv_freq.push_back(i == 0 ? 1.0f : static_cast<float>(random.Uniform()));
  TestMachine machine;
  ExpectTable(c, TableOn({machine, 0, static_cast<int32_t>(c.positions.size()), 3}, c, 1), 1);
}

// Two products and a sum: u of a product and u of the result.
TEST(CudaElementwiseTest, RopeRotatesTheFirstDimensionsOfEachHeadAndLeavesTheOthers) {
  for (const int32_t half : {1, 4, 10, 32})
    for (const int32_t unrotated : {0, 6}) {
      const int32_t heads = 3, head_dim = 2 * half + unrotated;
      SCOPED_TRACE("head_dim " + std::to_string(head_dim) + ", half " + std::to_string(half));
      const Layout layout = {7, heads * head_dim, heads * head_dim + 12, 0}, of_table = {7, 2 * half, 2 * half + 4, 0};
      Random random(9);
      const std::vector<float> x = RandomValues(random, int64_t{7} * layout.columns, DType::kF32, 2);
      const std::vector<float> cos_sin = RandomValues(random, int64_t{7} * 2 * half);
      const std::vector<float> out = InEveryOrder(7, [&](const RowRange& range) {
        const SimBuffer<int32_t> rows = RowCount(range);
        const DeviceRows<float> in_place(range, layout, x), table(range, of_table, cos_sin);
        RunOn(range, elementwise::Rope,
              {rows.data(), heads, head_dim, half, table.data(), of_table.stride, in_place.data(), layout.stride});
        return in_place.Values();
      });
      for (int32_t i = 0; i < static_cast<int32_t>(x.size()); ++i) {
        const int32_t row = i / layout.columns, inside = i % layout.columns % head_dim;
        if (inside >= 2 * half) {
          ASSERT_EQ(out[static_cast<size_t>(i)], x[static_cast<size_t>(i)]) << i;
          continue;
        }
        const bool is_low = inside < half;
        const auto at = static_cast<size_t>(row * 2 * half + inside % half);
        const double own = x[static_cast<size_t>(i)], other = x[static_cast<size_t>(is_low ? i + half : i - half)];
        const double cos = cos_sin[at], sin = cos_sin[at + static_cast<size_t>(half)];
        const double of_sin = is_low ? -other * sin : other * sin, wanted = own * cos + of_sin;
        ASSERT_NEAR(out[static_cast<size_t>(i)], wanted, 1.01 * kUnitRoundoff * (std::abs(of_sin) + std::abs(wanted)));
      }
    }
}

// An index, a load and a store for four columns; each of a block's threads reads the row count.
TEST(CudaElementwiseTest, AlignedRowsMoveFourColumnsAtATime) {
  const Layout layout = {2, 512, 512, 0};
  for (const bool is_half : {false, true}) {
    TestMachine machine;
    const RowRange range{machine, 0, 2, 1};
    const std::vector<float> x(1024, 1.5f);
    if (is_half) GatherOn<uint16_t>(range, elementwise::CopyRowsBF16, layout, x, {1, 0});
    if (!is_half) GatherOn<float>(range, elementwise::CopyRowsF32, layout, x, {1, 0});
    if (kIsSimulated) {
      EXPECT_EQ(machine.counts().accesses, elementwise::kThreads + 3u * 1024 / 4);
    }
  }
}

}  // namespace
}  // namespace openlora
