#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "cases/project_run.h"
#include "native/ops/ops_under_test.h"
#include "native/test_size.h"

namespace openlora {
namespace {

using cases::ProjectCase;
using cases::ProjectData;
using cases::ProjectPacked;
using cases::ProjectRun;
using cases::SiteValues;

std::vector<ProjectCase> Smaller(const std::vector<ProjectCase>& list) {
  return OneOfEachKind(
      list, [](const ProjectCase& c) { return std::tuple(std::string(c.name), c.dtype.kind, c.mix, c.adapter_dtype); });
}

std::vector<ProjectCase> ProjectCases() { return IsSmall() ? Smaller(cases::ProjectCases()) : cases::ProjectCases(); }

std::vector<ProjectCase> EmbedCases() { return IsSmall() ? Smaller(cases::EmbedCases()) : cases::EmbedCases(); }

TEST(ProjectCases, TheSmallListHoldsEveryMixWithEveryDType) {
  std::set<std::pair<cases::AdapterMix, DType>> all, small;
  for (const ProjectCase& c : cases::ProjectCases()) all.insert({c.mix, c.adapter_dtype});
  for (const ProjectCase& c : Smaller(cases::ProjectCases())) small.insert({c.mix, c.adapter_dtype});
  EXPECT_EQ(small, all);
  EXPECT_LE(Smaller(cases::ProjectCases()).size(), cases::ProjectCases().size() / 5);
}

// Adds the largest error of the adapters' part of a row, in u: Σ_a |w·scale|·‖x‖·‖A‖·‖B_o‖ · (chain over in + chain
// over R + adds). An Embed's x is one-hot: ‖x‖·‖A‖ is the norm of A's column, and there is no chain over in. In int8,
// whose values are what the tiles hold exactly, h·scale is one rounding more, and a group's sum, times its scale, two.
void AddLoraTolerance(const ProjectData& data, size_t product, int32_t row, double* tolerance) {
  const ProjectCase& c = data.shape;
  const double adds = static_cast<double>(data.assignment[row].size()) + 4 + (c.adapter_dtype == DType::kI8 ? 3 : 0);
  for (const cases::RowAdapter& entry : data.assignment[row]) {
    const SiteValues& site = data.adapters[entry.adapter][ProjectData::SiteOf(product)];
    if (site.rank == 0) continue;
    const double xa = c.is_embed
                          ? Norm(&site.a[data.tokens[row]], site.rank, c.in)
                          : Norm(&data.x[int64_t{row} * c.in], c.in) * Norm(site.a.data(), site.rank * int64_t{c.in});
    const double chains = (c.is_embed ? 0 : ChainError(c.in)) + ChainError(site.rank) + adds;
    for (int64_t o = 0; o < c.outs[product]; ++o)
      tolerance[o] += std::abs(entry.weight * site.scale) * xa * Norm(&site.b[o * site.rank], site.rank) * chains;
  }
}

// u · ((chain over in + adds) · (‖x‖·‖w_o‖ + |bias| + |what was there|) + the adapters' part).
std::vector<double> Tolerances(const ProjectData& data, size_t product) {
  const ProjectCase& c = data.shape;
  const int64_t out = c.outs[product];
  const std::vector<float>& weights = data.weights[product];
  std::vector<double> tolerance(c.rows * out), weight_norms(out);
  if (!c.is_embed)
    for (int64_t o = 0; o < out; ++o) weight_norms[o] = Norm(&weights[o * c.in], c.in);
  for (int32_t row = 0; row < c.rows; ++row) {
    double* of_row = &tolerance[row * out];
    AddLoraTolerance(data, product, row, of_row);
    const double adds = static_cast<double>(data.assignment[row].size()) + 4;
    const double x_norm = c.is_embed ? 1 : Norm(&data.x[int64_t{row} * c.in], c.in);
    for (int64_t o = 0; o < out; ++o) {
      double base = c.is_embed ? std::abs(weights[data.tokens[row] * out + o]) : x_norm * weight_norms[o];
      if (c.has_bias) base += std::abs(data.biases[product][o]);
      if (c.accumulates) base += std::abs(data.initial[product][row * out + o]);
      of_row[o] += ((c.is_embed ? 0 : ChainError(c.in)) + adds) * base;
      of_row[o] *= kUnitRoundoff * (c.is_embed ? cases::kEmbedScale : 1);
    }
  }
  return tolerance;
}

std::vector<std::vector<float>> OutputsOf(const ProjectPacked& packed, int32_t row_begin, int32_t row_end) {
  ProjectRun run(packed, row_begin, row_end);
  run.Run();
  EXPECT_TRUE(run.IsIntact()) << packed.ops().name() << " wrote beside its outputs";
  std::vector<std::vector<float>> outputs;
  for (size_t i = 0; i < packed.data().products(); ++i) outputs.push_back(run.Values(i));
  return outputs;
}

std::vector<std::vector<float>> OutputsOf(Ops& ops, const ProjectData& data) {
  const ProjectPacked packed(ops, data);
  auto outputs = OutputsOf(packed, 0, data.shape.rows);
  EXPECT_TRUE(packed.IsIntact()) << ops.name() << " wrote beside its packed forms";
  return outputs;
}

void CompareWithReference(const std::vector<ProjectCase>& list) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  for (const ProjectCase& c : list) {
    SCOPED_TRACE(Describe(c));
    const ProjectData data(c);
    const auto expected = OutputsOf(*reference, data);
    std::vector<std::vector<double>> tolerances;
    for (size_t i = 0; i < data.products(); ++i) tolerances.push_back(Tolerances(data, i));
    std::vector<std::vector<float>> first;
    for (Ops* ops : AllCpuOps()) {
      SCOPED_TRACE(ops->name());
      const auto actual = OutputsOf(*ops, data);
      if (first.empty()) first = actual;
      for (size_t i = 0; i < data.products(); ++i) {
        EXPECT_TRUE(AreNear(actual[i], expected[i], tolerances[i])) << "product " << i;
        EXPECT_TRUE(AreSameBits(actual[i], first[i])) << "product " << i;
      }
      if (testing::Test::HasFailure()) return;
    }
  }
}

// Pieces of the rows against all of them: `piece` at a time.
void CompareRowSplits(const std::vector<ProjectCase>& list) {
  for (const ProjectCase& c : list) {
    SCOPED_TRACE(Describe(c));
    const ProjectData data(c);
    for (const SimdLevel level : AvailableSimdLevels()) {
      Ops& ops = CpuOpsFor(level, 1);
      SCOPED_TRACE(ops.name());
      const ProjectPacked packed(ops, data);
      const auto whole = OutputsOf(packed, 0, c.rows);
      for (const int32_t piece : {1, 5, 9, 17}) {
        if (piece >= c.rows || (piece > 1 && level != AvailableSimdLevels().back())) continue;
        for (int32_t begin = 0; begin < c.rows; begin += piece) {
          const auto part = OutputsOf(packed, begin, std::min(c.rows, begin + piece));
          for (size_t i = 0; i < data.products(); ++i)
            EXPECT_TRUE(AreSameBits(part[i], whole[i], static_cast<size_t>(begin) * c.outs[i])) << piece << " rows";
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
}

TEST(Project, IsWithinRoundingOfTheReferenceAndTheSameBitsOnEveryLevelAndThreadCount) {
  CompareWithReference(ProjectCases());
}

TEST(Project, GivesARowTheSameBitsAloneAndInAnyBatch) { CompareRowSplits(ProjectCases()); }

TEST(Embed, IsWithinRoundingOfTheReferenceAndTheSameBitsOnEveryLevelAndThreadCount) {
  CompareWithReference(EmbedCases());
}

TEST(Embed, GivesARowTheSameBitsAloneAndInAnyBatch) { CompareRowSplits(EmbedCases()); }

TEST(Project, GivesTheSameBitsWhenRunAgainAndFromAnotherPlaceInThePool) {
  for (const ProjectCase& c : ProjectCases()) {
    if (c.mix == cases::AdapterMix::kNone || c.accumulates) continue;
    SCOPED_TRACE(Describe(c));
    const ProjectData data(c);
    ProjectData moved(c);
    moved.shape.seed += 1000;  // of the slots and the places of the tiles
    Ops& ops = CpuOpsFor(SimdLevel::kAuto, 1);
    const ProjectPacked packed(ops, data), packed_elsewhere(ops, moved);
    ProjectRun run(packed, 0, c.rows), other(packed_elsewhere, 0, c.rows);
    run.Run();
    other.Run();
    for (size_t i = 0; i < data.products(); ++i) {
      const std::vector<float> values = run.Values(i);
      EXPECT_TRUE(AreSameBits(other.Values(i), values));
      run.Run();
      EXPECT_TRUE(AreSameBits(run.Values(i), values));
    }
  }
}

// What one run adds to the counters.
OpCounters CountersOf(Ops& ops, ProjectRun& run) {
  const OpCounters before = ops.counters();
  run.Run();
  const OpCounters after = ops.counters();
  return {after.weight_bytes_read - before.weight_bytes_read, after.lora_bytes_read - before.lora_bytes_read,
          after.lora_ops - before.lora_ops, after.page_table_reads - before.page_table_reads};
}

TEST(Project, CountsTheWeightsOnceAndEachAdaptersTilesOncePerSegment) {
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  std::vector<Ops*> all = AllCpuOps();
  all.push_back(reference.get());
  for (const ProjectCase& c : ProjectCases()) {
    SCOPED_TRACE(Describe(c));
    const ProjectData data(c);
    for (Ops* ops : all) {
      SCOPED_TRACE(ops->name());
      const ProjectPacked packed(*ops, data);
      ProjectRun run(packed, 0, c.rows);
      uint64_t bytes = 0, pairs = 0;
      const EntriesView& entries = run.entries();
      for (int32_t s = 0; s < entries.segments; ++s)
        for (size_t i = 0; i < data.products(); ++i) {
          const int32_t slot = entries.segment_slot[s];
          int32_t adapter = 0;
          while (packed.pool().SlotOf(adapter) != slot) ++adapter;
          bytes += static_cast<uint64_t>(packed.pool().BytesOf(adapter, ProjectData::SiteOf(i)));
          pairs += data.adapters[adapter][ProjectData::SiteOf(i)].rank > 0 ? 1 : 0;
        }
      const OpCounters counters = CountersOf(*ops, run);
      EXPECT_EQ(counters.weight_bytes_read, static_cast<uint64_t>(packed.WeightBytes()));
      EXPECT_EQ(counters.lora_bytes_read, bytes);
      EXPECT_EQ(counters.lora_ops, pairs);
      EXPECT_EQ(counters.page_table_reads, entries.segments * data.products());
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(Project, DoesNoLoraWorkForABatchOfTheBaseAlone) {
  for (const bool is_embed : {false, true}) {
    const ProjectData data({.name = "base", .rows = 9, .in = 100, .outs = {50}, .is_embed = is_embed});
    for (Ops* ops : AllCpuOps()) {
      const ProjectPacked packed(*ops, data);
      ProjectRun run(packed, 0, data.shape.rows);
      const OpCounters counters = CountersOf(*ops, run);
      EXPECT_GT(counters.weight_bytes_read, 0u);
      EXPECT_EQ(counters.lora_bytes_read, 0u);
      EXPECT_EQ(counters.lora_ops, 0u);
      EXPECT_EQ(counters.page_table_reads, 0u);
    }
  }
}

TEST(Project, LeavesRowsOfTheBaseAloneUntouchedByTheirNeighboursAdapters) {
  ProjectCase c{.name = "base rows",
                .rows = 30,
                .in = 200,
                .outs = {96, 40},
                .mix = cases::AdapterMix::kSkewed,
                .ranks = {16, 5},
                .has_bias = true};
  const ProjectData mixed(c);
  ProjectData base(c);
  base.shape.mix = cases::AdapterMix::kNone;
  Ops& ops = CpuOpsFor(SimdLevel::kAuto, 1);
  const auto with = OutputsOf(ops, mixed), without = OutputsOf(ops, base);
  int32_t base_rows = 0;
  for (int32_t row = 0; row < c.rows; ++row) {
    if (!mixed.assignment[row].empty()) continue;
    ++base_rows;
    for (size_t i = 0; i < mixed.products(); ++i) {
      const auto begin = with[i].begin() + int64_t{row} * c.outs[i];
      EXPECT_TRUE(AreSameBits({begin, begin + c.outs[i]}, without[i], static_cast<size_t>(row) * c.outs[i]));
    }
  }
  EXPECT_GE(base_rows, 5);
}

}  // namespace
}  // namespace openlora
