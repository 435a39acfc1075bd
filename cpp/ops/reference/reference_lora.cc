#include "ops/reference/reference_lora.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/int8_adapter.h"

namespace openlora::reference {
namespace {

int64_t GroupsOf(int64_t columns) { return (columns + kInt8AdapterGroup - 1) / kInt8AdapterGroup; }

// Where rank's scale of a group stands in an int8 tile.
int64_t ScaleAt(int32_t ranks, int64_t columns, int32_t rank, int64_t group) {
  return ranks * columns + (rank * GroupsOf(columns) + group) * static_cast<int64_t>(sizeof(uint16_t));
}

// The least bf16 that is `value` or more, or 0 for one below 2^-126.
float RoundUpToBF16(float value) {
  if (value < std::ldexp(1.0f, -126)) return 0;
  uint16_t bits = FloatToBF16(value);
  if (BF16ToFloat(bits) < value) ++bits;
  return BF16ToFloat(bits);
}

void StoreInt8Row(std::span<const float> values, int32_t ranks, int32_t rank, uint8_t* tile) {
  const auto columns = static_cast<int64_t>(values.size());
  uint8_t* to = tile + rank * columns;
  for (int64_t group = 0; group < GroupsOf(columns); ++group) {
    const int64_t begin = group * kInt8AdapterGroup, end = std::min(columns, begin + kInt8AdapterGroup);
    const Int8AdapterValues of_group = Int8QuantiseAdapter(values.subspan(begin, end - begin));
    const uint16_t scale = FloatToBF16(of_group.scale);  // it is one
    std::memcpy(tile + ScaleAt(ranks, columns, rank, group), &scale, sizeof scale);
    for (const int32_t q : of_group.q) *to++ = static_cast<uint8_t>(q);
  }
}

double TileValue(const uint8_t* tile, DType dtype, int32_t ranks, int32_t columns, int32_t rank, int32_t column) {
  const int64_t index = int64_t{rank} * columns + column;
  if (dtype != DType::kI8) return LoadAsFloat(tile, dtype, index);
  uint16_t scale;
  std::memcpy(&scale, tile + ScaleAt(ranks, columns, rank, column / kInt8AdapterGroup), sizeof scale);
  return double{BF16ToFloat(scale)} * static_cast<int8_t>(tile[index]);
}

}  // namespace

Int8AdapterValues Int8QuantiseAdapter(std::span<const float> group) {
  float largest = 0;
  for (const float value : group) largest = std::max(largest, std::abs(value));
  Int8AdapterValues result{RoundUpToBF16(largest / 127), std::vector<int32_t>(group.size())};
  if (result.scale == 0) return result;
  for (size_t i = 0; i < group.size(); ++i) result.q[i] = static_cast<int32_t>(std::lrint(group[i] / result.scale));
  return result;
}

void StoreTileRow(std::span<const float> values, int32_t ranks, int32_t rank, DType dtype, void* tile) {
  if (dtype == DType::kI8) return StoreInt8Row(values, ranks, rank, static_cast<uint8_t*>(tile));
  for (size_t i = 0; i < values.size(); ++i)
    StoreFromFloat(tile, dtype, static_cast<int64_t>(rank * values.size() + i), values[i]);
}

std::vector<double> GatherTiles(const AdapterPages& pages, const SlotPages& slot, uint32_t first, int32_t rank,
                                int64_t columns, uint64_t* bytes_read) {
  std::vector<double> matrix(rank * columns);
  for (int32_t rank_begin = 0; rank_begin < rank; rank_begin += kTileRanks) {
    const int32_t ranks = std::min(kTileRanks, rank - rank_begin);
    const TileRun& run = slot.runs[first + rank_begin / kTileRanks];
    for (int64_t begin = 0, end = 0; begin < columns; begin = end) {
      const TilePlace place = TileAt(run, begin);
      end = std::min(columns, place.column_end);
      const auto width = static_cast<int32_t>(end - begin);
      const uint8_t* tile = pages.pool + slot.frames[place.frame] * pages.frame_bytes + place.offset;
      *bytes_read += TileBytes(pages.dtype, ranks, width);
      for (int32_t r = 0; r < ranks; ++r)
        for (int32_t c = 0; c < width; ++c)
          matrix[(rank_begin + r) * columns + begin + c] = TileValue(tile, pages.dtype, ranks, width, r, c);
    }
  }
  return matrix;
}

}  // namespace openlora::reference
