// kernels/embed.cuh on the simulator: the base's rows exactly, the adapters' part with lora::Expand behind it.

#include "kernels/embed.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cases/project_run.h"
#include "cuda/sim_lora.h"
#include "native/ops/ops_under_test.h"
#include "ops/weight_packing.h"

namespace openlora {
namespace {

using cases::ProjectCase;
using cases::ProjectData;

// An embedding's V and H, and how far apart rows of out are.
struct TableShape {
  int32_t vocab;
  int32_t hidden;
  int64_t stride;
};

// Rows `tokens` of a table, on a grid.
std::vector<float> Gathered(TestMachine& machine, DType dtype, const TableShape& shape,
                            const std::vector<float>& values, const std::vector<int32_t>& tokens, int blocks) {
  std::vector<uint16_t> packed(static_cast<size_t>(CudaWeightElements(shape.vocab, shape.hidden)));
  PackCudaWeight(values.data(), shape.vocab, shape.hidden, 0, dtype, packed.data());
  const auto count = static_cast<int32_t>(tokens.size());
  const SimBuffer<int32_t> rows(machine, "rows", std::vector<int32_t>{count}), row_token(machine, "tokens", tokens);
  const SimBuffer<uint16_t> table(machine, "table", packed);
  const SimBuffer<float> out(machine, "out",
                             count == 0 ? 0 : static_cast<size_t>((count - 1) * shape.stride + shape.hidden));
  EXPECT_EQ(RunKernel(machine, dtype == DType::kF16 ? embed::GatherF16 : embed::GatherBF16, {blocks, embed::kThreads},
                      {rows.data(), row_token.data(), shape.hidden, cases::kEmbedScale, table.data(), out.data(),
                       shape.stride}),
            "");
  std::vector<float> gathered;
  for (int64_t row = 0; row < count; ++row) {
    const float* const from = out.data() + row * shape.stride;
    gathered.insert(gathered.end(), from, from + shape.hidden);
    for (int64_t c = shape.hidden; c < shape.stride && row + 1 < count; ++c) EXPECT_TRUE(std::isnan(from[c]));
  }
  return gathered;
}

TEST(CudaEmbedTest, RowsOfTheTableAreScaledExactly) {
  for (const TableShape& shape :
       {TableShape{40, 64, 64}, {17, 33, 33}, {100, 1100, 1104}, {16, 32, 35}, {3, 2, 4}, {33, 2052, 2052}})
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      SCOPED_TRACE(std::to_string(shape.vocab) + " x " + std::to_string(shape.hidden) + " " + NameOf(dtype));
      cases::Random random(1);
      const std::vector<float> values = cases::RandomValues(random, int64_t{shape.vocab} * shape.hidden, dtype);
      std::vector<int32_t> tokens = {0, shape.vocab - 1, shape.vocab - 1};
      for (int i = 0; i < 4; ++i) tokens.push_back(random.Below(shape.vocab));
      std::vector<float> wanted;
      for (const int32_t token : tokens)
        for (int32_t c = 0; c < shape.hidden; ++c)
          wanted.push_back(cases::kEmbedScale * values[static_cast<size_t>(token * shape.hidden + c)]);
      for (uint64_t seed = 1; seed <= 4; ++seed) {
        TestMachine machine({.seed = seed});
        EXPECT_EQ(Gathered(machine, dtype, shape, values, tokens, static_cast<int>(2 * seed - 1)), wanted);
        EXPECT_TRUE(Gathered(machine, dtype, shape, values, {}, 2).empty());
      }
    }
}

// Four columns at once: the load and the store; each thread reads the row count, and in each item the token.
TEST(CudaEmbedTest, AlignedRowsMoveFourColumnsAtATime) {
  TestMachine machine;
  const TableShape shape = {16, 1024, 1024};
  Gathered(machine, DType::kBF16, shape, std::vector<float>(16 * 1024, 1.5f), {3, 7}, 1);
  if (kIsSimulated) {
    EXPECT_EQ(machine.counts().accesses, 256u + 2 * 256 * 3);
  }
}

// Of the shared list, the Embeds whose adapters are bf16 or f16, and ranks and tile widths for which a run of A has
// several tiles.
std::vector<ProjectCase> EmbedCases() {
  std::vector<ProjectCase> list;
  for (const ProjectCase& c : cases::ProjectCases())
    if (c.is_embed && c.adapters_per_row == 1 && (c.adapter_dtype == DType::kBF16 || c.adapter_dtype == DType::kF16))
      list.push_back(c);
  for (const int32_t tile_columns : {32, 96, 512})
    for (const cases::AdapterMix mix : {cases::AdapterMix::kUniform, cases::AdapterMix::kDistinct})
      list.push_back({.name = "tiles",
                      .rows = mix == cases::AdapterMix::kUniform ? 22 : 13,
                      .in = 700,
                      .outs = {70},
                      .mix = mix,
                      .ranks = {8, 17, 3, 0, 256, 40},
                      .adapter_dtype = tile_columns == 96 ? DType::kF16 : DType::kBF16,
                      .tile_columns = tile_columns,
                      .is_embed = true,
                      .seed = 40});
  return list;
}

// Rows of a case on a machine.
class EmbedRun {
 public:
  EmbedRun(TestMachine& machine, const ProjectData& data, const std::vector<int32_t>& rows)
      : machine_(machine),
        data_(data),
        pool_(machine, data.sites, data.adapters, data.shape.adapter_dtype, data.shape.tile_columns,
              data.shape.seed + 1),
        entries_(machine, pool_, data.assignment, rows),
        y_(machine, "y", rows.size() * static_cast<size_t>(data.shape.outs[0])) {
    for (const int32_t row : rows) row_token_.push_back(data.tokens[static_cast<size_t>(row)]);
    y_.Zero();
  }

  // The h of each entry goes to `h`.
  std::string Run(int blocks) {
    const SimBuffer<int32_t> tokens(machine_, "tokens", row_token_);
    const SimBuffer<float> h(machine_, "h", entries_.rows().size() * lora::kRankMax);
    embed::ShrinkParams params{};
    params.row_token = tokens.data();
    params.scale = cases::kEmbedScale;
    params.lora.in = 1;
    params.lora.product_count = 1;
    params.lora.h = h.data();
    entries_.SetIn(pool_, &params.lora);
    const int32_t hidden = data_.shape.outs[0];
    params.lora.products[0] = {ProjectData::SiteOf(0), hidden, hidden, y_.data()};
    const bool is_f16 = data_.shape.adapter_dtype == DType::kF16;
    dev::Launch(is_f16 ? embed::ShrinkF16 : embed::ShrinkBF16, {blocks, embed::kThreads}, {&machine_, 0}, params);
    dev::Launch(is_f16 ? lora::ExpandF16 : lora::ExpandBF16, {blocks, lora::kThreads, lora::kExpandSharedBytes},
                {&machine_, 0}, params.lora);
    machine_.SynchronizeStream(0);
    h_ = h.values();
    return machine_.violation();
  }

  std::vector<float> y() const { return y_.values(); }

  // h is A's column of the token times the scale, and zero behind the rank as far as Expand reads.
  void ExpectH() const {
    for (size_t e = 0; e < entries_.rows().size(); ++e) {
      const cases::SiteValues& site =
          data_.adapters[static_cast<size_t>(entries_.adapters()[e])][static_cast<size_t>(ProjectData::SiteOf(0))];
      const auto token = static_cast<size_t>(row_token_[static_cast<size_t>(entries_.rows()[e])]);
      for (int32_t r = 0; r < (site.rank + lora::kTileRanks - 1) / lora::kTileRanks * lora::kTileRanks; ++r) {
        const size_t at = static_cast<size_t>(r) * static_cast<size_t>(data_.shape.in) + token;
        ASSERT_EQ(h_[e * lora::kRankMax + static_cast<size_t>(r)], r < site.rank ? site.a[at] * cases::kEmbedScale : 0)
            << "entry " << e << " rank " << r;
      }
    }
  }

 private:
  TestMachine& machine_;
  const ProjectData& data_;
  SimLoraPool pool_;
  SimEntries entries_;
  SimBuffer<float> y_;
  std::vector<int32_t> row_token_;
  std::vector<float> h_;
};

// scale · Σ w·s·B·A[:, token] of a row, in double. h rounds three times in f32, u each, and to bf16, 2⁻⁸, or to f16,
// 2⁻¹¹ or, below 2⁻¹⁴, 2⁻²⁵; the sum over ranks is a chain.
void ExpectDelta(const ProjectData& data, int32_t row, const float* y) {
  const bool is_f16 = data.shape.adapter_dtype == DType::kF16;
  const double rounding = is_f16 ? 0x1p-11 : 0x1p-8, denormal = is_f16 ? 0x1p-25 : 0;
  for (int32_t o = 0; o < data.shape.outs[0]; ++o) {
    double wanted = 0, tolerance = 0;
    for (const cases::RowAdapter& entry : data.assignment[static_cast<size_t>(row)]) {
      const cases::SiteValues& site =
          data.adapters[static_cast<size_t>(entry.adapter)][static_cast<size_t>(ProjectData::SiteOf(0))];
      for (int32_t r = 0; r < site.rank; ++r) {
        const auto at = static_cast<size_t>(r * data.shape.in + data.tokens[static_cast<size_t>(row)]);
        const double b = site.b[static_cast<size_t>(o * site.rank + r)];
        const double product = double{site.a[at]} * b * double{site.scale} * entry.weight * cases::kEmbedScale;
        wanted += product;
        tolerance += std::abs(product) * (rounding + kUnitRoundoff * (3 + site.rank)) + std::abs(b) * denormal;
      }
    }
    ASSERT_NEAR(y[o], wanted, tolerance) << "row " << row << " column " << o;
  }
}

TEST(CudaEmbedTest, AdaptersAddTheirPartInEveryOrderAndAlone) {
  for (const ProjectCase& c : EmbedCases()) {
    SCOPED_TRACE(cases::Describe(c));
    ProjectData data(c);
    if (c.rows == 22)  // where tiles begin
      for (int32_t row = 0; row < c.rows; ++row) data.tokens[static_cast<size_t>(row)] = row * kTileGroup;
    std::vector<int32_t> all(static_cast<size_t>(c.rows));
    std::iota(all.begin(), all.end(), 0);
    std::vector<float> first;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      TestMachine machine({.seed = seed});
      EmbedRun run(machine, data, all);
      ASSERT_EQ(run.Run(static_cast<int>(2 * seed - 1)), "");
      run.ExpectH();
      if (seed == 1) first = run.y();
      ASSERT_EQ(run.y(), first) << "seed " << seed;
    }
    for (int32_t row = 0; row < c.rows; ++row) ExpectDelta(data, row, &first[static_cast<size_t>(row * c.outs[0])]);
    for (int32_t row = 0; row < c.rows; row += 4) {
      TestMachine machine({.seed = 5});
      EmbedRun alone(machine, data, {row});
      ASSERT_EQ(alone.Run(2), "");
      ASSERT_TRUE(AreSameBits(alone.y(), first, static_cast<size_t>(row * c.outs[0]))) << "row " << row;
    }
  }
}

TEST(CudaEmbedTest, NoAdaptersReadNothing) {
  const ProjectData data(
      {.name = "none", .rows = 4, .in = 90, .outs = {64}, .adapter_dtype = DType::kBF16, .is_embed = true});
  TestMachine machine;
  EmbedRun run(machine, data, {0, 1, 2, 3});
  ASSERT_EQ(run.Run(2), "");
  if (kIsSimulated) {  // the count of segments
    EXPECT_EQ(machine.counts().accesses, 2u * embed::kThreads + 2u * lora::kThreads);
  }
}

}  // namespace
}  // namespace openlora
