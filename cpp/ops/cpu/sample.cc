#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/prng.h"
#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/sample_kernels.h"

namespace openlora {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct Candidate {
  float value;
  int32_t id;
  float p;  // e^((value - max) / temperature), where asked for
};

// The order of the likelihood: value descending, id ascending.
bool IsBefore(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

constexpr int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// One thread's memory for a vocabulary of V tokens.
struct Scratch {
  float* saved;           // [2 V]: logits that a row changed
  float* maxima;          // [ceil(V / kMaximaBlock)][kMaximaLanes]
  float* bounds;          // as many
  double* sums;           // [ceil(V / kSumBlock)]
  Candidate* candidates;  // [V]
  float* values;          // [V]: of candidates
  float* p;               // [V]

  static int64_t Bytes(int64_t vocabulary) {
    const int64_t n = RoundUp(vocabulary, kSumBlock);
    return RoundUp(n * (4 * 4 + static_cast<int64_t>(sizeof(Candidate))) + n / kMaximaLanes * 8 + n / kSumBlock * 8,
                   4096);
  }
  Scratch(uint8_t* memory, int64_t vocabulary) {
    const int64_t n = RoundUp(vocabulary, kSumBlock);
    sums = reinterpret_cast<double*>(memory);
    candidates = reinterpret_cast<Candidate*>(sums + n / kSumBlock);
    saved = reinterpret_cast<float*>(candidates + n);
    values = saved + 2 * n;
    p = values + n;
    maxima = p + n;
    bounds = maxima + n / kMaximaLanes;
  }
};

// A row of logits, adjusted or raw.
class Logits {
 public:
  Logits(const SampleKernels& kernels, const Scratch& scratch, const float* values, int64_t count)
      : kernels_(kernels), scratch_(scratch), values_(values), count_(count) {
    lanes_ = (count + kMaximaBlock - 1) / kMaximaBlock * kMaximaLanes;
    is_valid_ = kernels.maxima(values, count, scratch.maxima);
    max_ = *std::max_element(scratch.maxima, scratch.maxima + lanes_);
  }

  bool is_valid() const { return is_valid_ && max_ > kMinusInfinity; }  // no NaN, no +inf, not everything forbidden
  float max() const { return max_; }
  int64_t count() const { return count_; }
  const float* data() const { return values_; }
  float operator[](int64_t id) const { return values_[id]; }

  // The lowest id among the largest.
  int32_t ArgMax() const {
    const int64_t lane = std::find(scratch_.maxima, scratch_.maxima + lanes_, max_) - scratch_.maxima;
    const float* block = values_ + lane / kMaximaLanes * kMaximaBlock;
    return static_cast<int32_t>(std::find(block, values_ + count_, max_) - values_);
  }

  // Σ e^((value - max) * inverse_temperature); the terms of each kSumBlock to scratch.sums.
  double SumExp(float inverse_temperature) const {
    double total = 0;
    for (int64_t begin = 0; begin < count_; begin += kSumBlock) {
      const int64_t count = std::min<int64_t>(kSumBlock, count_ - begin);
      total += scratch_.sums[begin / kSumBlock] =
          kernels_.sum_exp(values_ + begin, count, max_, inverse_temperature, nullptr);
    }
    return total;
  }

  // The k most likely tokens in order; returns min(k, count).
  int64_t Top(int64_t k, Candidate* top) const {
    k = std::min(k, count_);
    if (k == 0) return 0;
    float bound = kMinusInfinity;  // k lanes have a maximum of at least this, so the k-th largest is no smaller
    if (k <= lanes_) {
      std::partial_sort_copy(scratch_.maxima, scratch_.maxima + lanes_, scratch_.bounds, scratch_.bounds + k,
                             std::greater<float>());
      bound = scratch_.bounds[k - 1];
    }
    int64_t found = 0;
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      if (scratch_.maxima[lane] < bound) continue;
      const int64_t begin = lane / kMaximaLanes * kMaximaBlock + lane % kMaximaLanes;
      const int64_t end = std::min(count_, (lane / kMaximaLanes + 1) * kMaximaBlock);
      for (int64_t id = begin; id < end; id += kMaximaLanes)
        if (values_[id] >= bound) scratch_.candidates[found++] = {values_[id], static_cast<int32_t>(id), 0};
    }
    if (found > k)
      std::nth_element(scratch_.candidates, scratch_.candidates + k, scratch_.candidates + found, IsBefore);
    std::sort(scratch_.candidates, scratch_.candidates + k, IsBefore);
    if (top != scratch_.candidates) std::copy_n(scratch_.candidates, k, top);
    return k;
  }

  // The k most likely tokens in order, with p, to scratch.candidates.
  void TopWithP(int64_t k, float inverse_temperature) const {
    Top(k, scratch_.candidates);
    for (int64_t i = 0; i < k; ++i) scratch_.values[i] = scratch_.candidates[i].value;
    Exp(scratch_.values, k, inverse_temperature);
    for (int64_t i = 0; i < k; ++i) scratch_.candidates[i].p = scratch_.p[i];
  }

  // All tokens with p > 0 and p >= p_min by id, to scratch.candidates; returns how many.
  int64_t AllWithP(float p_min, float inverse_temperature) const {
    Exp(values_, count_, inverse_temperature);
    int64_t found = 0;
    for (int64_t id = 0; id < count_; ++id) {
      const float p = scratch_.p[id];
      if (p > 0 && p >= p_min) scratch_.candidates[found++] = {values_[id], static_cast<int32_t>(id), p};
    }
    return found;
  }

 private:
  void Exp(const float* x, int64_t count, float inverse_temperature) const {
    for (int64_t i = 0; i < count; i += kSumBlock)
      kernels_.sum_exp(x + i, std::min<int64_t>(kSumBlock, count - i), max_, inverse_temperature, scratch_.p + i);
  }

  const SampleKernels& kernels_;
  const Scratch& scratch_;
  const float* values_;
  const int64_t count_;
  int64_t lanes_;
  bool is_valid_;
  float max_;
};

// Inverse CDF over all tokens by id.
int32_t DrawFromAll(const Logits& logits, const SampleKernels& kernels, const Scratch& scratch,
                    float inverse_temperature, double u) {
  const double target = u * logits.SumExp(inverse_temperature);
  const int64_t blocks = (logits.count() + kSumBlock - 1) / kSumBlock;
  int64_t block = -1;  // the first whose end lies beyond the target; the last with any mass, should rounding leave none
  double mass = 0, before = 0;
  for (int64_t i = 0; i < blocks && mass <= target; ++i) {
    if (scratch.sums[i] == 0) continue;
    block = i;
    before = mass;
    mass += scratch.sums[i];
  }
  const int64_t begin = block * kSumBlock, count = std::min<int64_t>(kSumBlock, logits.count() - begin);
  kernels.sum_exp(logits.data() + begin, count, logits.max(), inverse_temperature, scratch.p);
  int64_t chosen = 0;
  for (int64_t i = 0; i < count && before <= target; ++i) {
    if (scratch.p[i] == 0) continue;
    chosen = i;
    before += scratch.p[i];
  }
  return static_cast<int32_t>(begin + chosen);
}

double Mass(const Candidate* begin, const Candidate* end) {
  return std::accumulate(begin, end, 0.0, [](double mass, const Candidate& candidate) { return mass + candidate.p; });
}

// The place, in the order of likelihood, of the first candidate up to which the mass is more than `target` (or as much,
// if is_inclusive); the last one, should rounding leave none. Afterwards the candidates before that place are those
// that are more likely, in any order. Quickselect: O(count).
int64_t PlaceOfMass(Candidate* candidates, int64_t count, double target, bool is_inclusive) {
  const auto reaches = [&](double mass) { return mass > target || (is_inclusive && mass == target); };
  int64_t begin = 0, end = count;
  double before = 0;
  while (end - begin > 32) {
    const int64_t middle = begin + (end - begin) / 2;
    std::nth_element(candidates + begin, candidates + middle, candidates + end, IsBefore);
    const double mass = Mass(candidates + begin, candidates + middle);
    if (reaches(before + mass)) {
      end = middle;
    } else {
      before += mass;
      begin = middle;
    }
  }
  std::sort(candidates + begin, candidates + end, IsBefore);
  for (; begin + 1 < end; ++begin)
    if (reaches(before += candidates[begin].p)) break;
  return begin;
}

// How many of the first `count` candidates, sorted, top_p and min_p keep; `total` is the mass that top_p is a share of.
int64_t Keep(const Candidate* sorted, int64_t count, double total, const SampleRow& row) {
  int64_t kept = 0;
  for (double mass = 0; kept < count && (kept == 0 || row.top_p >= 1 || mass < row.top_p * total); ++kept)
    mass += sorted[kept].p;
  while (kept > 1 && (sorted[kept - 1].p < row.min_p * sorted[0].p || sorted[kept - 1].p == 0)) --kept;
  return kept;
}

// top_k, then top_p, then min_p; inverse CDF over what is left, the most likely first.
int32_t DrawFromTop(const Logits& logits, const Scratch& scratch, const SampleRow& row, float inverse_temperature,
                    double u) {
  Candidate* candidates = scratch.candidates;
  const bool has_top_k = row.top_k > 0 && row.top_k < logits.count();
  // Without top_k the cut mostly lies among the first few tokens.
  const int64_t count = has_top_k ? row.top_k : std::min<int64_t>(128, logits.count());
  const double all = has_top_k || row.top_p >= 1 ? 0 : logits.SumExp(inverse_temperature);
  logits.TopWithP(count, inverse_temperature);
  const double total = has_top_k ? Mass(candidates, candidates + count) : all;
  int64_t kept = Keep(candidates, count, total, row);
  if (!has_top_k && kept == count && count < logits.count()) {
    kept = logits.AllWithP(row.min_p * candidates[0].p, inverse_temperature);
    if (row.top_p < 1) kept = PlaceOfMass(candidates, kept, row.top_p * total, true) + 1;
  }
  const double target = u * Mass(candidates, candidates + kept);
  return candidates[PlaceOfMass(candidates, kept, target, false)].id;
}

int32_t Draw(const Logits& logits, const SampleKernels& kernels, const Scratch& scratch, const SampleRow& row) {
  if (row.temperature == 0) return logits.ArgMax();
  const float inverse_temperature = std::min(1 / row.temperature, FLT_MAX);  // not infinity: times 0 it would be NaN
  const double u = PhiloxUniform(row.seed, row.draw_index);
  const bool is_truncating = (row.top_k > 0 && row.top_k < logits.count()) || row.top_p < 1 || row.min_p > 0;
  return is_truncating ? DrawFromTop(logits, scratch, row, inverse_temperature, u)
                       : DrawFromAll(logits, kernels, scratch, inverse_temperature, u);
}

void ReportLogprobs(const Logits& raw, const SampleRow& row, SampleResult& result) {
  const double log_sum = raw.max() + std::log(raw.SumExp(1));
  result.logprob = static_cast<float>(raw[result.token] - log_sum);
  Candidate top[kTopLogprobsMax];
  result.top_count = static_cast<int32_t>(raw.Top(std::clamp(row.logprobs, 0, kTopLogprobsMax), top));
  for (int32_t i = 0; i < result.top_count; ++i) {
    result.top_token[i] = top[i].id;
    result.top_logprob[i] = static_cast<float>(top[i].value - log_sum);
  }
}

float Penalised(float logit, const SampleRow& row, int32_t count) {
  const bool was_finite = std::isfinite(logit);
  logit = logit < 0 ? logit * row.repetition_penalty : logit / row.repetition_penalty;
  if (was_finite) logit = std::clamp(logit, -FLT_MAX, FLT_MAX);
  logit -= row.frequency_penalty * static_cast<float>(count);
  return count > 0 ? logit - row.presence_penalty : logit;
}

// Changes a row's logits in place; what they were goes to `saved`. O(bias + seen), not O(V).
void Adjust(float* logits, const SampleRow& row, float* saved) {
  for (const TokenBias& bias : row.bias) {
    *saved++ = logits[bias.token];
    logits[bias.token] += bias.bias;
  }
  for (const SeenToken& seen : row.seen) {
    *saved++ = logits[seen.token];
    logits[seen.token] = Penalised(logits[seen.token], row, seen.count);
  }
}

// Backwards: a token may be biased and penalised.
void Restore(float* logits, const SampleRow& row, const float* saved) {
  saved += row.bias.size() + row.seen.size();
  for (size_t i = row.seen.size(); i-- > 0;) logits[row.seen[i].token] = *--saved;
  for (size_t i = row.bias.size(); i-- > 0;) logits[row.bias[i].token] = *--saved;
}

SampleResult SampleOne(const SampleKernels& kernels, const Scratch& scratch, float* logits, int64_t vocabulary,
                       const SampleRow& row) {
  SampleResult result;
  const bool is_adjusted = row.target < 0 && !(row.bias.empty() && row.seen.empty());
  if (is_adjusted) Adjust(logits, row, scratch.saved);
  const Logits drawn(kernels, scratch, logits, vocabulary);
  const bool is_valid = drawn.is_valid();
  if (is_valid) result.token = row.target >= 0 ? row.target : Draw(drawn, kernels, scratch, row);
  if (is_adjusted) Restore(logits, row, scratch.saved);
  if (!is_valid || (row.target < 0 && row.logprobs < 0)) return result;
  if (is_adjusted) {
    ReportLogprobs(Logits(kernels, scratch, logits, vocabulary), row, result);
  } else {
    ReportLogprobs(drawn, row, result);
  }
  return result;
}

}  // namespace

void CpuOps::Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) {
  const int64_t bytes = Scratch::Bytes(logits.cols);
  uint8_t* memory = sample_scratch_.Get<uint8_t>(static_cast<size_t>(bytes * pool_.size()));
  const int64_t count = static_cast<int64_t>(rows.size());
  std::atomic<int64_t> next{0};
  const auto body = [&](int member, int) {
    const Scratch scratch(memory + bytes * member, logits.cols);
    for (int64_t row; (row = next.fetch_add(1, std::memory_order_relaxed)) < count;)
      results[row] = SampleOne(kernels_.sample, scratch, logits.f32(row), logits.cols, rows[row]);
  };
  if (pool_.size() == 1 || count < 2) {
    body(0, 1);
  } else {
    pool_.Run(body);
  }
}

}  // namespace openlora
