// Shrink and expand of kernels/lora.cuh on the simulator, over the mixes, ranks and tile widths of the shared case
// list.

#include "kernels/lora.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cases/project_run.h"
#include "cuda/sim_lora.h"
#include "kernels/plain_bgmv.h"
#include "native/ops/ops_under_test.h"

namespace openlora {
namespace {

using cases::ProjectCase;
using cases::ProjectData;

constexpr int kBlocks = 3;  // fewer than there are items: each block takes several

bool IsKernelDType(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16; }

// Of the shared list, those whose adapters are bf16 or f16, and more columns than one part of a shrink has.
std::vector<ProjectCase> LoraCases() {
  std::vector<ProjectCase> list;
  for (const ProjectCase& c : cases::ProjectCases())
    if (c.mix != cases::AdapterMix::kNone && IsKernelDType(c.adapter_dtype) && c.adapters_per_row == 1)
      list.push_back(c);
  for (const int32_t in : {2048, 2080, 4100})
    list.push_back({.name = "parts",
                    .rows = 11,
                    .in = in,
                    .outs = {300, 8, 257},
                    .mix = cases::AdapterMix::kSkewed,
                    .ranks = {16, 3, 24},
                    .adapter_dtype = DType::kBF16,
                    .tile_columns = 512,
                    .seed = 30});
  return list;
}

// Rows of a case on a machine.
class LoraRun {
 public:
  LoraRun(TestMachine& machine, const ProjectData& data, const std::vector<int32_t>& rows)
      : machine_(machine),
        data_(data),
        pool_(machine, data.sites, data.adapters, data.shape.adapter_dtype, data.shape.tile_columns,
              data.shape.seed + 1),
        entries_(machine, pool_, data.assignment, rows) {
    const int32_t in = data.shape.in;
    x_stride_ = (in + 7) / 8 * 8;
    x_.assign(rows.size() * static_cast<size_t>(x_stride_), 0xffff);  // NaN beyond the end of a row
    for (size_t i = 0; i < rows.size(); ++i)
      for (int32_t c = 0; c < in; ++c)
        StoreFromFloat(x_.data(), data.shape.adapter_dtype, static_cast<int64_t>(i) * x_stride_ + c,
                       data.x[static_cast<size_t>(rows[i]) * static_cast<size_t>(in) + static_cast<size_t>(c)]);
    for (size_t p = 0; p < data.products(); ++p) {
      const auto out = static_cast<size_t>(data.shape.outs[p]);
      ys_.push_back(std::make_unique<SimBuffer<float>>(machine, "y", rows.size() * out));
      for (size_t i = 0; i < rows.size(); ++i)
        std::memcpy(ys_[p]->data() + i * out, &data.initial[p][static_cast<size_t>(rows[i]) * out],
                    out * sizeof(float));
    }
  }

  // Or by the kernel of bench/gpu that those of lora.cuh are compared with.
  std::string Run(bool is_plain = false) {
    const SimBuffer<uint16_t> x(machine_, "x", x_);
    const auto parts = static_cast<size_t>((data_.shape.in + lora::kPart - 1) / lora::kPart);
    const SimBuffer<float> h(machine_, "h", data_.products() * entries_.rows().size() * parts * lora::kRankMax);
    lora::Params params{};
    params.x = x.data();
    params.x_stride = x_stride_;
    params.in = data_.shape.in;
    params.product_count = static_cast<int32_t>(data_.products());
    params.h = h.data();
    entries_.SetIn(pool_, &params);
    for (size_t p = 0; p < data_.products(); ++p)
      params.products[p] = {ProjectData::SiteOf(p), data_.shape.outs[p], data_.shape.outs[p], ys_[p]->data()};
    if (is_plain) {
      dev::Launch(plain_bgmv::Run, {kBlocks, plain_bgmv::kThreads, plain_bgmv::kSharedBytes}, {&machine_, 0}, params);
      machine_.SynchronizeStream(0);
      return machine_.violation();
    }
    const bool is_f16 = data_.shape.adapter_dtype == DType::kF16;
    dev::Launch(is_f16 ? lora::ShrinkF16 : lora::ShrinkBF16, {kBlocks, lora::kThreads, lora::kShrinkSharedBytes},
                {&machine_, 0}, params);
    dev::Launch(is_f16 ? lora::ExpandF16 : lora::ExpandBF16, {kBlocks, lora::kThreads, lora::kExpandSharedBytes},
                {&machine_, 0}, params);
    machine_.SynchronizeStream(0);
    return machine_.violation();
  }

  const float* Y(size_t product) const { return ys_[product]->data(); }

 private:
  TestMachine& machine_;
  const ProjectData& data_;
  SimLoraPool pool_;
  SimEntries entries_;
  int64_t x_stride_ = 0;
  std::vector<uint16_t> x_;
  std::vector<std::unique_ptr<SimBuffer<float>>> ys_;
};

ProjectData DataOf(const ProjectCase& c) {
  ProjectData data(c);
  for (float& value : data.x) value = cases::Rounded(value, c.adapter_dtype);
  return data;
}

// y and how far from it a row of a product may be, in double. Errors: of h = x·a_r, a chain of f32 sums,
// u·chain·‖x‖·‖a_r‖; its product with scale and weight, 2u, and its rounding to bf16, 2⁻⁸, or to f16, 2⁻¹¹ or, below
// 2⁻¹⁴, 2⁻²⁵; of the sum over ranks another chain; of y one.
struct Wanted {
  std::vector<double> y, tolerance;
};
Wanted WantedOf(const ProjectData& data, size_t product, int32_t row) {
  const int32_t in = data.shape.in, out = data.shape.outs[product];
  Wanted wanted{std::vector<double>(static_cast<size_t>(out)), std::vector<double>(static_cast<size_t>(out))};
  const float* const x = &data.x[static_cast<size_t>(row) * static_cast<size_t>(in)];
  const bool is_f16 = data.shape.adapter_dtype == DType::kF16;
  const double rounding = is_f16 ? 0x1p-11 : 0x1p-8, denormal = is_f16 ? 0x1p-25 : 0;
  for (int32_t o = 0; o < out; ++o)
    wanted.y[static_cast<size_t>(o)] = data.initial[product][static_cast<size_t>(row * out + o)];
  for (const cases::RowAdapter& entry : data.assignment[static_cast<size_t>(row)]) {
    const cases::SiteValues& site =
        data.adapters[static_cast<size_t>(entry.adapter)][static_cast<size_t>(ProjectData::SiteOf(product))];
    for (int32_t r = 0; r < site.rank; ++r) {
      const float* const a = &site.a[static_cast<size_t>(r) * static_cast<size_t>(in)];
      double h = 0;
      for (int32_t c = 0; c < in; ++c) h += double{x[c]} * a[c];
      const double factor = double{site.scale} * entry.weight;
      const double error = kUnitRoundoff * ChainError(in) * Norm(x, in) * Norm(a, in) +
                           std::abs(h) * (rounding + kUnitRoundoff * (2 + ChainError(site.rank)));
      for (int32_t o = 0; o < out; ++o) {
        const double b = site.b[static_cast<size_t>(o * site.rank + r)];
        wanted.y[static_cast<size_t>(o)] += h * b * factor;
        wanted.tolerance[static_cast<size_t>(o)] += std::abs(b) * (std::abs(factor) * error + denormal);
      }
    }
  }
  for (int32_t o = 0; o < out; ++o)
    wanted.tolerance[static_cast<size_t>(o)] +=
        kUnitRoundoff * (std::abs(wanted.y[static_cast<size_t>(o)]) +
                         std::abs(double{data.initial[product][static_cast<size_t>(row * out + o)]}));
  return wanted;
}

std::vector<int32_t> AllRows(const ProjectData& data) {
  std::vector<int32_t> rows(static_cast<size_t>(data.shape.rows));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// Every output of a run of all rows.
void CheckAll(const ProjectCase& c, const ProjectData& data, const LoraRun& run) {
  for (size_t p = 0; p < data.products(); ++p)
    for (int32_t row = 0; row < c.rows; ++row) {
      const Wanted wanted = WantedOf(data, p, row);
      for (int32_t o = 0; o < c.outs[p]; ++o)
        ASSERT_NEAR(run.Y(p)[row * c.outs[p] + o], wanted.y[static_cast<size_t>(o)],
                    wanted.tolerance[static_cast<size_t>(o)])
            << cases::Describe(c) << " product " << p << " row " << row << " output " << o;
    }
}

TEST(CudaLoraTest, EveryMixRankAndTileWidthIsTheReferenceInEveryOrder) {
  for (const ProjectCase& c : LoraCases()) {
    const ProjectData data = DataOf(c);
    std::vector<float> first;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      TestMachine machine({.seed = seed});
      LoraRun run(machine, data, AllRows(data));
      ASSERT_EQ(run.Run(), "") << cases::Describe(c);
      std::vector<float> all;
      for (size_t p = 0; p < data.products(); ++p) all.insert(all.end(), run.Y(p), run.Y(p) + c.rows * c.outs[p]);
      if (seed > 1) {
        EXPECT_EQ(all, first) << cases::Describe(c) << " seed " << seed;
        continue;
      }
      first = all;
      CheckAll(c, data, run);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaLoraTest, ARowsBitsAreThoseThatItGetsAlone) {
  for (const ProjectCase& c : LoraCases()) {
    if (c.rows > 21) continue;
    const ProjectData data = DataOf(c);
    TestMachine machine;
    LoraRun together(machine, data, AllRows(data));
    ASSERT_EQ(together.Run(), "") << cases::Describe(c);
    for (int32_t row = 0; row < c.rows; row += 3) {
      TestMachine other({.seed = static_cast<uint64_t>(row) + 2});
      LoraRun alone(other, data, {row});
      ASSERT_EQ(alone.Run(), "") << cases::Describe(c);
      for (size_t p = 0; p < data.products(); ++p)
        for (int32_t o = 0; o < c.outs[p]; ++o)
          ASSERT_EQ(alone.Y(p)[o], together.Y(p)[row * c.outs[p] + o]) << cases::Describe(c) << " row " << row;
    }
  }
}

TEST(CudaLoraTest, EveryRankIsExact) {
  for (int32_t rank = 1; rank <= lora::kRankMax; rank += rank < 34 ? 1 : 37) {
    const ProjectCase c{.name = "rank",
                        .rows = 3,
                        .in = 90,
                        .outs = {40},
                        .mix = cases::AdapterMix::kUniform,
                        .ranks = {rank},
                        .adapter_dtype = DType::kBF16,
                        .tile_columns = 128,
                        .seed = 40};
    const ProjectData data = DataOf(c);
    TestMachine machine({.seed = static_cast<uint64_t>(rank)});
    LoraRun run(machine, data, AllRows(data));
    ASSERT_EQ(run.Run(), "") << "rank " << rank;
    for (int32_t row = 0; row < c.rows; ++row) {
      const Wanted wanted = WantedOf(data, 0, row);
      for (int32_t o = 0; o < 40; ++o)
        ASSERT_NEAR(run.Y(0)[row * 40 + o], wanted.y[static_cast<size_t>(o)], wanted.tolerance[static_cast<size_t>(o)])
            << "rank " << rank;
    }
  }
}

TEST(CudaLoraTest, ThePlainKernelOfTheBenchComputesTheSame) {
  for (const ProjectCase& c : LoraCases()) {
    if (c.adapter_dtype != DType::kBF16) continue;
    const ProjectData data = DataOf(c);
    TestMachine machine({.seed = 5});
    LoraRun run(machine, data, AllRows(data));
    ASSERT_EQ(run.Run(true), "") << cases::Describe(c);
    CheckAll(c, data, run);
    if (HasFatalFailure()) return;
  }
}

TEST(CudaLoraTest, ABatchWithoutAdaptersTouchesNothing) {
  const ProjectCase c{.name = "none", .rows = 4, .in = 64, .outs = {32}, .adapter_dtype = DType::kBF16, .seed = 1};
  const ProjectData data = DataOf(c);
  TestMachine machine;
  LoraRun run(machine, data, AllRows(data));
  ASSERT_EQ(run.Run(), "");
  EXPECT_EQ(std::vector<float>(run.Y(0), run.Y(0) + 4 * 32), data.initial[0]);
  if (kIsSimulated) {  // the count of segments
    EXPECT_LE(machine.counts().accesses, uint64_t{2} * kBlocks * lora::kThreads);
    EXPECT_EQ(machine.counts().async_copies, 0u);
  }
}

}  // namespace
}  // namespace openlora
