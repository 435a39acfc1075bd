// Stream and Gemm of kernels/linear.cuh on the simulator, over the 16-bit products of the shared case list.

#include "kernels/linear.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <optional>

#include "cases/project_run.h"
#include "cuda/sim_buffer.h"
#include "native/ops/ops_under_test.h"
#include "ops/weight_packing.h"

namespace openlora {
namespace {

using cases::ProjectCase;
using cases::ProjectData;

// Of the shared list those of 16 bits without adapters (fewer of f16, whose kernels differ in one instruction), and
// what the kernels' own borders want: several chunks of 512 columns, items and blocks of rows.
std::vector<ProjectCase> LinearCases() {
  std::vector<ProjectCase> list;
  for (const ProjectCase& c : cases::ProjectCases()) {
    if (c.mix != cases::AdapterMix::kNone) continue;
    const bool is_f16 = c.dtype == WeightFormat::kF16 && std::string(c.name) != "out";
    if (c.dtype == WeightFormat::kBF16 || is_f16) list.push_back(c);
  }
  for (const int32_t in : {480, 512, 513, 2048, 2600})
    list.push_back({.name = "chunks", .rows = 3, .in = in, .outs = {20}, .dtype = DType::kBF16, .seed = 50});
  for (const int32_t rows : {32, 33, 70, 131})
    list.push_back({.name = "row blocks",
                    .rows = rows,
                    .in = 70,
                    .outs = {33, 7},
                    .dtype = DType::kBF16,
                    .has_bias = true,
                    .accumulates = true,
                    .seed = 51});
  list.push_back({.name = "several of each",
                  .rows = 33,
                  .in = 530,
                  .outs = {130, 16, 35},
                  .dtype = DType::kBF16,
                  .has_bias = true,
                  .seed = 52});
  return list;
}

struct Launched {
  bool is_gemm = false;
  int32_t blocks = 3;
  int32_t tiles_each = 2;
  std::optional<int32_t> rows = {};  // else all
  int32_t rows_max = 1 << 20;
};

constexpr int64_t kGap = 3;  // floats between rows of y, which stay as they are

// Packs in two calls, the later outputs first.
std::vector<uint16_t> Packed(const std::vector<float>& values, int32_t out, int32_t in, DType dtype) {
  std::vector<uint16_t> packed(static_cast<size_t>(CudaWeightElements(out, in)), 0xffff);
  const int64_t first = std::min<int64_t>(out, (out / 2 + Ops::kPackRows - 1) / Ops::kPackRows * Ops::kPackRows);
  PackCudaWeight(values.data() + first * in, out - first, in, first, dtype, packed.data());
  PackCudaWeight(values.data(), first, in, 0, dtype, packed.data());
  return packed;
}

// Rows of a case on a machine.
class LinearRun {
 public:
  LinearRun(TestMachine& machine, const ProjectData& data, const std::vector<int32_t>& rows)
      : machine_(machine), data_(data), rows_(static_cast<int32_t>(rows.size())) {
    const auto in = static_cast<size_t>(data.shape.in);
    x_stride_ = (in + 7) / 8 * 8;
    std::vector<uint16_t> x(rows.size() * x_stride_, 0xffff);  // NaN beyond the end of a row
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t c = 0; c < in; ++c)
        StoreFromFloat(x.data(), data.shape.dtype.dtype(), static_cast<int64_t>(i * x_stride_ + c),
                       data.x[static_cast<size_t>(rows[i]) * in + c]);
    x_ = std::make_unique<SimBuffer<uint16_t>>(machine, "x", x);
    for (size_t p = 0; p < data.products(); ++p) {
      const auto out = static_cast<size_t>(data.shape.outs[p]);
      weights_.push_back(std::make_unique<SimBuffer<uint16_t>>(
          machine, "weight", Packed(data.weights[p], data.shape.outs[p], data.shape.in, data.shape.dtype.dtype())));
      biases_.push_back(std::make_unique<SimBuffer<float>>(machine, "bias", data.biases[p]));
      ys_.push_back(std::make_unique<SimBuffer<float>>(machine, "y", rows.size() * (out + kGap) - kGap));
      if (Accumulates(p))
        for (size_t i = 0; i < rows.size(); ++i)
          std::memcpy(ys_[p]->data() + i * (out + kGap), &data.initial[p][static_cast<size_t>(rows[i]) * out],
                      out * sizeof(float));
    }
  }

  std::string Run(const Launched& launched) {
    const SimBuffer<int32_t> rows(machine_, "rows", std::vector<int32_t>{launched.rows.value_or(rows_)});
    linear::Params params{.x = x_->data(),
                          .x_stride = static_cast<int64_t>(x_stride_),
                          .rows = rows.data(),
                          .rows_max = launched.rows_max,
                          .in = data_.shape.in,
                          .product_count = static_cast<int32_t>(data_.products()),
                          .tiles_each = launched.tiles_each,
                          .products = {}};
    for (size_t p = 0; p < data_.products(); ++p)
      params.products[p] = {.weight = weights_[p]->data(),
                            .bias = data_.shape.has_bias ? biases_[p]->data() : nullptr,
                            .y = ys_[p]->data(),
                            .y_stride = data_.shape.outs[p] + kGap,
                            .out = data_.shape.outs[p],
                            .accumulates = Accumulates(p)};
    const bool is_f16 = data_.shape.dtype == WeightFormat::kF16;
    if (launched.is_gemm)
      return RunKernel(machine_, is_f16 ? linear::GemmF16 : linear::GemmBF16,
                       {launched.blocks, linear::kGemmThreads, linear::kGemmSharedBytes}, params);
    return RunKernel(machine_, is_f16 ? linear::StreamF16 : linear::StreamBF16,
                     {launched.blocks, linear::kStreamThreads, linear::kStreamSharedBytes}, params);
  }

  float Y(size_t product, int32_t row, int32_t out) const {
    return (*ys_[product])[static_cast<size_t>(row * (data_.shape.outs[product] + kGap) + out)];
  }
  // All outputs of a row, those of one product after those of another.
  std::vector<float> Row(int32_t row) const {
    std::vector<float> values;
    for (size_t p = 0; p < data_.products(); ++p)
      for (int32_t o = 0; o < data_.shape.outs[p]; ++o) values.push_back(Y(p, row, o));
    return values;
  }
  bool HasGaps() const {
    for (size_t p = 0; p < data_.products(); ++p)
      for (int32_t row = 0; row + 1 < rows_; ++row)
        for (int64_t i = 0; i < kGap; ++i)
          if (std::bit_cast<uint32_t>(Y(p, row, data_.shape.outs[p] + static_cast<int32_t>(i))) != ~0u) return false;
    return true;
  }
  bool Accumulates(size_t product) const { return product == 0 && data_.shape.accumulates; }

 private:
  TestMachine& machine_;
  const ProjectData& data_;
  const int32_t rows_;
  size_t x_stride_ = 0;
  std::unique_ptr<SimBuffer<uint16_t>> x_;
  std::vector<std::unique_ptr<SimBuffer<uint16_t>>> weights_;
  std::vector<std::unique_ptr<SimBuffer<float>>> biases_, ys_;
};

ProjectData LinearDataOf(const ProjectCase& c) {
  ProjectData data(c);
  for (float& value : data.x) value = cases::Rounded(value, c.dtype.dtype());
  return data;
}

std::vector<int32_t> RowsOf(int32_t count, int32_t first = 0) {
  std::vector<int32_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

// Against double arithmetic. Errors: products of 16-bit values are exact in f32; their sum is one of f32 in some fixed
// order, u·chain·‖x‖·‖w‖; then one rounding each of bias and of y.
void ExpectIsNear(const ProjectData& data, const LinearRun& run) {
  const auto in = static_cast<size_t>(data.shape.in);
  for (size_t p = 0; p < data.products(); ++p)
    for (int32_t row = 0; row < data.shape.rows; ++row)
      for (int32_t o = 0; o < data.shape.outs[p]; ++o) {
        const float* const x = &data.x[static_cast<size_t>(row) * in];
        const float* const w = &data.weights[p][static_cast<size_t>(o) * in];
        double sum = 0;
        for (size_t c = 0; c < in; ++c) sum += double{x[c]} * w[c];
        double tolerance = kUnitRoundoff * ChainError(data.shape.in) * Norm(x, data.shape.in) * Norm(w, data.shape.in);
        if (data.shape.has_bias) {
          sum += data.biases[p][static_cast<size_t>(o)];
          tolerance += kUnitRoundoff * std::abs(sum);
        }
        if (run.Accumulates(p)) {
          sum += data.initial[p][static_cast<size_t>(row * data.shape.outs[p] + o)];
          tolerance += kUnitRoundoff * std::abs(sum);
        }
        ASSERT_NEAR(run.Y(p, row, o), sum, tolerance)
            << cases::Describe(data.shape) << " product " << p << " row " << row << " output " << o;
      }
}

TEST(CudaLinearTest, BothKernelsGiveEveryCaseTheSameBitsInEveryOrderGridAndTiling) {
  for (const ProjectCase& c : LinearCases()) {
    const ProjectData data = LinearDataOf(c);
    std::vector<std::vector<float>> first;
    for (const bool is_gemm : {false, true})
      for (int32_t seed = 1; seed <= 4; ++seed) {
        TestMachine machine({.seed = static_cast<uint64_t>(seed)});
        LinearRun run(machine, data, RowsOf(c.rows));
        ASSERT_EQ(run.Run({is_gemm, is_gemm ? seed % 2 + 1 : seed, seed}), "") << cases::Describe(c);
        EXPECT_TRUE(run.HasGaps()) << cases::Describe(c);
        std::vector<std::vector<float>> all;
        for (int32_t row = 0; row < c.rows; ++row) all.push_back(run.Row(row));
        if (first.empty()) {
          ExpectIsNear(data, run);
          first = all;
        }
        ASSERT_EQ(all, first) << cases::Describe(c) << (is_gemm ? " gemm" : " stream") << " seed " << seed;
      }
    if (HasFatalFailure()) return;
  }
}

TEST(CudaLinearTest, ARowsBitsAreThoseThatItGetsInAnyBatchOfEitherKernel) {
  const ProjectCase c{
      .name = "T", .rows = 70, .in = 603, .outs = {17, 5}, .dtype = DType::kBF16, .has_bias = true, .seed = 53};
  const ProjectData data = LinearDataOf(c);
  TestMachine machine;
  LinearRun together(machine, data, RowsOf(70));
  ASSERT_EQ(together.Run({.is_gemm = true}), "");
  for (int32_t rows = 1; rows <= 70; rows += rows < 10 ? 1 : 6)
    for (const bool is_gemm : {false, true}) {
      const int32_t first = (70 - rows) / 2;  // not where they stood
      TestMachine other({.seed = static_cast<uint64_t>(rows)});
      LinearRun run(other, data, RowsOf(rows, first));
      ASSERT_EQ(run.Run({.is_gemm = is_gemm, .blocks = 2, .tiles_each = rows % 4 + 1}), "") << rows << " rows";
      for (int32_t row = 0; row < rows; ++row)
        ASSERT_EQ(run.Row(row), together.Row(first + row)) << rows << " rows" << (is_gemm ? ", gemm" : ", stream");
    }
}

TEST(CudaLinearTest, NoRowsTouchNothing) {
  const ProjectCase c{.name = "none", .rows = 1, .in = 64, .outs = {32}, .dtype = DType::kBF16, .seed = 1};
  const ProjectData data = LinearDataOf(c);
  for (const bool is_gemm : {false, true}) {
    TestMachine machine;
    LinearRun run(machine, data, {0});
    ASSERT_EQ(run.Run({.is_gemm = is_gemm, .rows = 0}), "");
    for (const float y : run.Row(0)) EXPECT_TRUE(std::isnan(y));
    if (kIsSimulated) {
      EXPECT_EQ(machine.counts().async_copies, 0u);
      EXPECT_EQ(machine.counts().accesses, machine.counts().threads);  // each read T
    }
  }
}

TEST(CudaLinearTest, RowsBeyondTheirBoundAreLeftAlone) {
  const ProjectCase c{.name = "bound", .rows = 12, .in = 64, .outs = {32}, .dtype = DType::kBF16, .seed = 2};
  const ProjectData data = LinearDataOf(c);
  for (const bool is_gemm : {false, true})
    for (const bool is_count : {false, true}) {
      TestMachine machine;
      LinearRun run(machine, data, RowsOf(12));
      ASSERT_EQ(run.Run({.is_gemm = is_gemm, .rows = is_count ? 9 : 12, .rows_max = is_count ? 12 : 9}), "");
      for (int32_t row = 0; row < 12; ++row)
        for (const float y : run.Row(row)) EXPECT_EQ(std::isnan(y), row >= 9) << "row " << row;
    }
}

TEST(CudaLinearTest, AWeightIsPackedInTilesWithZerosAround) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const int32_t out = 37, in = 75;
    std::vector<float> values(static_cast<size_t>(out * in));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 251 + 1);  // exact in both
    const std::vector<uint16_t> packed = Packed(values, out, in, dtype);
    ASSERT_EQ(packed.size(), 48u * 96);
    for (int32_t o = 0; o < 48; ++o)
      for (int32_t k = 0; k < 96; ++k) {
        const int64_t at = ((o / 16 * 3 + k / 32) * 16 + o % 16) * 32 + k % 32;
        const float wanted = o < out && k < in ? values[static_cast<size_t>(o * in + k)] : 0;
        ASSERT_EQ(LoadAsFloat(packed.data(), dtype, at), wanted) << o << ", " << k;
      }
  }
}

TEST(CudaLinearTest, TilesAreSharedOutSoThatTheBusiestMultiprocessorReadsLeast) {
  const auto tiles = [](std::vector<int32_t> outs, int32_t rows) {
    linear::Params params{};
    for (const int32_t out : outs) params.products[params.product_count++].out = out;
    return StreamTilesEach(params, rows, 132);
  };
  EXPECT_EQ(tiles({64}, 1), 1);
  EXPECT_EQ(tiles({4096}, 8), 2);           // one turn of 5 pieces; by single tiles two of 3
  EXPECT_EQ(tiles({14336, 14336}, 1), 2);   // 7 turns of 5; else 14 of 3, 5 of 7, 4 of 9
  EXPECT_EQ(tiles({14336, 14336}, 32), 4);  // 4 turns of 12; else 14 of 6, 7 of 8, 5 of 10
}

}  // namespace
}  // namespace openlora
