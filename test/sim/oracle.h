#pragma once

#include <vector>

#include "engine/request.h"
#include "sim/adapter_content.h"

namespace openlora::sim {

// What a request must bring, from its prompt, its adapters' content and its seed alone: nothing of the engine's memory
// or company enters.
struct Expected {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;         // of tokens
  std::vector<float> prompt_logprobs;  // of the prompt from its second token on, if asked for
  FinishReason reason = FinishReason::kLength;
};

// `contents`: of the request's adapters, in its order.
Expected ComputeAlone(const Request& request, const std::vector<const TileContent*>& contents, int32_t max_context,
                      int32_t rope_switch);

}  // namespace openlora::sim
