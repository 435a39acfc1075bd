#include "bench/ops_bench.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/machine.h"
#include "cases/attention_run.h"
#include "cases/project_run.h"
#include "cases/speed_cases.h"
#include "ops/cpu/cpu_features.h"
#include "ops/reference/reference_ops.h"

namespace openlora::bench {
namespace {

using cases::AttentionCase;
using cases::AttentionData;
using cases::AttentionRun;
using cases::ProjectCase;
using cases::ProjectData;
using cases::ProjectPacked;
using cases::ProjectRun;

constexpr char kFma[] = "f32 fma";
constexpr char kInt8Dot[] = "int8 dot";
constexpr char kBF16Dot[] = "bf16 dot";
constexpr int kRounds = 9;
constexpr int kRoundsQuick = 2;
constexpr double kRoundMs = 40;
constexpr double kRoundMsQuick = 2;
constexpr int kCopiesMax = 64;

// Copies of a case's bytes that together exceed the last-level cache twice.
int CopiesOf(double bytes, const OpOptions& options) {
  if (options.is_quick) return 2;
  const double copies = std::ceil(2 * static_cast<double>(LastLevelCacheBytes()) / bytes) + 1;
  return static_cast<int>(std::min<double>(copies, kCopiesMax));
}

// Rounds of: one look at reading and at the instruction that computes, then the runs one after another for a while.
void Time(const std::vector<std::function<void()>>& runs, const InstructionPeak& peak, LimitProbe& probe,
          const OpOptions& options, OpResult* result) {
  std::vector<double> us, reads, bursts;
  for (const auto& run : runs) {
    if (options.IsCancelled()) return;
    run();
  }
  size_t next = 0;
  for (int round = 0; round < (options.is_quick ? kRoundsQuick : kRounds); ++round) {
    if (options.IsCancelled()) return;
    reads.push_back(probe.ReadGbs());
    bursts.push_back(probe.Gops(peak));
    const double round_begin = NowMs();
    double now = round_begin;
    do {
      const double begin = now;
      runs[next++ % runs.size()]();
      now = NowMs();
      us.push_back((now - begin) * 1e3);
    } while (now - round_begin < (options.is_quick ? kRoundMsQuick : kRoundMs));
  }
  result->samples = us.size();
  result->us = Quantile(us, 0.5);
  result->us_p10 = Quantile(us, 0.1);
  result->us_p90 = Quantile(us, 0.9);
  result->limits = {Quantile(reads, 0.5), peak.name, Quantile(bursts, 0.5)};
}

// The error of a chain of n roundings of random signs is about √n·u of the sum's size, and stays below six times that
// (test/native/ops/ops_under_test.h).
void Compare(const std::vector<float>& actual, const std::vector<float>& expected, double chain, OpResult* result) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (double{actual[i]} - expected[i]) * (double{actual[i]} - expected[i]);
    size += double{expected[i]} * expected[i];
  }
  const double error = actual.size() == expected.size() ? std::sqrt(difference / size) : INFINITY;
  result->error = std::max(result->error, std::isnan(error) ? INFINITY : error);
  result->error_max = 6 * std::sqrt(chain) * 0x1.0p-24;
}

double FlopsOf(const ProjectData& data) {
  const ProjectCase& c = data.shape;
  double flops = 0;
  for (size_t i = 0; i < data.products(); ++i) {
    flops += 2.0 * c.rows * c.in * c.outs[i];
    for (const auto& row : data.assignment)
      for (const cases::RowAdapter& entry : row)
        flops += 2.0 * data.adapters[entry.adapter][ProjectData::SiteOf(i)].rank * (c.in + c.outs[i]);
  }
  return flops;
}

// What products of the format are made of.
const InstructionPeak& PeakOfProducts(WeightFormat format) {
  if (format.is_quantised()) return PeakOf(kInt8Dot);
  return PeakOf(format == WeightFormat::kBF16Dot && HasFastBF16Dot() ? kBF16Dot : kFma);
}

OpResult BenchProject(const ProjectCase& c, Ops& ops, LimitProbe& probe, const OpOptions& options) {
  const ProjectData data(c);
  OpResult result{.op = "project", .what = Describe(c), .flops = FlopsOf(data)};
  std::vector<std::unique_ptr<ProjectPacked>> packed;
  std::vector<std::unique_ptr<ProjectRun>> runs;
  const auto add = [&] {
    packed.push_back(std::make_unique<ProjectPacked>(ops, data));
    runs.push_back(std::make_unique<ProjectRun>(*packed.back(), 0, c.rows));
  };
  add();
  const OpCounters before = ops.counters();
  runs[0]->Run();
  result.bytes = static_cast<double>(ops.counters().weight_bytes_read - before.weight_bytes_read +
                                     ops.counters().lora_bytes_read - before.lora_bytes_read);
  {
    const std::unique_ptr<Ops> reference = CreateReferenceOps();
    const ProjectPacked reference_packed(*reference, data);
    ProjectRun reference_run(reference_packed, 0, c.rows);
    reference_run.Run();
    const double chain = c.in + *std::max_element(c.ranks.begin(), c.ranks.end());
    for (size_t i = 0; i < data.products(); ++i) Compare(runs[0]->Values(i), reference_run.Values(i), chain, &result);
  }
  for (int copy = CopiesOf(result.bytes, options); copy > 1 && !options.IsCancelled(); --copy) add();
  std::vector<std::function<void()>> list;
  list.reserve(runs.size());
  for (const auto& run : runs) list.push_back([&run] { run->Run(); });
  Time(list, PeakOfProducts(c.dtype), probe, options, &result);
  return result;
}

// What the step's rows ask for.
OpResult Expect(const AttentionCase& c) {
  OpResult result{.op = "attention", .what = cases::Describe(c)};
  if (c.sequences.size() > 1)  // all alike
    result.what = std::string(c.name) + ": heads " + std::to_string(c.heads) + "/" + std::to_string(c.kv_heads) +
                  " x " + std::to_string(c.head_dim) + ", " + HeldAs(c) + ", " + std::to_string(c.sequences.size()) +
                  " x " + std::to_string(c.sequences[0].cached) + "+" + std::to_string(c.sequences[0].rows);
  for (const cases::AttentionSequence& s : c.sequences) {
    const auto row_bytes = static_cast<double>(c.head_dim * static_cast<int64_t>(SizeOf(c.dtype)));
    result.bytes += 2.0 * (s.cached + s.rows) * c.kv_heads * row_bytes;
    result.bytes += static_cast<double>(KvScaleBytes(c.dtype, c.kv_heads, s.cached + s.rows));
    const double seen = s.rows * (s.cached + 0.5 * (s.rows + 1));  // pairs of a row and a token
    result.flops += 4.0 * seen * c.heads * c.head_dim;
  }
  return result;
}

OpResult BenchAttention(const AttentionCase& c, Ops& ops, LimitProbe& probe, const OpOptions& options) {
  const AttentionData data(c);
  OpResult result = Expect(c);
  std::vector<std::unique_ptr<AttentionRun>> runs;
  std::vector<std::unique_ptr<AttentionRun::Step>> steps;
  for (int copy = CopiesOf(result.bytes, options); copy > 0 && !options.IsCancelled(); --copy) {
    runs.push_back(std::make_unique<AttentionRun>(ops, data));
    runs.back()->Append(runs.back()->AllTokens());
    steps.push_back(std::make_unique<AttentionRun::Step>(*runs.back(), runs.back()->StepRows()));
  }
  if (options.IsCancelled()) return result;
  steps[0]->Run();
  const std::unique_ptr<Ops> reference = CreateReferenceOps();
  AttentionRun reference_run(*reference, data);
  reference_run.Append(reference_run.AllTokens());
  AttentionRun::Step reference_step(reference_run, reference_run.StepRows());
  reference_step.Run();
  Compare(steps[0]->Values(), reference_step.Values(), c.head_dim + c.sequences[0].cached + c.sequences[0].rows,
          &result);
  // Dots round each weight, by 2^-8 at most and of random sign, and so a mean of values of random signs.
  if (c.has_bf16_dots) result.error_max += 0x1p-8;
  std::vector<std::function<void()>> list;
  list.reserve(steps.size());
  for (const auto& step : steps) list.push_back([&step] { step->Run(); });
  Time(list, c.has_bf16_dots ? PeakOfProducts(WeightFormat::kBF16Dot) : PeakOf(kFma), probe, options, &result);
  return result;
}

// Quick: the first of each kind, none with more weights than it takes a moment to make.
class Chooser {
 public:
  explicit Chooser(const OpOptions& options) : options_(options) {}
  bool Takes(const std::string& what, const std::string& kind, double size) {
    if (what.find(options_.filter) == std::string::npos) return false;
    return !options_.is_quick || (size < 2e7 && kinds_.insert(kind).second);
  }

 private:
  const OpOptions& options_;
  std::set<std::string> kinds_;
};

}  // namespace

double OpResult::OfLimit() const { return std::max(bytes / limits.read_gbs, flops / limits.peak_gops) * 1e-3 / us; }

void BenchOps(Ops& ops, LimitProbe& probe, const OpOptions& options, const std::function<void(const OpResult&)>& done) {
  Chooser chooser(options);
  const auto report = [&](const OpResult& result) {
    if (!options.IsCancelled()) done(result);
  };
  for (const ProjectCase& c : cases::ProjectSpeedCases()) {
    if (options.IsCancelled()) return;
    const double weights = double{1} * c.in * (c.outs[0] + c.outs[1] + c.outs[2]);
    if (chooser.Takes(Describe(c), c.name + std::string(NameOf(c.mix)), weights))
      report(BenchProject(c, ops, probe, options));
  }
  for (const AttentionCase& c : cases::AttentionSpeedCases()) {
    if (options.IsCancelled()) return;
    if (chooser.Takes(cases::Describe(c), c.name, 0)) report(BenchAttention(c, ops, probe, options));
  }
}

}  // namespace openlora::bench
