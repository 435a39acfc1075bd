#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "native/model/forwarding_ops.h"

namespace openlora {

using Distributions = std::vector<std::vector<float>>;  // log-probabilities, [position][token]

// Keeps the logits that are scored.
class ScoringOps : public ForwardingOps {
 public:
  ScoringOps(std::unique_ptr<Ops> ops, Distributions* scored) : ForwardingOps(std::move(ops)), scored_(scored) {}

  void Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i].target < 0) continue;
      const float* const row = logits.f32(static_cast<int64_t>(i));
      double sum = 0;
      for (int64_t t = 0; t < logits.cols; ++t) sum += std::exp(double{row[t]});
      std::vector<float>& of_row = scored_->emplace_back();
      for (int64_t t = 0; t < logits.cols; ++t) of_row.push_back(static_cast<float>(row[t] - std::log(sum)));
    }
    ForwardingOps::Sample(logits, rows, results);
  }

 private:
  Distributions* scored_;
};

struct Loss {
  double divergence = 0;  // mean KL from f32, in nats
  double perplexity = 0;  // of the texts
};

inline Loss LossOf(const Distributions& of_f32, const Distributions& of_rule,
                   const std::vector<std::vector<int32_t>>& texts) {
  double divergence = 0, surprise = 0;
  size_t position = 0;
  for (const std::vector<int32_t>& text : texts)
    for (size_t i = 1; i < text.size(); ++i, ++position) {
      const std::vector<float>&p = of_f32.at(position), &q = of_rule.at(position);
      for (size_t t = 0; t < p.size(); ++t) divergence += std::exp(double{p[t]}) * (double{p[t]} - q[t]);
      surprise -= q[static_cast<size_t>(text[i])];
    }
  const auto count = static_cast<double>(position);
  EXPECT_EQ(of_f32.size(), position);
  EXPECT_EQ(of_rule.size(), position);
  return {divergence / count, std::exp(surprise / count)};
}

}  // namespace openlora
