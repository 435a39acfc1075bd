#include <algorithm>
#include <bit>

#include "base/check.h"
#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/nearest.h"

namespace openlora {
namespace {

// The element d of (head, slot) in K, [kv_heads][head_dim][frame_tokens], and in V behind it, [kv_heads][frame_tokens]
// [head_dim].
int64_t KeyAt(const KvView& kv, int64_t head, int64_t slot, int64_t d) {
  return (head * kv.head_dim + d) * kv.frame_tokens + slot;
}
int64_t ValueAt(const KvView& kv, int64_t head, int64_t slot, int64_t d) {
  return ((kv.kv_heads + head) * kv.frame_tokens + slot) * kv.head_dim + d;
}

// The same in pairs, K [kv_heads][head_dim/2][frame_tokens][2], V [kv_heads][frame_tokens/2][head_dim][2].
int64_t PairedKeyAt(const KvView& kv, int64_t head, int64_t slot, int64_t d) {
  return head * kv.head_dim * kv.frame_tokens + (d / 2 * kv.frame_tokens + slot) * 2 + d % 2;
}
int64_t PairedValueAt(const KvView& kv, int64_t head, int64_t slot, int64_t d) {
  return (kv.kv_heads + head) * kv.frame_tokens * kv.head_dim + (slot / 2 * kv.head_dim + d) * 2 + slot % 2;
}

// One token's K and V.
template <typename Element, typename Convert>
void StoreToken(const float* k, const float* v, const KvView& kv, int32_t slot, uint8_t* frame,
                const Convert& convert) {
  Element* const to = reinterpret_cast<Element*>(frame);
  for (int64_t head = 0; head < kv.kv_heads; ++head, k += kv.head_dim, v += kv.head_dim) {
    for (int64_t d = 0; d < kv.head_dim; ++d) to[KeyAt(kv, head, slot, d)] = convert(k[d]);
    for (int64_t d = 0; d < kv.head_dim; ++d) to[ValueAt(kv, head, slot, d)] = convert(v[d]);
  }
}

void StoreTokenPaired(const float* k, const float* v, const KvView& kv, int32_t slot, uint8_t* frame) {
  uint16_t* const to = reinterpret_cast<uint16_t*>(frame);
  for (int64_t head = 0; head < kv.kv_heads; ++head, k += kv.head_dim, v += kv.head_dim) {
    for (int64_t d = 0; d < kv.head_dim; ++d) to[PairedKeyAt(kv, head, slot, d)] = FloatToBF16(k[d]);
    for (int64_t d = 0; d < kv.head_dim; ++d) to[PairedValueAt(kv, head, slot, d)] = FloatToBF16(v[d]);
  }
}

// The scale of a row, in bf16 (kv_view.h).
uint16_t Int8Scale(const float* row, int64_t head_dim) {
  uint32_t largest = 0;  // magnitudes are ordered as their bits are, infinity and NaN above all others
  for (int64_t d = 0; d < head_dim; ++d) largest = std::max(largest, std::bit_cast<uint32_t>(row[d]) & 0x7fffffffu);
  if (largest >= 0x7f800000u) return 0x7fc0;
  return BF16NoLess(std::bit_cast<float>(largest) / 127);
}

// As int8: put(d, q).
template <typename Put>
void QuantiseRow(const float* row, int64_t head_dim, uint16_t stored_scale, const Put& put) {
  const float scale = BF16ToFloat(stored_scale);
  if (!(scale > 0)) {
    for (int64_t d = 0; d < head_dim; ++d) put(d, int8_t{0});
    return;
  }
  for (int64_t d = 0; d < head_dim; ++d) put(d, static_cast<int8_t>(NearestInteger(row[d] / scale)));
}

void StoreTokenInt8(const float* k, const float* v, const KvView& kv, int32_t slot, uint8_t* frame, uint16_t* scales) {
  int8_t* const to = reinterpret_cast<int8_t*>(frame);
  for (int64_t head = 0; head < kv.kv_heads; ++head, k += kv.head_dim, v += kv.head_dim) {
    uint16_t& key_scale = scales[head * kv.frame_tokens + slot];
    uint16_t& value_scale = scales[(kv.kv_heads + head) * kv.frame_tokens + slot];
    key_scale = Int8Scale(k, kv.head_dim);
    value_scale = Int8Scale(v, kv.head_dim);
    QuantiseRow(k, kv.head_dim, key_scale, [&](int64_t d, int8_t q) { to[KeyAt(kv, head, slot, d)] = q; });
    QuantiseRow(v, kv.head_dim, value_scale, [&](int64_t d, int8_t q) { to[ValueAt(kv, head, slot, d)] = q; });
  }
}

}  // namespace

void CpuOps::KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv, int32_t layer) {
  OPENLORA_CHECK(k.cols == int64_t{kv.kv_heads} * kv.head_dim && v.cols == k.cols && k.rows >= rows.rows);
  OPENLORA_CHECK(kv.scale_bytes >= KvScaleBytes(kv.dtype, kv.kv_heads, kv.frame_tokens));
  Parallel(rows.rows, rows.rows * k.cols * 2, [&](int64_t begin, int64_t end) {
    for (int32_t row = static_cast<int32_t>(begin); row < end; ++row) {
      const int32_t sequence = rows.row_sequence[row];
      const int32_t block = rows.row_pos[row] / kv.frame_tokens, slot = rows.row_pos[row] % kv.frame_tokens;
      uint8_t* const frame = kv.Frame(sequence, block, layer);
      switch (kv.dtype) {
        case DType::kF32:
          StoreToken<float>(k.f32(row), v.f32(row), kv, slot, frame, [](float value) { return value; });
          break;
        case DType::kF16:
          StoreToken<uint16_t>(k.f32(row), v.f32(row), kv, slot, frame, FloatToF16);
          break;
        case DType::kBF16:
          if (kv.has_bf16_dots) {
            StoreTokenPaired(k.f32(row), v.f32(row), kv, slot, frame);
            break;
          }
          StoreToken<uint16_t>(k.f32(row), v.f32(row), kv, slot, frame, FloatToBF16);
          break;
        case DType::kI8:
          StoreTokenInt8(k.f32(row), v.f32(row), kv, slot, frame, kv.Scales(sequence, block, layer));
          break;
      }
    }
  });
}

int64_t CpuOps::KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) const {
  return 2 * int64_t{kv_heads} * head_dim * tokens * static_cast<int64_t>(SizeOf(dtype));
}

}  // namespace openlora
