#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "cases/buffers.h"
#include "ops/ops.h"

namespace openlora::cases {

enum class LogitsKind : uint8_t {
  kPeaked,  // normal, σ 4
  kFlat,    // normal, σ 0.1
  kTies,    // of eleven values
  kMasked,  // normal, two thirds of them -inf
};

inline constexpr LogitsKind kLogitsKinds[] = {LogitsKind::kPeaked, LogitsKind::kFlat, LogitsKind::kTies,
                                              LogitsKind::kMasked};

inline const char* NameOf(LogitsKind kind) {
  static constexpr const char* kNames[] = {"peaked", "flat", "ties", "masked"};
  return kNames[static_cast<int>(kind)];
}

inline std::vector<float> RandomLogits(Random& random, int64_t vocabulary, LogitsKind kind) {
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) {
    const double radius = std::sqrt(-2 * std::log(1 - random.Uniform()));  // Box-Muller
    const float normal = static_cast<float>(radius * std::cos(6.283185307179586 * random.Uniform()));
    switch (kind) {
      case LogitsKind::kPeaked:
        logit = 4 * normal;
        break;
      case LogitsKind::kFlat:
        logit = 0.1f * normal;
        break;
      case LogitsKind::kTies:
        logit = static_cast<float>(random.Below(11)) / 2;
        break;
      case LogitsKind::kMasked:
        logit = random.Below(3) > 0 ? -std::numeric_limits<float>::infinity() : 2 * normal;
        break;
    }
  }
  logits[vocabulary / 2] = std::max(logits[vocabulary / 2], 0.5f);  // something is allowed
  return logits;
}

struct SampleCase {
  const char* name;
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  int32_t logprobs = -1;
  bool has_bias = false;  // on a tenth of the tokens, half of it -inf
  float repetition = 1;
  float frequency = 0;
  float presence = 0;
};

inline std::string Describe(const SampleCase& c, int64_t vocabulary, LogitsKind kind) {
  return std::string(c.name) + ": " + std::to_string(vocabulary) + " " + NameOf(kind) + " logits";
}

// What rows of one test point to.
struct SampleLists {
  std::vector<TokenBias> bias;
  std::vector<SeenToken> seen;  // a third of the tokens, a third of these in the prompt alone
};

inline SampleLists RandomLists(Random& random, int64_t vocabulary) {
  SampleLists lists;
  for (int32_t token = 0; token < vocabulary; ++token) {
    if (random.Below(10) == 0 && token != vocabulary / 2)
      lists.bias.push_back(
          {token, random.Below(2) == 0 ? -std::numeric_limits<float>::infinity() : 3 * random.Symmetric()});
    if (random.Below(3) == 0)
      lists.seen.push_back({token, random.Below(3) == 0 ? 0 : 1 + static_cast<int32_t>(random.Below(4))});
  }
  return lists;
}

inline std::vector<SampleCase> SampleCases() {
  return {
      {.name = "greedy", .temperature = 0},
      {.name = "greedy, logprobs", .temperature = 0, .logprobs = 0},
      {.name = "greedy, top logprobs, bias", .temperature = 0, .logprobs = 20, .has_bias = true},
      {.name = "all"},
      {.name = "all, cool, logprobs", .temperature = 0.6f, .logprobs = 5},
      {.name = "all, hot, bias", .temperature = 1.7f, .has_bias = true},
      {.name = "all, nearly greedy", .temperature = 1e-30f},
      {.name = "top_k 1", .top_k = 1},
      {.name = "top_k 5", .top_k = 5, .logprobs = 3},
      {.name = "top_k 200, bias", .top_k = 200, .has_bias = true},
      {.name = "top_k beyond V", .top_k = 1 << 30},
      {.name = "top_p 0", .top_p = 0},
      {.name = "top_p 0.5", .top_p = 0.5f},
      {.name = "top_p 0.95, cool", .temperature = 0.7f, .top_p = 0.95f},
      {.name = "min_p 0.1", .min_p = 0.1f},
      {.name = "min_p 1", .min_p = 1},
      {.name = "min_p 1e-4", .min_p = 1e-4f},
      {.name = "all three, bias, logprobs",
       .temperature = 0.8f,
       .top_k = 40,
       .top_p = 0.9f,
       .min_p = 0.05f,
       .logprobs = 2,
       .has_bias = true},
      {.name = "greedy, repetition", .temperature = 0, .repetition = 1.3f},
      {.name = "greedy, everything, logprobs",
       .temperature = 0,
       .logprobs = 3,
       .has_bias = true,
       .repetition = 1.1f,
       .frequency = 0.37f,
       .presence = 0.81f},
      {.name = "repetition 1.3", .repetition = 1.3f},
      {.name = "repetition 0.6, cool", .temperature = 0.8f, .repetition = 0.6f},
      {.name = "frequency 0.37", .frequency = 0.37f},
      {.name = "frequency -0.37, logprobs", .logprobs = 5, .frequency = -0.37f},
      {.name = "presence 0.81", .presence = 0.81f},
      {.name = "presence -1.7", .presence = -1.7f},
      {.name = "all penalties", .repetition = 1.2f, .frequency = 0.23f, .presence = 0.81f},
      {.name = "everything, logprobs",
       .temperature = 0.9f,
       .top_k = 40,
       .top_p = 0.9f,
       .min_p = 0.05f,
       .logprobs = 2,
       .has_bias = true,
       .repetition = 1.15f,
       .frequency = 0.37f,
       .presence = -0.53f},
  };
}

inline SampleRow RowOf(const SampleCase& c, uint64_t seed, uint64_t draw_index, const SampleLists& lists) {
  SampleRow row;
  row.temperature = c.temperature;
  row.top_k = c.top_k;
  row.top_p = c.top_p;
  row.min_p = c.min_p;
  row.logprobs = c.logprobs;
  row.seed = seed;
  row.draw_index = draw_index;
  if (c.has_bias) row.bias = lists.bias;
  row.repetition_penalty = c.repetition;
  row.frequency_penalty = c.frequency;
  row.presence_penalty = c.presence;
  if (c.repetition != 1 || c.frequency != 0 || c.presence != 0) row.seen = lists.seen;
  return row;
}

}  // namespace openlora::cases
