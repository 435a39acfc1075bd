#include <algorithm>

#include "base/check.h"
#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/layout.h"

namespace openlora {
namespace {

void GatherInt8(const QuantisedKernels& kernels, const uint8_t* group, int64_t lane, int64_t count, float* out) {
  const float scale = LoadAsFloat(group + kInt8ScalesAt, DType::kF16, lane);
  float rotated[kInt8GroupK];
  for (int64_t k = 0; k < kInt8GroupK; ++k) rotated[k] = static_cast<float>(group[Int8Index(lane, k)] - 128) * scale;
  kernels.rotate_back(rotated, static_cast<int32_t>(count), out);
}

void GatherInt4(const uint8_t* group, int64_t lane, int64_t count, float* out) {
  const float scale = LoadAsFloat(group + kInt4ScalesAt, DType::kF16, lane);
  for (int64_t k = 0; k < count; ++k)
    out[k] = static_cast<float>(kInt4Table[group[Int4Index(lane, k)] >> Int4Shift(k) & 15]) * scale;
}

// Columns [begin, end) of a packed row; of a quantised table, begin is a multiple of a group.
void GatherRow(const QuantisedKernels& kernels, const Weight& table, int64_t row, int64_t begin, int64_t end,
               float* out) {
  const WeightFormat format = table.format;
  const uint8_t* const panel = static_cast<const uint8_t*>(table.data) + row / kPanel * PanelBytes(format, table.in);
  const int64_t lane = row % kPanel;
  if (!format.is_quantised()) {
    for (int64_t k = begin; k < end; ++k)
      out[k] = LoadAsFloat(panel, format.dtype(), PanelIndex(format.dtype(), lane, k));
    return;
  }
  for (int64_t k = begin; k < end; k += GroupK(format)) {
    const uint8_t* const group = panel + k / GroupK(format) * GroupBytes(format);
    const int64_t count = std::min(end - k, GroupK(format));
    if (format == WeightFormat::kInt8) {
      GatherInt8(kernels, group, lane, count, out + k);
    } else {
      GatherInt4(group, lane, count, out + k);
    }
  }
}

// That one value takes to read: of int8 its scale as well.
constexpr int64_t ValueBytes(DType dtype) {
  return static_cast<int64_t>(SizeOf(dtype) + (dtype == DType::kI8 ? sizeof(uint16_t) : 0));
}

// coefficients[entry][rank] = weight * scale * A[rank, token of the entry's row]
void GatherA(const EmbedArgs& args, const LoraJob& job, float* coefficients) {
  const AdapterPages& pages = *args.pages;
  for (int32_t e = 0; e < job.entries; ++e) {
    const int32_t token = args.tokens[args.entries->entry_row[job.entry_begin + e]];
    const float weight = args.entries->entry_weight[job.entry_begin + e] * job.scale;
    for (int32_t rank = 0; rank < job.rank; ++rank) {
      const int32_t eight = rank / kTileRanks;
      const TilePlace tile = TileAt(job.a[eight], token);
      const uint8_t* const data = pages.pool + job.frames[tile.frame] * pages.frame_bytes + tile.offset;
      coefficients[e * job.rank_stride() + rank] =
          weight * TileAValue(data, pages.dtype, job.ranks_of(eight), rank % kTileRanks, token - tile.column_begin);
    }
  }
}

}  // namespace

void CpuOps::Embed(const EmbedArgs& args) {
  if (args.rows == 0) return;
  const Weight& table = *args.table;
  const int64_t hidden = table.in;
  counters_.weight_bytes_read += static_cast<uint64_t>(args.rows * RowBytes(table.format, hidden));
  plan_.Build(args.entries, args.pages, &args.site, 1, /*in=*/1, &counters_);
  float* const coefficients = coefficients_.Get<float>(static_cast<size_t>(plan_.coefficient_floats));
  for (const LoraJob& job : plan_.jobs) {
    GatherA(args, job, coefficients + job.coefficients_begin);
    counters_.lora_bytes_read += static_cast<uint64_t>(int64_t{job.rank} * job.entries * ValueBytes(args.pages->dtype) +
                                                       SiteTileBytes(*args.pages, job.rank, hidden));
  }
  // Members own columns, whole groups of quantised weights, so that each can gather, expand and scale alone.
  static_assert(kInt8GroupK % kPanel == 0 && kInt8GroupK % kInt4GroupK == 0);
  Parallel(DivideUp(hidden, kInt8GroupK), args.rows * hidden * 8, [&](int64_t group_begin, int64_t group_end) {
    const int64_t begin = group_begin * kInt8GroupK, end = std::min(group_end * kInt8GroupK, hidden);
    for (int32_t row = 0; row < args.rows; ++row) {
      OPENLORA_CHECK(args.tokens[row] >= 0 && args.tokens[row] < table.out);
      GatherRow(kernels_.quantised, table, args.tokens[row], begin, end, args.out.f32(row));
    }
    for (const LoraJob& job : plan_.jobs) {
      TileOrder order;
      const Piece panels = {begin / kPanel, DivideUp(end, kPanel)};
      order.AddExpand(job, panels, hidden, *args.pages);
      ExpandArgs e;
      e.coefficients = coefficients + job.coefficients_begin;
      e.rank_stride = job.rank_stride();
      e.entry_row = args.entries->entry_row + job.entry_begin;
      e.entries = job.entries;
      e.spans = order.Finish();
      e.rank = job.rank;
      e.out = hidden;
      e.y = args.out.f32();
      e.y_stride = args.out.stride;
      e.panel_begin = panels.begin;
      e.panel_end = panels.end;
      kernels_.expand[static_cast<int>(args.pages->dtype)](e);
    }
    if (args.scale == 1) return;
    for (int32_t row = 0; row < args.rows; ++row) kernels_.scale(args.out.f32(row) + begin, args.scale, end - begin);
  });
}

}  // namespace openlora
