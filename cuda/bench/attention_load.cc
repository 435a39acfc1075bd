#include "bench/attention_load.h"

#include <algorithm>
#include <cmath>

#include "bench/known_value.h"

namespace openlora {
namespace {

constexpr uint64_t kQ = 1, kHeld = 16;
constexpr float kQScale = 4096;  // so that the softmax has something to choose from

}  // namespace

float AttentionLoad::scale() const { return 1 / std::sqrt(static_cast<float>(shape_.head_dim)); }

StepLimits AttentionLoad::Measure() {
  const auto row_bytes = int64_t{shape_.kv_heads} * shape_.head_dim * 2;
  bytes_ = 2 * sequences() * int64_t{length()} * row_bytes;
  double seen = 0;  // pairs of a row and a token
  for (int32_t row = 0; row < shape_.rows; ++row) seen += shape_.context + (shape_.is_prefill ? row : 0) + 1;
  operations_ = 4 * seen * static_cast<double>(q_cols());
  StepLimits limits{.rows = shape_.rows, .context = length(), .logit_rows = 1, .hidden = 8, .project_in = 8};
  limits.vocab = 32;
  limits.heads = shape_.heads;
  limits.kv_heads = shape_.kv_heads;
  limits.head_dim = shape_.head_dim;
  limits.weights = limits.kv = limits.adapters = DType::kBF16;
  return limits;
}

float AttentionLoad::Held(bool is_k, int64_t sequence, int64_t position, int64_t head, int64_t column) const {
  const uint64_t tag = kHeld + static_cast<uint64_t>(sequence) * 2 + (is_k ? 0 : 1);
  return KnownValue(tag, (position * shape_.kv_heads + head) * shape_.head_dim + column);
}

// As kernels/attention.h describes it.
std::vector<uint16_t> AttentionLoad::Frame(int32_t sequence, int32_t block) const {
  std::vector<uint16_t> frame;
  for (const bool is_k : {true, false})
    for (int64_t head = 0; head < shape_.kv_heads; ++head)
      for (int64_t token = 0; token < kFrameTokens; ++token)
        for (int64_t column = 0; column < shape_.head_dim; ++column)
          frame.push_back(FloatToBF16(Held(is_k, sequence, block * kFrameTokens + token, head, column)));
  return frame;
}

// Frames of a (sequence, block), one for each layer, stand at places that nothing orders.
Status AttentionLoad::MakeData(int32_t copies) {
  const int64_t elements = shape_.rows * q_cols();
  std::vector<float> q(static_cast<size_t>(elements));
  for (size_t i = 0; i < q.size(); ++i) q[i] = kQScale * KnownValue(kQ, static_cast<int64_t>(i));
  void* memory = nullptr;
  OPENLORA_RETURN_IF_ERROR(Allocate(elements * 4, &memory));
  q_ = static_cast<float*>(memory);
  OPENLORA_RETURN_IF_ERROR(context_->Upload(q_, q.data(), q.size() * sizeof(float)));
  OPENLORA_RETURN_IF_ERROR(Allocate(elements * 2, &memory));
  out_ = static_cast<uint16_t*>(memory);

  const int32_t blocks = (length() + kFrameTokens - 1) / kFrameTokens;
  const int64_t frame_bytes = ops_.KvBytes(DType::kBF16, shape_.kv_heads, shape_.head_dim, kFrameTokens);
  table_ = Shuffled(static_cast<size_t>(int64_t{sequences()} * blocks * copies));
  OPENLORA_RETURN_IF_ERROR(Allocate(static_cast<int64_t>(table_.size()) * frame_bytes, &memory));
  auto* const pool = static_cast<uint8_t*>(memory);
  table_begin_.clear();
  for (int32_t sequence = 0, at = 0; sequence < sequences(); ++sequence) {
    table_begin_.push_back(at);
    for (int32_t block = 0; block < blocks; ++block, at += copies) {
      const std::vector<uint16_t> frame = Frame(sequence, block);
      uint8_t* const first = pool + table_[static_cast<size_t>(at)] * frame_bytes;
      OPENLORA_RETURN_IF_ERROR(context_->Upload(first, frame.data(), static_cast<size_t>(frame_bytes)));
      for (int32_t copy = 1; copy < copies; ++copy)
        context_->Copy(pool + table_[static_cast<size_t>(at + copy)] * frame_bytes, first,
                       static_cast<size_t>(frame_bytes));
    }
  }
  batch_.kv = {pool, frame_bytes, kFrameTokens, DType::kBF16, copies, shape_.kv_heads, shape_.head_dim};
  batch_.kv.table = table_.data();
  batch_.kv.table_begin = table_begin_.data();
  return context_->Synchronize();
}

void AttentionLoad::Launch(int32_t copy) {
  ops_.Attention({.q = F32View(q_, shape_.rows, q_cols()),
                  .out = {out_, DType::kBF16, shape_.rows, q_cols(), q_cols()},
                  .rows = batch_.rows,
                  .kv = batch_.kv,
                  .layer = copy,
                  .heads = shape_.heads,
                  .scale = scale()});
}

// q is rounded as kernels/attention.h says, after it was multiplied by scale and log2(e).
std::vector<double> AttentionLoad::Wanted(int64_t row, int64_t head) const {
  constexpr float kLog2E = 1.44269504f;
  const int64_t dim = shape_.head_dim, kv_head = head / (shape_.heads / shape_.kv_heads);
  const int64_t sequence = sequences_[static_cast<size_t>(row)], seen = positions_[static_cast<size_t>(row)] + 1;
  std::vector<double> scores, out(static_cast<size_t>(dim), 0);
  double largest = -INFINITY, sum = 0;
  for (int64_t position = 0; position < seen; ++position) {
    double score = 0;
    for (int64_t c = 0; c < dim; ++c) {
      const float q = kQScale * KnownValue(kQ, row * q_cols() + head * dim + c) * (scale() * kLog2E);
      score += double{BF16ToFloat(FloatToBF16(q))} * Held(true, sequence, position, kv_head, c);
    }
    scores.push_back(score);
    largest = std::max(largest, score);
  }
  for (int64_t position = 0; position < seen; ++position) {
    const double weight = std::exp2(scores[static_cast<size_t>(position)] - largest);
    sum += weight;
    for (int64_t c = 0; c < dim; ++c)
      out[static_cast<size_t>(c)] += weight * Held(false, sequence, position, kv_head, c);
  }
  for (double& value : out) value /= sum;
  return out;
}

// Beside sums: a weight of the softmax is rounded by 2^-8 of itself at most, and of random sign, and so a mean of
// values of random signs; the result is rounded by half of that on average.
Status AttentionLoad::Compare(double* error, double* error_max) {
  std::vector<uint16_t> actual(static_cast<size_t>(shape_.rows * q_cols()));
  OPENLORA_RETURN_IF_ERROR(
      Download(out_, {reinterpret_cast<uint8_t*>(actual.data()), actual.size() * sizeof(uint16_t)}));
  RelativeError relative;
  for (const int64_t row : SampleOf(shape_.rows, 3))
    for (const int64_t head : SampleOf(shape_.heads, 3)) {
      const std::vector<double> wanted = Wanted(row, head);
      for (size_t c = 0; c < wanted.size(); ++c)
        relative.Add(BF16ToFloat(actual[static_cast<size_t>(row * q_cols() + head * shape_.head_dim) + c]), wanted[c]);
    }
  *error = relative.Value();
  *error_max = ChainErrorMax(shape_.head_dim + length()) + 1.5 * 0x1p-8;
  return Ok();
}

}  // namespace openlora
