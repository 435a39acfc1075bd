#include "sim/request_maker.h"

#include <algorithm>
#include <string>

#include "sim/digest.h"
#include "sim/sim_model.h"

namespace openlora::sim {

RequestMaker::RequestMaker(const Scenario& scenario, uint64_t seed) : scenario_(scenario), random_(seed, 3) {}

double RequestMaker::NextIntervalMs() {
  const double mean = scenario_.interval_ms;
  if (scenario_.arrivals == Arrivals::kSteady) return mean * 2 * random_.Uniform();
  if (burst_left_ > 0) {
    --burst_left_;
    return 0;
  }
  flooding_tenant_ = -1;
  if (scenario_.arrivals == Arrivals::kBursts) {
    burst_left_ = random_.Range(0, 2 * scenario_.burst);
    return mean * scenario_.burst * 2 * random_.Uniform();
  }
  if (random_.Chance(0.05)) {
    burst_left_ = 4 * scenario_.burst;
    flooding_tenant_ = random_.Range(0, scenario_.tenants - 1);
  }
  return mean * 2 * random_.Uniform();
}

// Prompts that share their beginning share it token by token, up to anywhere.
std::vector<int32_t> RequestMaker::MakePrompt(int32_t tenant) {
  const int32_t room = scenario_.max_context - 1;
  const int32_t count = random_.Chance(0.1) ? random_.Range(1, room) : random_.Range(1, std::min(room, 48));
  const int32_t shared = random_.Chance(scenario_.shared_prompts) ? random_.Range(count / 2, count) : 0;
  const auto beginning = static_cast<uint64_t>(tenant) * 4 + static_cast<uint64_t>(random_.Range(0, 1));
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) {
    const uint64_t drawn = i < shared ? Mix(beginning, static_cast<uint64_t>(i)) : random_.Next();
    tokens.push_back(static_cast<int32_t>(drawn % kVocabulary));
  }
  return tokens;
}

void RequestMaker::AddAdapters(Catalog* catalog, Request* request) {
  if (random_.Chance(scenario_.base_only)) return;
  for (int32_t count = random_.Range(1, scenario_.adapters_max); count > 0; --count) {
    const Generation* generation = catalog->Current(catalog->PickName());
    // A client that hasn't heard yet that its adapter went.
    if (generation == nullptr || random_.Chance(0.01)) generation = catalog->PickAny();
    if (generation == nullptr) continue;
    request->adapters.push_back({generation->handle, random_.Chance(0.85) ? 1.0f : random_.Pick({0.5f, -1.0f, 0.0f})});
  }
}

void RequestMaker::AddExtras(Request* request) {
  if (random_.Chance(0.5)) {
    request->temperature = 0.7f;
    request->seed = random_.Next();
  }
  request->logprobs = random_.Range(-1, 2);
  if (random_.Chance(scenario_.scores)) request->prompt_logprobs = random_.Range(0, 2);
  if (random_.Chance(scenario_.priorities)) request->priority = random_.Range(-2, 2);
  if (random_.Chance(scenario_.deadlines)) request->deadline_ms = random_.Pick({0.001, 2.0, 50.0, 1000.0});
  if (!random_.Chance(scenario_.ends)) return;
  for (int i = random_.Range(0, 60); i > 0; --i) request->eos_tokens.push_back(random_.Range(0, kVocabulary - 1));
  for (int i = random_.Range(0, 20); i > 0; --i) request->stop_tokens.push_back(random_.Range(0, kVocabulary - 1));
  request->min_tokens = random_.Range(0, 8);
  if (random_.Chance(0.5)) request->repetition_penalty = 1.5f;
  if (random_.Chance(0.5)) request->presence_penalty = 0.5f;
}

Request RequestMaker::Make(Catalog* catalog) {
  Request request;
  request.id = next_id_++;
  const int32_t tenant = flooding_tenant_ >= 0 ? flooding_tenant_ : random_.Range(0, scenario_.tenants - 1);
  request.tenant = tenant == 0 ? "" : "tenant" + std::to_string(tenant);
  if (random_.Chance(0.1)) request.cache_salt = "salt";
  request.tokens = MakePrompt(tenant);
  request.max_tokens = random_.Range(1, scenario_.output_max);
  AddAdapters(catalog, &request);
  AddExtras(&request);
  return request;
}

}  // namespace openlora::sim
