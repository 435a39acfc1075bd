// openlora_bench limits|ops [--quick] [--json] [--threads N] [--simd LEVEL] [--filter TEXT]: see bench/README.md.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/machine.h"
#include "base/processors.h"
#include "bench/ops_bench.h"
#include "ops/cpu/cpu_ops.h"

namespace openlora::bench {
namespace {

struct Arguments {
  std::string command;
  bool is_json = false;
  int threads = UsableCores();
  SimdLevel simd = SimdLevel::kAuto;
  OpOptions ops;
};

int Usage(const char* wrong) {
  std::fprintf(stderr,
               "openlora_bench: %s\n"
               "openlora_bench limits|ops [--quick] [--json] [--threads N] [--simd LEVEL] [--filter TEXT]\n",
               wrong);
  return 2;
}

bool ParseSimd(const char* name, SimdLevel* level) {
  for (const SimdLevel known : AvailableSimdLevels())
    if (std::strcmp(name, NameOf(known)) == 0) {
      *level = known;
      return true;
    }
  return false;
}

// Null, or what is wrong.
const char* Parse(int count, char** values, Arguments* arguments) {
  if (count < 2) return "which bench?";
  arguments->command = values[1];
  if (arguments->command != "limits" && arguments->command != "ops") return "no such bench";
  for (int i = 2; i < count; ++i) {
    const std::string option = values[i];
    const bool has_value = i + 1 < count;
    if (option == "--quick") {
      arguments->ops.is_quick = true;
    } else if (option == "--json") {
      arguments->is_json = true;
    } else if (option == "--threads" && has_value) {
      arguments->threads = std::atoi(values[++i]);
      if (arguments->threads < 1 || arguments->threads > 1024) return "--threads takes 1 to 1024";
    } else if (option == "--simd" && has_value) {
      if (!ParseSimd(values[++i], &arguments->simd)) return "this machine has no such SIMD level";
    } else if (option == "--filter" && has_value) {
      arguments->ops.filter = values[++i];
    } else {
      return "an option is unknown or lacks its value";
    }
  }
  return nullptr;
}

void PrintJson(const OpResult& r, bool is_first) {
  std::printf(
      "%s\n  {\"op\": \"%s\", \"case\": \"%s\", \"bytes\": %.0f, \"flops\": %.0f, \"usMedian\": %.2f, \"usP90\": %.2f, "
      "\"gbs\": %.2f, \"gflops\": %.2f, \"readGbs\": %.2f, \"peakGops\": %.2f, \"ofLimit\": %.3f, \"error\": %.2e, "
      "\"isRight\": %s}",
      is_first ? "" : ",", r.op.c_str(), r.what.c_str(), r.bytes, r.flops, r.us, r.us_p90, r.Gbs(), r.Gflops(),
      r.limits.read_gbs, r.limits.peak_gops, r.OfLimit(), r.error, r.is_right() ? "true" : "false");
}

void PrintLine(const OpResult& r) {
  std::printf("%9.1f %9.1f %7.1f %7.1f %7.1f %7.1f %6.0f %%  %.0e %s %s %s\n", r.us, r.us_p90, r.Gbs(), r.Gflops(),
              r.limits.read_gbs, r.limits.peak_gops, 100 * r.OfLimit(), r.error, r.is_right() ? " " : "WRONG",
              r.op.c_str(), r.what.c_str());
  std::fflush(stdout);
}

int Main(int count, char** values) {
  Arguments arguments;
  if (const char* wrong = Parse(count, values, &arguments)) return Usage(wrong);
  std::unique_ptr<Ops> ops;
  const Status status = CreateCpuOps(arguments.simd, arguments.threads, &ops);
  if (!status.ok()) return Usage(status.message().c_str());

  std::unique_ptr<LimitProbe> probe;
  const Status probed = LimitProbe::Create(arguments.threads, &probe);
  if (!probed.ok()) return Usage(probed.message().c_str());
  const std::vector<LimitResult> found = MeasureLimits(*probe, arguments.ops.is_quick ? 3 : 15);
  const Limits limits = {found[0].median, found[1].name, found[1].median};
  if (arguments.is_json) {
    std::printf(
        "{\"cpu\": \"%s\", \"threads\": %d, \"ops\": \"%s\", \"cacheBytes\": %zu, \"readGbs\": %.2f, "
        "\"fmaGflops\": %.2f",
        CpuName().c_str(), arguments.threads, ops->name(), LastLevelCacheBytes(), limits.read_gbs, limits.peak_gops);
  } else {
    std::printf("%s, %d threads, %s, last-level cache %zu MiB\n", CpuName().c_str(), arguments.threads, ops->name(),
                LastLevelCacheBytes() >> 20);
    std::printf("reads %.1f GB/s, computes %.1f GFLOP/s in f32\n", limits.read_gbs, limits.peak_gops);
  }
  bool is_right = true, is_first = true;
  if (arguments.command == "ops") {
    if (arguments.is_json) std::printf(", \"results\": [");
    if (!arguments.is_json) std::printf("median us       p90    GB/s GFLOP/s    read    peak  of limit  error\n");
    BenchOps(*ops, *probe, arguments.ops, [&](const OpResult& result) {
      is_right &= result.is_right();
      if (arguments.is_json) PrintJson(result, is_first);
      if (!arguments.is_json) PrintLine(result);
      is_first = false;
    });
    if (arguments.is_json) std::printf("]");
  }
  if (arguments.is_json) std::printf("}\n");
  return is_right ? 0 : 1;
}

}  // namespace
}  // namespace openlora::bench

int main(int count, char** values) { return openlora::bench::Main(count, values); }
