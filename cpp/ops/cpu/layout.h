#pragma once

#include <cstdint>

#include "ops/batch_view.h"
#include "ops/cpu/kernels.h"
#include "ops/int4_format.h"
#include "ops/int8_adapter.h"
#include "ops/int8_format.h"
#include "tensor/weight_format.h"

// Where an element stands in packed weights and tiles (kernels.h draws the layouts). In elements of the dtype.

namespace openlora {

// To be raised whenever Pack writes other bytes, in any format: weights packed before are on users' disks. CpuPack's
// test of the packed bytes tells.
inline constexpr char kPackedLayout[] = "cpu-1";

constexpr int64_t DivideUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }
constexpr int64_t RoundUp(int64_t value, int64_t unit) { return DivideUp(value, unit) * unit; }

static_assert(kInt8GroupBytes == kPanel * (kInt8GroupK + static_cast<int64_t>(sizeof(uint16_t))));
static_assert(kInt4GroupBytes == kPanel * (kInt4GroupK / 2 + static_cast<int64_t>(sizeof(uint16_t))));

// Of a format that has its own x.
constexpr int FormatIndex(WeightFormat format) { return format.kind - WeightFormat::kInt8; }
constexpr int64_t GroupK(WeightFormat format) {
  return format == WeightFormat::kInt8 ? kInt8GroupK : format == WeightFormat::kInt4 ? kInt4GroupK : kBF16DotGroupK;
}
// Of a quantised one.
constexpr int64_t GroupBytes(WeightFormat format) {
  return format == WeightFormat::kInt8 ? kInt8GroupBytes : kInt4GroupBytes;
}

constexpr int64_t PanelBytes(WeightFormat format, int64_t in) {
  if (format.is_quantised()) return DivideUp(in, GroupK(format)) * GroupBytes(format);
  const DType dtype = format.dtype();
  const int64_t k = dtype == DType::kBF16 ? RoundUp(in, 2) : in;
  return k * kPanel * static_cast<int64_t>(SizeOf(dtype));
}

// Of a row, without what pads its panel.
constexpr int64_t RowBytes(WeightFormat format, int64_t in) {
  if (format.is_quantised()) return DivideUp(in, GroupK(format)) * GroupBytes(format) / kPanel;
  return in * static_cast<int64_t>(SizeOf(format.dtype()));
}

// Of (lane of the panel, k).
constexpr int64_t PanelIndex(DType dtype, int64_t lane, int64_t k) {
  if (dtype == DType::kBF16) return k / 2 * (2 * kPanel) + lane * 2 + k % 2;
  return k * kPanel + lane;
}

// Of (lane, k) in a group of an int8 panel: a byte. The lanes' scales stand behind the bytes.
constexpr int64_t Int8Index(int64_t lane, int64_t k) { return k / 4 * (4 * kPanel) + lane * 4 + k % 4; }
inline constexpr int64_t kInt8ScalesAt = kPanel * kInt8GroupK;

// Likewise of an int4 panel: the byte whose low half (k / 4 even) or high half holds the index.
constexpr int64_t Int4Index(int64_t lane, int64_t k) { return k / 8 * (4 * kPanel) + lane * 4 + k % 4; }
constexpr int Int4Shift(int64_t k) { return k / 4 % 2 * 4; }
inline constexpr int64_t kInt4ScalesAt = kPanel * kInt4GroupK / 2;

// Of (rank, column) in an A tile of `ranks` ranks; of int8, in the codes of a group.
constexpr int64_t TileAIndex(DType dtype, int64_t ranks, int64_t rank, int64_t column) {
  if (dtype != DType::kBF16) return (column / 2 * ranks + rank) * 2 + column % 2;
  const int64_t k = column % 4;  // stored 0, 2, 1, 3
  return (column / 4 * ranks + rank) * 4 + (k % 2 * 2 + k / 2);
}

// Of (rank, column) in a B tile of `ranks` ranks and `columns` columns.
constexpr int64_t TileBIndex(DType dtype, int64_t ranks, int64_t columns, int64_t rank, int64_t column) {
  const int64_t panel = column / kPanel * kPanel, lane = column - panel;
  const int64_t width = columns - panel < kPanel ? columns - panel : kPanel;
  const bool is_paired = dtype == DType::kBF16 && (rank | 1) < ranks;
  return panel * ranks + (is_paired ? rank / 2 * 2 * width + lane * 2 + rank % 2 : rank * width + lane);
}

// Bytes: where the group of `column`, its first one, stands in an int8 tile, and in a group the codes, behind the
// scales.
constexpr int64_t Int8CodesAt(int64_t ranks) { return ranks * static_cast<int64_t>(sizeof(uint16_t)); }
constexpr int64_t Int8GroupAt(int64_t ranks, int64_t column) {
  return column * ranks + column / kInt8AdapterGroup * Int8CodesAt(ranks);
}
static_assert(kInt8AdapterGroup == kScaleColumns && kScaleColumns == kPanel && kPanel == kTileGroup);

// Of an A tile.
inline float TileAValue(const uint8_t* tile, DType dtype, int64_t ranks, int64_t rank, int64_t column) {
  if (dtype != DType::kI8) return LoadAsFloat(tile, dtype, TileAIndex(dtype, ranks, rank, column));
  const int64_t k = column % kInt8AdapterGroup;
  const uint8_t* const group = tile + Int8GroupAt(ranks, column - k);
  const auto code = static_cast<int8_t>(group[Int8CodesAt(ranks) + TileAIndex(dtype, ranks, rank, k)]);
  return static_cast<float>(code) * LoadAsFloat(group, DType::kBF16, rank);
}

}  // namespace openlora
