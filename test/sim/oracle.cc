#include "sim/oracle.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "sim/digest.h"
#include "sim/sim_model.h"

namespace openlora::sim {
namespace {

bool Contains(const std::vector<int32_t>& list, int32_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// Position by position, one running digest of KV for each layer.
class Alone {
 public:
  Alone(const Request& request, const std::vector<const TileContent*>& contents)
      : request_(request), contents_(contents) {}

  void Restart(bool is_long) {
    is_long_ = is_long;
    position_ = 0;
    attended_.fill(kAttentionSeed);
  }

  // The logits of the next position.
  uint64_t Append(int32_t token) {
    uint64_t x = WithAdapters(Embedded(token), kLayers * kLayerSites + 1);
    const uint64_t rotation = Rotation(position_++, is_long_);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const auto product = [&](uint64_t input, LayerSite site) {
        return WithAdapters(Multiplied(input, SiteOf(layer, site)), SiteOf(layer, site));
      };
      const uint64_t q = Mix(product(x, kQ), rotation), k = Mix(product(x, kK), rotation), v = product(x, kV);
      uint64_t& attended = attended_[static_cast<size_t>(layer)];
      attended = Mix(attended, Mix(k, v));
      x = Mix(x, product(Mix(q, attended), kO));
      x = Mix(x, product(Mix(product(x, kGate), product(x, kUp)), kDown));
    }
    const int32_t head = kLayers * kLayerSites;
    return WithAdapters(Multiplied(Normed(x), head), head);
  }

 private:
  uint64_t WithAdapters(uint64_t y, int32_t site) const {
    for (size_t i = 0; i < contents_.size(); ++i) {
      const uint64_t delta = contents_[i]->deltas[static_cast<size_t>(site)];
      if (delta != 0) y = Adapted(y, delta, request_.adapters[i].weight);
    }
    return y;
  }

  const Request& request_;
  const std::vector<const TileContent*>& contents_;
  std::array<uint64_t, kLayers> attended_{};
  int32_t position_ = 0;
  bool is_long_ = false;
};

// The tokens that penalties count, in the order in which they came.
void Note(int32_t token, int32_t count, std::vector<SeenToken>* seen) {
  const auto found = std::find_if(seen->begin(), seen->end(), [&](const SeenToken& s) { return s.token == token; });
  if (found == seen->end()) {
    seen->push_back({token, count});
  } else {
    found->count += count;
  }
}

SampleRow RowOf(const Request& request, int32_t output, const std::vector<SeenToken>& seen,
                std::vector<TokenBias>* bias) {
  SampleRow row;
  row.temperature = request.temperature;
  row.seed = request.seed;
  row.draw_index = static_cast<uint64_t>(output);
  row.repetition_penalty = request.repetition_penalty;
  row.presence_penalty = request.presence_penalty;
  row.seen = seen;
  bias->clear();
  if (output < request.min_tokens) {
    for (const std::vector<int32_t>* ends : {&request.eos_tokens, &request.stop_tokens}) {
      for (const int32_t token : *ends) bias->push_back({token, -INFINITY});
    }
  }
  row.bias = *bias;
  return row;
}

}  // namespace

Expected ComputeAlone(const Request& request, const std::vector<const TileContent*>& contents, int32_t max_context,
                      int32_t rope_switch) {
  Expected expected;
  Alone alone(request, contents);
  std::vector<int32_t> tokens = request.tokens;
  std::vector<SeenToken> seen;
  std::vector<TokenBias> bias;
  if (request.repetition_penalty != 1) {
    for (const int32_t token : tokens) Note(token, 0, &seen);
  }
  const auto is_long = [&] { return rope_switch > 0 && static_cast<int32_t>(tokens.size()) > rope_switch; };
  bool was_long = is_long();
  alone.Restart(was_long);
  uint64_t logits = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    logits = alone.Append(tokens[i]);
    if (request.prompt_logprobs >= 0 && i + 1 < tokens.size())
      expected.prompt_logprobs.push_back(LogprobOf(logits, tokens[i + 1]));
  }
  for (int32_t output = 0;;) {
    const int32_t token = Drawn(logits, RowOf(request, output, seen, &bias), kVocabulary);
    tokens.push_back(token);
    ++output;
    Note(token, 1, &seen);
    expected.tokens.push_back(token);
    expected.logprobs.push_back(LogprobOf(logits, token));
    if (Contains(request.eos_tokens, token)) expected.reason = FinishReason::kEos;
    if (!Contains(request.eos_tokens, token) && Contains(request.stop_tokens, token))
      expected.reason = FinishReason::kStop;
    const bool is_full = output >= request.max_tokens || static_cast<int32_t>(tokens.size()) >= max_context;
    if (expected.reason != FinishReason::kLength || is_full) return expected;
    if (is_long() == was_long) {
      logits = alone.Append(token);
      continue;
    }
    was_long = is_long();
    alone.Restart(was_long);
    for (const int32_t known : tokens) logits = alone.Append(known);
  }
}

}  // namespace openlora::sim
