#include "ops/reference/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/reference/reference_bf16.h"

namespace openlora::reference {
namespace {

enum class Part { kKey, kValue };

// Where element d of (position, kv head) stands: its frame and its index within it.
struct Place {
  uint8_t* frame;
  int64_t index;
};

Place Find(const KvView& kv, Part part, int32_t sequence, int32_t position, int32_t layer, int32_t kv_head, int32_t d) {
  const int64_t token = position % kv.frame_tokens;
  const int64_t elements = int64_t{kv.frame_tokens} * kv.kv_heads * kv.head_dim;
  const int64_t index = (token * kv.kv_heads + kv_head) * kv.head_dim + d;
  return {kv.Frame(sequence, position / kv.frame_tokens, layer), index + (part == Part::kValue ? elements : 0)};
}

// The scale of a row of int8.
uint16_t& ScaleOf(const KvView& kv, Part part, int32_t sequence, int32_t position, int32_t layer, int32_t kv_head) {
  const int32_t head = part == Part::kValue ? kv.kv_heads + kv_head : kv_head;
  return kv.Scales(sequence, position / kv.frame_tokens, layer)[head * kv.frame_tokens + position % kv.frame_tokens];
}

double Load(const KvView& kv, Part part, int32_t sequence, int32_t position, int32_t layer, int32_t kv_head,
            int32_t d) {
  const Place place = Find(kv, part, sequence, position, layer, kv_head, d);
  const double value = LoadAsFloat(place.frame, kv.dtype, place.index);
  return kv.dtype == DType::kI8 ? value * BF16ToFloat(ScaleOf(kv, part, sequence, position, layer, kv_head)) : value;
}

// The least bf16 that isn't below `value`, which is finite and positive.
uint16_t BF16Above(float value) {
  uint16_t bits = FloatToBF16(value);
  if (BF16ToFloat(bits) < value) ++bits;
  return bits;
}

// A row of head_dim as int8; returns its scale.
uint16_t Quantise(const float* row, int32_t head_dim, std::vector<float>* q) {
  q->assign(static_cast<size_t>(head_dim), 0);
  float largest = 0;
  for (int32_t d = 0; d < head_dim; ++d) {
    if (!std::isfinite(row[d])) return FloatToBF16(std::numeric_limits<float>::quiet_NaN());
    largest = std::max(largest, std::abs(row[d]));
  }
  if (largest / 127 == 0) return 0;
  const uint16_t scale = BF16Above(largest / 127);
  for (int32_t d = 0; d < head_dim; ++d) (*q)[static_cast<size_t>(d)] = std::nearbyint(row[d] / BF16ToFloat(scale));
  return scale;
}

void Store(const KvView& kv, Part part, const RowsView& rows, const TensorView& from, int32_t layer) {
  std::vector<float> q;
  for (int32_t row = 0; row < rows.rows; ++row)
    for (int32_t head = 0; head < kv.kv_heads; ++head) {
      const int32_t sequence = rows.row_sequence[row], position = rows.row_pos[row];
      const float* values = from.f32(row) + int64_t{head} * kv.head_dim;
      if (kv.dtype == DType::kI8) {
        ScaleOf(kv, part, sequence, position, layer, head) = Quantise(values, kv.head_dim, &q);
        values = q.data();
      }
      for (int32_t d = 0; d < kv.head_dim; ++d) {
        const Place place = Find(kv, part, sequence, position, layer, head, d);
        StoreFromFloat(place.frame, kv.dtype, place.index, values[d]);
      }
    }
}

// q and what scores are multiplied by: with bf16 dots (kv_view.h) powers are of two, and q is rounded.
struct Query {
  std::vector<double> q;
  double scale;
  double to_natural;  // of a score
};

Query TakeQuery(const AttentionArgs& args, const float* q) {
  if (!args.kv.has_bf16_dots) return {{q, q + args.kv.head_dim}, args.scale, 1};
  constexpr float kLog2E = 1.44269504f;
  Query query{{}, 1, std::log(2.0)};
  for (int32_t d = 0; d < args.kv.head_dim; ++d) query.q.push_back(RoundToBF16(Flush(q[d] * (args.scale * kLog2E))));
  return query;
}

void AttendHead(const AttentionArgs& args, int32_t row, int32_t head) {
  const KvView& kv = args.kv;
  const int32_t kv_head = head / (args.heads / kv.kv_heads);
  const int32_t sequence = args.rows.row_sequence[row];
  const int32_t end = args.rows.row_pos[row] + 1;
  const int32_t begin = args.window > 0 ? std::max(0, end - args.window) : 0;
  const Query query = TakeQuery(args, args.q.f32(row) + int64_t{head} * kv.head_dim);
  float* out = args.out.f32(row) + int64_t{head} * kv.head_dim;

  std::vector<double> p(end - begin);
  for (int32_t j = begin; j < end; ++j) {
    double s = 0;
    for (int32_t d = 0; d < kv.head_dim; ++d)
      s += query.q[d] * Load(kv, Part::kKey, sequence, j, args.layer, kv_head, d);
    s *= query.scale * query.to_natural;
    p[j - begin] = args.soft_cap > 0 ? args.soft_cap * std::tanh(s / args.soft_cap) : s;
  }
  const double max = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& s : p) sum += s = std::exp(s - max);
  for (int32_t d = 0; d < kv.head_dim; ++d) {
    double o = 0;
    for (int32_t j = begin; j < end; ++j)
      o += p[j - begin] * Load(kv, Part::kValue, sequence, j, args.layer, kv_head, d);
    out[d] = static_cast<float>(o / sum);
  }
}

}  // namespace

int64_t KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) {
  return int64_t{2} * tokens * kv_heads * head_dim * static_cast<int64_t>(SizeOf(dtype));
}

void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv, int32_t layer) {
  Store(kv, Part::kKey, rows, k, layer);
  Store(kv, Part::kValue, rows, v, layer);
}

void Attention(const AttentionArgs& args) {
  for (int32_t row = 0; row < args.rows.rows; ++row)
    for (int32_t head = 0; head < args.heads; ++head) AttendHead(args, row, head);
}

}  // namespace openlora::reference
