#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/layout.h"
#include "ops/cpu/nearest.h"

namespace openlora {
namespace {

// Quantises `count` values, at most a group, that stand `stride` apart; the scale.
uint16_t QuantiseGroup(const float* values, int64_t stride, int64_t count, int8_t* q) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i * stride]));
  if (largest / 127 < 0x1p-126f) return 0;  // the scale would be subnormal
  const uint16_t bits = BF16NoLess(largest / 127);
  const float scale = BF16ToFloat(bits);
  for (int64_t i = 0; i < count; ++i) q[i] = static_cast<int8_t>(NearestInteger(values[i * stride] / scale));
  return bits;
}

void StoreScale(uint8_t* group, int32_t rank, uint16_t bits) {
  std::memcpy(group + rank * sizeof bits, &bits, sizeof bits);
}

void PackInt8TileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, uint8_t* tile) {
  for (int32_t begin = 0; begin < columns; begin += kInt8AdapterGroup) {
    const int32_t count = std::min(kInt8AdapterGroup, columns - begin);
    uint8_t* const group = tile + Int8GroupAt(ranks, begin);
    int8_t* const codes = reinterpret_cast<int8_t*>(group + Int8CodesAt(ranks));
    for (int32_t rank = 0; rank < ranks; ++rank) {
      int8_t q[kInt8AdapterGroup] = {};
      StoreScale(group, rank, QuantiseGroup(values + rank * stride + begin, 1, count, q));
      for (int32_t k = 0; k < count; ++k) codes[TileAIndex(DType::kI8, ranks, rank, k)] = q[k];
    }
  }
}

void PackInt8TileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, uint8_t* tile) {
  for (int32_t begin = 0; begin < columns; begin += kInt8AdapterGroup) {
    const int32_t count = std::min(kInt8AdapterGroup, columns - begin);
    uint8_t* const group = tile + Int8GroupAt(ranks, begin);
    int8_t* const codes = reinterpret_cast<int8_t*>(group + Int8CodesAt(ranks));
    for (int32_t rank = 0; rank < ranks; ++rank)
      StoreScale(group, rank, QuantiseGroup(values + begin * stride + rank, stride, count, codes + rank * count));
  }
}

}  // namespace

void CpuOps::PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                       void* tile) const {
  std::memset(tile, 0, static_cast<size_t>(TileBytes(dtype, ranks, columns)));
  if (dtype == DType::kI8) return PackInt8TileA(values, stride, ranks, columns, static_cast<uint8_t*>(tile));
  for (int32_t rank = 0; rank < ranks; ++rank)
    for (int32_t column = 0; column < columns; ++column)
      StoreFromFloat(tile, dtype, TileAIndex(dtype, ranks, rank, column), values[rank * stride + column]);
}

void CpuOps::PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                       void* tile) const {
  std::memset(tile, 0, static_cast<size_t>(TileBytes(dtype, ranks, columns)));
  if (dtype == DType::kI8) return PackInt8TileB(values, stride, ranks, columns, static_cast<uint8_t*>(tile));
  for (int32_t column = 0; column < columns; ++column)
    for (int32_t rank = 0; rank < ranks; ++rank)
      StoreFromFloat(tile, dtype, TileBIndex(dtype, ranks, columns, rank, column), values[column * stride + rank]);
}

}  // namespace openlora
