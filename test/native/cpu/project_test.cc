#include <algorithm>
#include <optional>

#include "native/cpu/cpu_fixture.h"
#include "native/test_size.h"

namespace openlora::cpu_test {
namespace {

constexpr DType kAllDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8};
constexpr WeightFormat kAllFormats[] = {WeightFormat::kF32,  WeightFormat::kF16,  WeightFormat::kBF16,
                                        WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kBF16Dot};

std::vector<float> ExpectedBase(const Matrix& matrix, const std::vector<float>& x, int64_t rows, const float* bias,
                                const std::vector<float>* before) {
  std::vector<float> y = BaseProducts(matrix, x, rows);
  for (size_t at = 0; at < y.size(); ++at) {
    if (bias != nullptr) y[at] += bias[at % static_cast<size_t>(matrix.weight.out)];
    if (before != nullptr) y[at] = (*before)[at] + y[at];
  }
  return y;
}

void RunShape(int64_t out, int64_t in, WeightFormat dtype, int threads) {
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, threads);
    Matrix matrix(*ops, dtype, out, in, 7);
    const std::vector<float> bias = Values(3, static_cast<size_t>(out));
    const std::vector<int64_t> few = {1, 6, 15}, all = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 21};
    for (const int64_t rows : IsSmall() ? few : all) {
      SCOPED_TRACE(testing::Message() << NameOf(level) << " " << NameOf(dtype) << " [" << out << ", " << in << "] rows "
                                      << rows << " threads " << threads);
      const std::vector<float> x = Values(1, static_cast<size_t>(rows * in));
      for (const bool is_second : {false, true}) {
        std::vector<float> y = Values(2, static_cast<size_t>(rows * out));
        matrix.weight.bias = is_second ? bias.data() : nullptr;
        const std::vector<float> expected = ExpectedBase(matrix, x, rows, matrix.weight.bias, is_second ? &y : nullptr);
        const Product product{&matrix.weight, F32View(y.data(), rows, out), -1, is_second};
        ops->Project({F32View(const_cast<float*>(x.data()), rows, in), {&product, 1}, nullptr, nullptr});
        ASSERT_EQ(y, expected);
      }
    }
  }
}

TEST(CpuProject, AnOutputIsOneChainWhateverLevelRowsThreadsAndShape) {
  const std::vector<std::pair<int, int>> few = {{1, 1}, {45, 129}, {160, 300}},
                                         all = {{32, 64}, {1, 1}, {45, 129}, {160, 300}, {257, 33}, {96, 513}};
  for (const WeightFormat dtype : kAllFormats)
    for (const int threads : {1, 3})
      for (const auto& [out, in] : IsSmall() ? few : all) RunShape(out, in, dtype, threads);
}

TEST(CpuProject, RowsMayHaveAStrideAndOutputsBehindTheirEndStayUntouched) {
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 2);
    Matrix matrix(*ops, DType::kBF16, 45, 70, 7);
    for (const int64_t rows : {3, 12}) {
      std::vector<float> x = Values(1, static_cast<size_t>(rows * 100)), y(static_cast<size_t>(rows * 64), -5.0f);
      const Product product{&matrix.weight, {y.data(), DType::kF32, rows, 45, 64}, -1, false};
      ops->Project({{x.data(), DType::kF32, rows, 70, 100}, {&product, 1}, nullptr, nullptr});
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t o = 0; o < 64; ++o)
          ASSERT_EQ(y[static_cast<size_t>(row * 64 + o)],
                    o < 45 ? Chain(DType::kBF16, &x[static_cast<size_t>(row * 100)],
                                   &matrix.values[static_cast<size_t>(o * 70)], 70, 0)
                           : -5.0f);
    }
  }
}

struct Entry {
  int32_t row;
  float weight;
};
struct Segment {
  int32_t slot;
  std::vector<Entry> entries;
};

struct Batch {
  explicit Batch(const std::vector<Segment>& list) : segments(list) {
    for (const Segment& segment : list) {
      start.push_back(static_cast<int32_t>(row.size()));
      slot.push_back(segment.slot);
      for (const Entry& entry : segment.entries) {
        row.push_back(entry.row);
        weight.push_back(entry.weight);
      }
    }
    start.push_back(static_cast<int32_t>(row.size()));
    view = {static_cast<int32_t>(row.size()),  row.data(),   weight.data(),
            static_cast<int32_t>(slot.size()), start.data(), slot.data()};
  }
  std::vector<Segment> segments;
  std::vector<int32_t> row, start, slot;
  std::vector<float> weight;
  EntriesView view;
};

Site RandomSite(int32_t rank, int64_t in, int64_t out, uint64_t seed) {
  return {rank,
          in,
          out,
          Values(seed, static_cast<size_t>(rank * in)),
          Values(seed + 1, static_cast<size_t>(out * rank)),
          1 + Value(seed + 2, 0)};
}

void AddLora(const Batch& batch, const Adapters& adapters, DType dtype, int site_index, const std::vector<float>& x,
             std::vector<float>* y) {
  for (const Segment& segment : batch.segments) {
    const Site& site = adapters.At(segment.slot, site_index);
    if (site.rank == 0) continue;
    for (const Entry& entry : segment.entries) {
      std::vector<float> h(static_cast<size_t>(site.rank));
      for (int32_t r = 0; r < site.rank; ++r)
        h[static_cast<size_t>(r)] =
            entry.weight * site.scale * ShrinkOne(site, dtype, r, &x[static_cast<size_t>(entry.row * site.in)]);
      for (int64_t o = 0; o < site.out; ++o) {
        float& out = (*y)[static_cast<size_t>(entry.row * site.out + o)];
        out = ExpandOne(site, dtype, h, o, out);
      }
    }
  }
}

void RunLora(DType dtype, int32_t tile_columns, int32_t rank, int64_t in, const std::vector<int64_t>& outs, int threads,
             int64_t rows, std::optional<WeightFormat> quantised = {}) {
  const WeightFormat base = quantised.value_or(dtype);
  std::vector<Segment> segments = {{1, {}}, {0, {}}, {2, {}}};
  for (int32_t row = 0; row < rows; ++row) {
    if (row % 4 != 3)
      segments[static_cast<size_t>(row % 3)].entries.push_back({row, Value(9, static_cast<uint64_t>(row))});
    if (row % 5 == 2 && row % 3 != 2) segments[2].entries.push_back({row, 0.5f});  // two adapters
  }
  const Batch batch(segments);
  const std::vector<float> x = Values(1, static_cast<size_t>(rows * in));
  for (const SimdLevel level : AvailableSimdLevels()) {
    SCOPED_TRACE(testing::Message() << NameOf(level) << " " << NameOf(dtype) << " rank " << rank << " in " << in
                                    << " rows " << rows << " tile_columns " << tile_columns << " threads " << threads);
    const auto ops = MakeOps(level, threads);
    Adapters adapters(dtype, tile_columns);
    for (uint64_t slot = 0; slot < 3; ++slot) {
      std::vector<Site> sites;
      for (size_t p = 0; p < outs.size(); ++p)
        sites.push_back(RandomSite(slot == 1 && p == 1 ? 0
                                   : slot == 2         ? rank + 3
                                                       : rank,
                                   in, outs[p], 100 * slot + 10 * p));
      adapters.Add(*ops, std::move(sites));
    }
    std::vector<std::unique_ptr<Matrix>> matrices;
    std::vector<std::vector<float>> got, expected;
    std::vector<Product> products;
    for (size_t p = 0; p < outs.size(); ++p) {
      matrices.push_back(std::make_unique<Matrix>(*ops, base, outs[p], in, p));
      got.emplace_back(static_cast<size_t>(rows * outs[p]));
      expected.push_back(ExpectedBase(*matrices[p], x, rows, nullptr, nullptr));
      AddLora(batch, adapters, dtype, static_cast<int>(p), x, &expected[p]);
    }
    for (size_t p = 0; p < outs.size(); ++p)
      products.push_back({&matrices[p]->weight, F32View(got[p].data(), rows, outs[p]), static_cast<int32_t>(p), false});
    ops->Project({F32View(const_cast<float*>(x.data()), rows, in), products, &batch.view, &adapters.Pages()});
    for (size_t p = 0; p < outs.size(); ++p) ASSERT_EQ(got[p], expected[p]) << "product " << p;
    const uint64_t lookups = 3 * outs.size();
    EXPECT_EQ(ops->counters().page_table_reads, rows >= 3 ? lookups : ops->counters().page_table_reads);
  }
}

TEST(CpuLora, EqualsTheFixedExpressionForEveryRankDTypeLevelAndThreadCount) {
  const std::vector<int32_t> few = {1, 8, 31}, all = {1, 2, 3, 7, 8, 9, 16, 24, 31, 64};
  for (const DType dtype : kAllDTypes)
    for (const int32_t rank : IsSmall() ? few : all)
      RunLora(dtype, ShrinkChunk(dtype), rank, 700, {96, 45}, 1 + rank % 3, 11);
}

TEST(CpuLora, TheTileWidthDoesNotChangeABit) {
  const std::vector<int32_t> few = {32, 256, 480}, all = {32, 64, 96, 128, 160, 256, 480, 512, 4096};
  for (const DType dtype : kAllDTypes)
    for (const int32_t tile_columns : IsSmall() ? few : all) RunLora(dtype, tile_columns, 5, 1101, {96, 70, 33}, 2, 9);
}

// The eights' tiles end at different outputs, and all eights of an output are computed together. 264: more than go at
// once.
TEST(CpuLora, ManyRowsReadAllRanksOfAnOutputWhereverTheirTilesAreCut) {
  const std::vector<int32_t> few = {32}, all = {32, 96, 480};
  for (const DType dtype : kAllDTypes)
    for (const int32_t tile_columns : IsSmall() ? few : all) {
      RunLora(dtype, tile_columns, 21, 200, {300, 70}, 2, 40);
      RunLora(dtype, tile_columns, 264, 40, {100}, 2, 40);
    }
}

TEST(CpuLora, LongSegmentsAreCutIntoPiecesWithoutChangingABit) {
  for (const int threads : {1, 3}) {
    RunLora(DType::kBF16, 512, 16, 600, {64}, threads, IsSmall() ? 150 : 300);
    RunLora(DType::kI8, 480, 16, 600, {64}, threads, IsSmall() ? 150 : 300);
  }
}

TEST(CpuLora, ReadsXAsItIsBesideABaseWithItsOwnX) {
  for (const WeightFormat base : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kBF16Dot})
    for (int64_t rows = 1; rows <= 20; rows += IsSmall() ? 7 : 1)
      for (const DType dtype : {DType::kBF16, DType::kI8})
        RunLora(dtype, ShrinkChunk(dtype), 9, 300, {96, 70, 33}, 1 + static_cast<int>(rows % 3), rows, base);
}

void ShareX(WeightFormat of_a, WeightFormat of_b, WeightFormat of_c) {
  const int64_t rows = 11, in = 300;
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 3);
    const Matrix a(*ops, of_a, 45, in, 1), b(*ops, of_b, 70, in, 2), c(*ops, of_c, 33, in, 3);
    const std::vector<float> x = Values(4, static_cast<size_t>(rows * in));
    std::vector<float> y[3];
    std::vector<Product> products;
    for (const Matrix* matrix : {&a, &b, &c}) {
      std::vector<float>& of_matrix = y[products.size()];
      of_matrix.resize(static_cast<size_t>(rows * matrix->weight.out));
      products.push_back({&matrix->weight, F32View(of_matrix.data(), rows, matrix->weight.out), -1, false});
    }
    ops->Project({F32View(const_cast<float*>(x.data()), rows, in), products, nullptr, nullptr});
    EXPECT_EQ(y[0], BaseProducts(a, x, rows)) << NameOf(level);
    EXPECT_EQ(y[1], BaseProducts(b, x, rows)) << NameOf(level);
    EXPECT_EQ(y[2], BaseProducts(c, x, rows)) << NameOf(level);
  }
}

TEST(CpuProject, ProductsOfEveryFormatMayShareX) {
  ShareX(WeightFormat::kInt4, DType::kBF16, WeightFormat::kInt8);
  ShareX(WeightFormat::kBF16Dot, WeightFormat::kInt8, DType::kBF16);
}

// For one product, which may gate as it quantises, and for two.
void ExpectGated(WeightFormat format, Activation activation, int64_t rows, int64_t in) {
  const std::vector<float> x = Values(4, static_cast<size_t>(rows * in)), up = Values(5, x.size());
  for (const SimdLevel level : AvailableSimdLevels())
    for (const int threads : {1, 3}) {
      SCOPED_TRACE(testing::Message() << NameOf(format) << " [" << rows << ", " << in << "] " << NameOf(level));
      const auto ops = MakeOps(level, threads);
      const Matrix a(*ops, format, 45, in, 1), b(*ops, format, 300, in, 2);
      for (const bool are_two : {false, true}) {
        std::vector<float> of[2][2];  // [gated by Project][product]
        for (const bool is_one_call : {false, true}) {
          std::vector<float> gate = x, by = up;
          const Gate how{activation, F32View(by.data(), rows, in)};
          const TensorView view = F32View(gate.data(), rows, in);
          std::vector<Product> products;
          for (const Matrix* matrix : {&a, &b}) {
            std::vector<float>& y = of[is_one_call][products.size()];
            y.resize(static_cast<size_t>(rows * matrix->weight.out));
            products.push_back({&matrix->weight, F32View(y.data(), rows, matrix->weight.out), -1, false});
          }
          if (!are_two) products.erase(products.begin());
          if (!is_one_call) ops->GatedActivation(activation, view, how.up);
          ops->Project({view, products, nullptr, nullptr, is_one_call ? &how : nullptr});
          EXPECT_EQ(by, up);
        }
        EXPECT_EQ(of[0][0], of[1][0]);
        EXPECT_EQ(of[0][1], of[1][1]);
      }
    }
}

TEST(CpuProject, GatesXAsGatedActivationDoes) {
  for (const WeightFormat format : kAllFormats) {
    ExpectGated(format, Activation::kSilu, 9, 1300);
    ExpectGated(format, Activation::kGeluTanh, 2, 300);
  }
}

TEST(CpuLora, OneRowAlone) {
  for (const DType dtype : kAllDTypes) RunLora(dtype, ShrinkChunk(dtype), 16, 1030, {300, 40, 40}, 2, 1);
}

TEST(CpuLora, WithoutEntriesNothingIsLookedUp) {
  const auto ops = MakeOps(SimdLevel::kAuto, 2);
  Matrix matrix(*ops, DType::kF32, 64, 64, 1);
  std::vector<float> x(64, 1.0f), y(64);
  const EntriesView none;
  const AdapterPages pages;
  const Product product{&matrix.weight, F32View(y.data(), 1, 64), 0, false};
  ops->Project({F32View(x.data(), 1, 64), {&product, 1}, &none, &pages});
  EXPECT_EQ(ops->counters().page_table_reads, 0u);
  EXPECT_EQ(ops->counters().lora_ops, 0u);
  EXPECT_EQ(ops->counters().lora_bytes_read, 0u);
  EXPECT_EQ(ops->counters().weight_bytes_read, 64u * 64 * 4);
}

TEST(CpuLora, EmbedAddsTheTokensColumn) {
  for (const DType dtype : kAllDTypes)
    for (const SimdLevel level : AvailableSimdLevels()) {
      const auto ops = MakeOps(level, 2);
      const int64_t vocabulary = 75, hidden = 45;
      Matrix table(*ops, dtype == DType::kI8 ? DType::kBF16 : dtype, vocabulary, hidden, 5);
      Adapters adapters(dtype, 32);
      adapters.Add(*ops, {RandomSite(9, vocabulary, hidden, 50)});
      const std::vector<int32_t> tokens = {74, 0, 33, 31};
      const Batch batch({{0, {{0, 0.5f}, {2, -2.0f}, {3, 1.0f}}}});
      std::vector<float> got(4 * hidden), expected;
      for (const int32_t token : tokens)
        for (int64_t i = 0; i < hidden; ++i) expected.push_back(table.values[static_cast<size_t>(token * hidden + i)]);
      const Site& site = adapters.At(0, 0);
      for (const Entry& entry : batch.segments[0].entries) {
        std::vector<float> h;
        for (int32_t r = 0; r < site.rank; ++r)
          h.push_back(entry.weight * site.scale * GatherOne(site, dtype, r, tokens[static_cast<size_t>(entry.row)]));
        for (int64_t i = 0; i < hidden; ++i) {
          float& out = expected[static_cast<size_t>(entry.row * hidden + i)];
          out = ExpandOne(site, dtype, h, i, out);
        }
      }
      for (float& value : expected) value *= 3.0f;
      ops->Embed(
          {tokens.data(), 4, &table.weight, 3.0f, F32View(got.data(), 4, hidden), 0, &batch.view, &adapters.Pages()});
      ASSERT_EQ(got, expected) << NameOf(level) << " " << NameOf(dtype);
    }
}

}  // namespace
}  // namespace openlora::cpu_test
