// The tests of the simulator, or runs of it by hand:
//   openlora_sim --seed N [--steps M] [--plant P] [--blind 1]  one run, replayed to its last event
//   openlora_sim --seeds N [--steps M] [--first F]             seeds F to F + N - 1, until one fails
// --plant: a bug by its number in base/plant.h; --blind 1: without EngineCore::CheckInvariants

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sim/simulator.h"

namespace openlora::sim {
namespace {

struct Arguments {
  int64_t seed = -1;
  int64_t seeds = -1;
  int64_t first = 1;
  int64_t steps = 1000;
  int64_t plant = 0;
  int64_t blind = 0;
};

bool Read(int argc, char** argv, Arguments* arguments) {
  for (int i = 1; i < argc; i += 2) {
    int64_t* target = nullptr;
    if (std::strcmp(argv[i], "--seed") == 0) target = &arguments->seed;
    if (std::strcmp(argv[i], "--seeds") == 0) target = &arguments->seeds;
    if (std::strcmp(argv[i], "--first") == 0) target = &arguments->first;
    if (std::strcmp(argv[i], "--steps") == 0) target = &arguments->steps;
    if (std::strcmp(argv[i], "--plant") == 0) target = &arguments->plant;
    if (std::strcmp(argv[i], "--blind") == 0) target = &arguments->blind;
    if (target == nullptr || i + 1 == argc) return false;
    *target = std::strtoll(argv[i + 1], nullptr, 10);
  }
  return (arguments->seed >= 0) != (arguments->seeds >= 0) && arguments->plant >= 0 && arguments->plant < kPlants;
}

void PrintCounts(int64_t seed, const RunResult& result) {
  const RunCounts& counts = result.counts;
  std::printf(
      "seed %lld: %lld steps, %.0f ms; requests %lld, refused %lld, failed %lld, cancelled %lld; tokens %lld, cached "
      "%lld; loads "
      "%lld, evictions %lld, preemptions %lld, registrations %lld; longest wait %.3f of its bound; trace %016llx\n",
      static_cast<long long>(seed), static_cast<long long>(result.steps), result.ms,
      static_cast<long long>(counts.requests), static_cast<long long>(counts.refused),
      static_cast<long long>(counts.failed), static_cast<long long>(counts.cancelled),
      static_cast<long long>(counts.tokens), static_cast<long long>(counts.cached),
      static_cast<long long>(counts.loads), static_cast<long long>(counts.evictions),
      static_cast<long long>(counts.preemptions), static_cast<long long>(counts.registrations), result.wait_share,
      static_cast<unsigned long long>(result.trace));
}

int RunByHand(int argc, char** argv) {
  Arguments arguments;
  if (!Read(argc, argv, &arguments)) {
    std::fprintf(stderr, "openlora_sim [--seed N | --seeds N [--first F]] [--steps M] [--plant 0..%d] [--blind 1]\n",
                 kPlants - 1);
    return 2;
  }
  const bool is_one = arguments.seed >= 0;
  const int64_t begin = is_one ? arguments.seed : arguments.first;
  const int64_t end = is_one ? begin + 1 : begin + arguments.seeds;
  int64_t steps = 0;
  double largest_share = 0;
  for (int64_t seed = begin; seed < end; ++seed) {
    const RunResult result = Simulate(
        {static_cast<uint64_t>(seed), arguments.steps, static_cast<Plant>(arguments.plant), arguments.blind == 0});
    steps += result.steps;
    if (is_one || !result.ok()) PrintCounts(seed, result);
    largest_share = std::max(largest_share, result.wait_share);
    if (!result.ok()) {
      std::printf("%s", result.report.c_str());
      return 1;
    }
  }
  std::printf("%lld steps, nothing broken; the longest wait took %.3f of its bound\n", static_cast<long long>(steps),
              largest_share);
  return 0;
}

}  // namespace
}  // namespace openlora::sim

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return argc > 1 ? openlora::sim::RunByHand(argc, argv) : RUN_ALL_TESTS();
}
