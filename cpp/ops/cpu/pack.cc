#include <cstring>

#include "base/check.h"
#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/layout.h"

namespace openlora {
namespace {

// Columns that are read from each row before the next row: whole cache lines, and the panel's part stays in L1.
constexpr int64_t kBlockColumns = 32;

template <DType dtype>
struct Element {
  using Bits = uint16_t;
  static float ToFloat(Bits bits) { return dtype == DType::kF16 ? F16ToFloat(bits) : BF16ToFloat(bits); }
  static Bits FromFloat(float value) { return dtype == DType::kF16 ? FloatToF16(value) : FloatToBF16(value); }
};
template <>
struct Element<DType::kF32> {
  using Bits = float;
  static float ToFloat(float value) { return value; }
  static float FromFloat(float value) { return value; }
};

// `rows` rows [in] (perhaps unaligned) become one panel; lanes from `rows` on, and the pair of an odd k, are zero.
template <DType from, DType to>
void PackPanel(const char* source, int64_t rows, int64_t in, void* panel) {
  using From = typename Element<from>::Bits;
  using To = typename Element<to>::Bits;
  To* const packed = static_cast<To*>(panel);
  if (rows < kPanel || (to == DType::kBF16 && in % 2 != 0))
    std::memset(panel, 0, static_cast<size_t>(PanelBytes(to, in)));
  for (int64_t begin = 0; begin < in; begin += kBlockColumns) {
    const int64_t columns = in - begin < kBlockColumns ? in - begin : kBlockColumns;
    for (int64_t lane = 0; lane < rows; ++lane) {
      From block[kBlockColumns];
      std::memcpy(block, source + (lane * in + begin) * static_cast<int64_t>(sizeof(From)),
                  static_cast<size_t>(columns) * sizeof(From));
      for (int64_t k = 0; k < columns; ++k) {
        To& place = packed[PanelIndex(to, lane, begin + k)];
        if constexpr (from == to) {
          place = block[k];
        } else {
          place = Element<to>::FromFloat(Element<from>::ToFloat(block[k]));
        }
      }
    }
  }
}

using PackFunction = void (*)(const char* source, int64_t rows, int64_t in, void* panel);

template <DType from>
PackFunction PackTo(DType to) {
  switch (to) {
    case DType::kF32:
      return &PackPanel<from, DType::kF32>;
    case DType::kF16:
      return &PackPanel<from, DType::kF16>;
    case DType::kBF16:
      return &PackPanel<from, DType::kBF16>;
  }
  return nullptr;
}

PackFunction PackFromTo(DType from, DType to) {
  switch (from) {
    case DType::kF32:
      return PackTo<DType::kF32>(to);
    case DType::kF16:
      return PackTo<DType::kF16>(to);
    case DType::kBF16:
      return PackTo<DType::kBF16>(to);
  }
  return nullptr;
}

}  // namespace

int64_t CpuOps::PackedBytes(DType dtype, int64_t out, int64_t in) const {
  return DivideUp(out, kPanel) * PanelBytes(dtype, in);
}

void CpuOps::Pack(const SourceView& source, DType dtype, int64_t out, int64_t out_begin, void* packed) {
  static_assert(kPackRows % kPanel == 0);
  OPENLORA_CHECK(out_begin % kPanel == 0 && out_begin + source.rows <= out);
  const int64_t in = source.cols, panel_bytes = PanelBytes(dtype, in);
  const int64_t row_bytes = in * static_cast<int64_t>(SizeOf(source.dtype));
  const PackFunction pack = PackFromTo(source.dtype, dtype);
  char* const first = static_cast<char*>(packed) + out_begin / kPanel * panel_bytes;
  Parallel(DivideUp(source.rows, kPanel), source.rows * in, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t row = panel * kPanel;
      const int64_t rows = source.rows - row < kPanel ? source.rows - row : kPanel;
      pack(static_cast<const char*>(source.data) + row * row_bytes, rows, in, first + panel * panel_bytes);
    }
  });
}

int64_t CpuOps::TileBytes(DType dtype, int32_t ranks, int32_t columns) const {
  return RoundUp(TileElements(ranks, columns) * static_cast<int64_t>(SizeOf(dtype)), kTileUnitBytes);
}

void CpuOps::PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                       void* tile) const {
  std::memset(tile, 0, static_cast<size_t>(TileBytes(dtype, ranks, columns)));
  for (int32_t rank = 0; rank < ranks; ++rank)
    for (int32_t column = 0; column < columns; ++column)
      StoreFromFloat(tile, dtype, TileAIndex(dtype, ranks, rank, column), values[rank * stride + column]);
}

void CpuOps::PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                       void* tile) const {
  std::memset(tile, 0, static_cast<size_t>(TileBytes(dtype, ranks, columns)));
  for (int32_t column = 0; column < columns; ++column)
    for (int32_t rank = 0; rank < ranks; ++rank)
      StoreFromFloat(tile, dtype, TileBIndex(dtype, ranks, columns, rank, column), values[column * stride + rank]);
}

}  // namespace openlora
