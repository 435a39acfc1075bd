#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/layout.h"
#include "ops/cpu/nearest.h"

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

// The largest magnitude in a group; NaN, if a value is not finite.
template <int count>
float LargestOf(const float (&group)[count]) {
  float largest = 0, zero = 0;
  for (const float value : group) {
    largest = std::max(largest, std::abs(value));
    zero += value * 0;
  }
  return largest + zero;
}

// The scale of a rotated group of weights, as f16: rounded up, so that no weight is beyond ±127; NaN, if one is not
// finite or too large.
uint16_t Int8ScaleOf(const float (&g)[kInt8GroupK]) {
  const float scale = LargestOf(g) / 127;
  uint16_t bits = FloatToF16(scale);
  if (F16ToFloat(bits) < scale) ++bits;
  return std::isfinite(F16ToFloat(bits)) ? bits : uint16_t{0x7e00};
}

// Up to `count` values of a row, as f32, padded with zeros.
template <DType from, int count>
void ReadGroup(const char* source, int64_t values, float (&group)[count]) {
  using From = typename Element<from>::Bits;
  From bits[count] = {};
  std::memcpy(bits, source, static_cast<size_t>(std::min<int64_t>(values, count)) * sizeof(From));
  for (int k = 0; k < count; ++k) group[k] = Element<from>::ToFloat(bits[k]);
}

template <DType from>
void PackInt8Panel(const QuantisedKernels& kernels, const char* source, int64_t rows, int64_t in, void* panel) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(typename Element<from>::Bits));
  uint8_t* group = static_cast<uint8_t*>(panel);
  for (int64_t begin = 0; begin < in; begin += kInt8GroupK, group += kInt8GroupBytes) {
    uint16_t* const scales = reinterpret_cast<uint16_t*>(group + kInt8ScalesAt);
    std::memset(group, 128, kInt8ScalesAt);
    std::memset(scales, 0, kPanel * sizeof(uint16_t));
    for (int64_t lane = 0; lane < rows; ++lane) {
      float values[kInt8GroupK], g[kInt8GroupK];
      ReadGroup<from>(source + (lane * in + begin) * kBytes, in - begin, values);
      kernels.rotate(values, kInt8GroupK, g);
      scales[lane] = Int8ScaleOf(g);
      const float scale = F16ToFloat(scales[lane]);
      if (!(scale > 0)) continue;
      for (int64_t k = 0; k < kInt8GroupK; ++k)
        group[Int8Index(lane, k)] = static_cast<uint8_t>(128 + NearestInteger(g[k] / scale));
    }
  }
}

// The scale of a group of int4 weights, as f16: NaN, if one is not finite or too large.
uint16_t Int4ScaleOf(const QuantisedKernels& kernels, const float (&w)[kInt4GroupK]) {
  const float largest = LargestOf(w);
  if (std::isnan(largest)) return 0x7e00;
  if (largest < kInt4Least) return 0;
  const uint16_t bits = FloatToF16(kernels.int4_scale(w, largest));
  return std::isfinite(F16ToFloat(bits)) ? bits : uint16_t{0x7e00};
}

template <DType from>
void PackInt4Panel(const QuantisedKernels& kernels, const char* source, int64_t rows, int64_t in, void* panel) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(typename Element<from>::Bits));
  uint8_t* group = static_cast<uint8_t*>(panel);
  for (int64_t begin = 0; begin < in; begin += kInt4GroupK, group += kInt4GroupBytes) {
    uint16_t* const scales = reinterpret_cast<uint16_t*>(group + kInt4ScalesAt);
    std::memset(group, kInt4Nought << 4 | kInt4Nought, kInt4ScalesAt);
    std::memset(scales, 0, kPanel * sizeof(uint16_t));
    for (int64_t lane = 0; lane < rows; ++lane) {
      float w[kInt4GroupK];
      ReadGroup<from>(source + (lane * in + begin) * kBytes, in - begin, w);
      scales[lane] = Int4ScaleOf(kernels, w);
      const float scale = F16ToFloat(scales[lane]);
      if (scale == 0 || std::isnan(scale)) continue;
      uint8_t index[kInt4GroupK];
      kernels.int4_assign(w, scale, index);
      for (int64_t k = 0; k < kInt4GroupK; ++k) {
        uint8_t& byte = group[Int4Index(lane, k)];
        byte = static_cast<uint8_t>((byte & 0xf0 >> Int4Shift(k)) | index[k] << Int4Shift(k));
      }
    }
  }
}

using PackFunction = void (*)(const QuantisedKernels& kernels, const char* source, int64_t rows, int64_t in,
                              void* panel);

template <DType from, DType to>
void PackPlain(const QuantisedKernels&, const char* source, int64_t rows, int64_t in, void* panel) {
  PackPanel<from, to>(source, rows, in, panel);
}

template <DType from>
PackFunction PackTo(WeightFormat to) {
  switch (to.kind) {
    case WeightFormat::kF32:
      return &PackPlain<from, DType::kF32>;
    case WeightFormat::kF16:
      return &PackPlain<from, DType::kF16>;
    case WeightFormat::kBF16:
    case WeightFormat::kBF16Dot:
      return &PackPlain<from, DType::kBF16>;
    case WeightFormat::kInt8:
      return &PackInt8Panel<from>;
    case WeightFormat::kInt4:
      return &PackInt4Panel<from>;
  }
  return nullptr;
}

PackFunction PackFromTo(DType from, WeightFormat to) {
  switch (from) {
    case DType::kF32:
      return PackTo<DType::kF32>(to);
    case DType::kF16:
      return PackTo<DType::kF16>(to);
    case DType::kBF16:
      return PackTo<DType::kBF16>(to);
    case DType::kI8:  // no source has it
      break;
  }
  return nullptr;
}

}  // namespace

const char* CpuOps::packed_layout() const { return kPackedLayout; }

int64_t CpuOps::PackedBytes(WeightFormat format, int64_t out, int64_t in) const {
  return DivideUp(out, kPanel) * PanelBytes(format, in);
}

void CpuOps::Pack(const SourceView& source, WeightFormat format, int64_t out, int64_t out_begin, void* packed) {
  static_assert(kPackRows % kPanel == 0);
  OPENLORA_CHECK(out_begin % kPanel == 0 && out_begin + source.rows <= out);
  const int64_t in = source.cols, panel_bytes = PanelBytes(format, in);
  const int64_t row_bytes = in * static_cast<int64_t>(SizeOf(source.dtype));
  const PackFunction pack = PackFromTo(source.dtype, format);
  char* const first = static_cast<char*>(packed) + out_begin / kPanel * panel_bytes;
  Parallel(DivideUp(source.rows, kPanel), source.rows * in, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t row = panel * kPanel;
      const int64_t rows = source.rows - row < kPanel ? source.rows - row : kPanel;
      pack(kernels_.quantised, static_cast<const char*>(source.data) + row * row_bytes, rows, in,
           first + panel * panel_bytes);
    }
  });
}

}  // namespace openlora
