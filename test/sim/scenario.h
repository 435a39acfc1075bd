#pragma once

#include <cstdint>
#include <string>

namespace openlora::sim {

enum class Arrivals : uint8_t { kSteady, kBursts, kFlood };  // kFlood: of one tenant, now and then
enum class Popularity : uint8_t { kIdentical, kDistinct, kUniform, kZipf, kSkewed };

// The kind of load that a seed stands for. Probabilities are for each request, times in simulated milliseconds.
struct Scenario {
  // the engine
  int64_t frames = 0;
  int32_t max_context = 0;
  int32_t rope_switch = 0;
  int32_t max_batch_tokens = 0;
  double max_step_ms = 0;  // steps take no time while they are computed: it says how many rows they have
  int32_t max_queued = 0;
  int32_t max_queued_per_tenant = 0;
  int64_t batch_lora_bytes = 0;
  bool has_prefix_cache = true;
  int64_t host_adapter_bytes = 0;
  // who asks for what
  Arrivals arrivals = Arrivals::kSteady;
  double interval_ms = 0;  // between arrivals
  int32_t burst = 1;
  int32_t tenants = 1;
  Popularity popularity = Popularity::kUniform;
  int32_t names = 1;  // of adapters
  int32_t rank_max = 1;
  int32_t adapters_max = 0;  // of a request
  double base_only = 0;
  double shared_prompts = 0;  // begin as others of their tenant do
  int32_t output_max = 1;
  // what happens to them
  double cancels = 0;
  double pauses = 0;
  double deadlines = 0;
  double priorities = 0;
  double scores = 0;  // prompt logprobs
  double ends = 0;    // EOS or stop tokens, min tokens, penalties
  double read_ms = 0;
  // what happens to adapters
  double churn_ms = 0;      // between registrations of a name that is taken; 0: none
  double check_ms = 0;      // of a registration
  double load_ms = 0;       // of a frame
  double load_fails = 0;    // of loads
  double check_fails = 0;   // of registrations
  double leaves_away = 0;   // of churn: unregisters, and the name stays away for a while
  double same_content = 0;  // of churn: the new generation holds what the old one did
};

Scenario MakeScenario(uint64_t seed);
std::string Describe(const Scenario& scenario);

}  // namespace openlora::sim
