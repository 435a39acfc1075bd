#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "ops/ops.h"

namespace openlora {

// The distinct tokens of a sequence, in the order in which they first came. Kept up token by token, so that a step
// costs what is distinct, not what is known.
class SeenTokens {
 public:
  void AddPrompt(int32_t token) { Find(token); }
  void AddOutput(int32_t token) { ++Find(token).count; }
  std::span<const SeenToken> tokens() const { return tokens_; }

 private:
  SeenToken& Find(int32_t token) {
    const auto [found, is_new] = place_.try_emplace(token, tokens_.size());
    if (is_new) tokens_.push_back({token, 0});
    return tokens_[found->second];
  }

  std::vector<SeenToken> tokens_;
  std::unordered_map<int32_t, size_t> place_;  // in tokens_
};

}  // namespace openlora
