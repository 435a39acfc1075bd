#include "sim/scenario.h"

#include <algorithm>
#include <cstdio>

#include "sim/random.h"

namespace openlora::sim {
namespace {

// From just enough for one request of the whole context to ample.
int64_t PickFrames(int32_t max_context, Random* random) {
  const int64_t needed = (max_context + 15) / 16 * 2;
  const int kind = random->Range(0, 4);
  if (kind == 0) return needed + random->Range(0, 3);
  if (kind <= 2) return needed + random->Range(4, 40);
  return kind == 3 ? needed * 3 + random->Range(0, 60) : needed * 10 + random->Range(0, 200);
}

}  // namespace

Scenario MakeScenario(uint64_t seed) {
  Random random(seed, 1);
  Scenario s;
  s.max_context = random.Chance(0.1) ? 400 : random.Range(40, 160);
  s.frames = PickFrames(s.max_context, &random);
  s.rope_switch = random.Chance(0.2) ? random.Range(8, s.max_context) : 0;
  s.max_batch_tokens = random.Chance(0.3) ? random.Range(1, 16) : random.Range(16, 128);
  s.max_queued = random.Chance(0.3) ? random.Range(1, 8) : random.Range(8, 96);
  s.max_queued_per_tenant = random.Chance(0.3) ? random.Range(1, 16) : 0;
  s.batch_lora_bytes = random.Pick({0, 0, 1, 20'000});
  s.arrivals = static_cast<Arrivals>(random.Range(0, 2));
  s.interval_ms = random.Pick({1.0, 3.0, 6.0, 12.0, 30.0});
  s.burst = random.Range(2, 24);
  s.tenants = random.Range(1, 6);
  s.popularity = static_cast<Popularity>(random.Range(0, 4));
  s.names = random.Chance(0.3) ? random.Range(1, 4) : random.Range(4, 40);
  s.rank_max = random.Pick({1, 8, 16, 64});
  s.adapters_max = random.Range(1, 3);
  s.base_only = random.Pick({0.0, 0.1, 0.5});
  s.shared_prompts = random.Pick({0.0, 0.5, 0.9});
  s.output_max = random.Chance(0.3) ? random.Range(1, 8) : random.Range(8, s.max_context);
  s.cancels = random.Pick({0.0, 0.05, 0.4});
  s.pauses = random.Pick({0.0, 0.1, 0.5});
  s.deadlines = random.Pick({0.0, 0.1, 0.5});
  s.priorities = random.Pick({0.0, 0.0, 0.3});
  s.scores = random.Pick({0.0, 0.1, 0.5});
  s.ends = random.Pick({0.0, 0.3});
  s.read_ms = random.Pick({0.1, 0.1, 5.0, 500.0});
  s.churn_ms = random.Pick({0.0, 10.0, 50.0, 300.0});
  s.check_ms = random.Pick({0.5, 20.0});
  s.load_ms = random.Pick({0.1, 1.0, 10.0});
  s.load_fails = random.Pick({0.0, 0.0, 0.05, 0.5});
  s.check_fails = random.Pick({0.0, 0.1});
  s.leaves_away = random.Pick({0.0, 0.3});
  s.same_content = random.Pick({0.0, 0.3});
  Random later(seed, 5);
  s.has_prefix_cache = later.Chance(0.8);
  s.host_adapter_bytes = later.Pick({0, 100'000, 10'000'000});
  s.max_step_ms = later.Pick({0.0, 0.0, 1.0});
  return s;
}

std::string Describe(const Scenario& s) {
  constexpr const char* kArrivals[] = {"steady", "bursts", "flood"};
  constexpr const char* kPopularity[] = {"identical", "distinct", "uniform", "zipf", "skewed"};
  char text[512];
  std::snprintf(
      text, sizeof(text),
      "frames %lld, context %d, rope switch %d, batch %d, step %g ms, queue %d, %d a tenant, LoRA bytes %lld, prefix "
      "cache %d; %s every "
      "%g ms, burst %d, tenants %d; "
      "adapters %s, names %d, rank up to %d, %d a request, base only %g; cancels %g, pauses %g, deadlines "
      "%g, priorities %g, scores %g, ends %g, reads after %g ms; churn %g ms, check %g ms, load %g ms a "
      "frame, failing loads %g",
      static_cast<long long>(s.frames), s.max_context, s.rope_switch, s.max_batch_tokens, s.max_step_ms, s.max_queued,
      s.max_queued_per_tenant, static_cast<long long>(s.batch_lora_bytes), s.has_prefix_cache ? 1 : 0,
      kArrivals[static_cast<size_t>(s.arrivals)], s.interval_ms, s.burst, s.tenants,
      kPopularity[static_cast<size_t>(s.popularity)], s.names, s.rank_max, s.adapters_max, s.base_only, s.cancels,
      s.pauses, s.deadlines, s.priorities, s.scores, s.ends, s.read_ms, s.churn_ms, s.check_ms, s.load_ms,
      s.load_fails);
  return text;
}

}  // namespace openlora::sim
