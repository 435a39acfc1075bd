#include "ops/reference/reference_sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/prng.h"

namespace openlora::reference {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Ids by (value descending, id ascending).
std::vector<int32_t> Sorted(const std::vector<double>& values) {
  std::vector<int32_t> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  return ids;
}

double LogSumExp(const std::vector<double>& values) {
  const double max = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) sum += std::exp(value - max);
  return max + std::log(sum);
}

// The logits that the row draws from. The steps are rounded to f32, as the op's definition has it.
std::vector<double> Adjusted(const std::vector<double>& raw, const SampleRow& row) {
  std::vector<float> x(raw.begin(), raw.end());
  for (const TokenBias& bias : row.bias) x[bias.token] += bias.bias;
  for (const SeenToken& seen : row.seen) {
    float& logit = x[seen.token];
    const bool was_finite = std::isfinite(logit);
    logit = logit < 0 ? logit * row.repetition_penalty : logit / row.repetition_penalty;
    if (was_finite && std::isinf(logit)) logit = std::copysign(std::numeric_limits<float>::max(), logit);
    logit -= row.frequency_penalty * static_cast<float>(seen.count);
    logit -= seen.count > 0 ? row.presence_penalty : 0.0f;
  }
  return {x.begin(), x.end()};
}

// logits / temperature → top_k → softmax → top_p → min_p → renormalise → inverse CDF: over the tokens kept, the most
// likely first; over all of them by id when the row asks for no truncation.
int32_t Draw(const std::vector<double>& logits, const SampleRow& row) {
  const std::vector<int32_t> ids = Sorted(logits);
  if (row.temperature == 0) return ids[0];
  const double max = logits[ids[0]];
  const size_t count = row.top_k > 0 ? std::min<size_t>(row.top_k, ids.size()) : ids.size();

  std::vector<double> p(count);  // of ids[i], not yet divided by their sum
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += p[i] = std::exp((logits[ids[i]] - max) / row.temperature);
  size_t kept = 0;
  for (double mass = 0; kept < count && (kept == 0 || row.top_p >= 1 || mass < row.top_p * total); ++kept)
    mass += p[kept];
  while (kept > 1 && (p[kept - 1] < row.min_p * p[0] || p[kept - 1] == 0)) --kept;

  const double u = PhiloxUniform(row.seed, row.draw_index);
  if (count < ids.size() || row.top_p < 1 || row.min_p > 0) {
    const double target = u * std::accumulate(p.begin(), p.begin() + kept, 0.0);
    double mass = 0;
    size_t i = 0;
    while (i + 1 < kept && (mass += p[i]) <= target) ++i;
    return ids[i];
  }
  double mass = 0;
  int32_t last = -1;
  for (size_t id = 0; id < logits.size(); ++id) {
    const double mass_of_id = std::exp((logits[id] - max) / row.temperature);
    if (mass_of_id > 0) last = static_cast<int32_t>(id);
    if ((mass += mass_of_id) > u * total) break;
  }
  return last;
}

}  // namespace

SampleResult SampleOne(const float* logits, int64_t vocabulary, const SampleRow& row) {
  SampleResult result;
  const std::vector<double> raw(logits, logits + vocabulary);
  const std::vector<double> looked_at = row.target >= 0 ? raw : Adjusted(raw, row);
  for (const double value : looked_at)
    if (!(value < std::numeric_limits<double>::infinity())) return result;  // NaN or +inf
  if (*std::max_element(looked_at.begin(), looked_at.end()) == kMinusInfinity) return result;
  result.token = row.target >= 0 ? row.target : Draw(looked_at, row);
  if (row.target < 0 && row.logprobs < 0) return result;

  const double log_sum = LogSumExp(raw);
  result.logprob = static_cast<float>(raw[result.token] - log_sum);
  const std::vector<int32_t> ids = Sorted(raw);
  const int64_t wanted = std::clamp(row.logprobs, 0, kTopLogprobsMax);
  result.top_count = static_cast<int32_t>(std::min(wanted, vocabulary));
  for (int32_t i = 0; i < result.top_count; ++i) {
    result.top_token[i] = ids[i];
    result.top_logprob[i] = static_cast<float>(raw[ids[i]] - log_sum);
  }
  return result;
}

}  // namespace openlora::reference
