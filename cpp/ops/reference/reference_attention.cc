#include "ops/reference/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

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

double Load(const KvView& kv, Part part, int32_t sequence, int32_t position, int32_t layer, int32_t kv_head,
            int32_t d) {
  const Place place = Find(kv, part, sequence, position, layer, kv_head, d);
  return LoadAsFloat(place.frame, kv.dtype, place.index);
}

void Store(const KvView& kv, Part part, const RowsView& rows, const TensorView& from, int32_t layer) {
  for (int32_t row = 0; row < rows.rows; ++row)
    for (int32_t head = 0; head < kv.kv_heads; ++head)
      for (int32_t d = 0; d < kv.head_dim; ++d) {
        const Place place = Find(kv, part, rows.row_sequence[row], rows.row_pos[row], layer, head, d);
        StoreFromFloat(place.frame, kv.dtype, place.index, from.f32(row)[head * kv.head_dim + d]);
      }
}

void AttendHead(const AttentionArgs& args, int32_t row, int32_t head) {
  const KvView& kv = args.kv;
  const int32_t kv_head = head / (args.heads / kv.kv_heads);
  const int32_t sequence = args.rows.row_sequence[row];
  const int32_t end = args.rows.row_pos[row] + 1;
  const int32_t begin = args.window > 0 ? std::max(0, end - args.window) : 0;
  const float* q = args.q.f32(row) + int64_t{head} * kv.head_dim;
  float* out = args.out.f32(row) + int64_t{head} * kv.head_dim;

  std::vector<double> p(end - begin);
  for (int32_t j = begin; j < end; ++j) {
    double s = 0;
    for (int32_t d = 0; d < kv.head_dim; ++d) s += q[d] * Load(kv, Part::kKey, sequence, j, args.layer, kv_head, d);
    s *= args.scale;
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
