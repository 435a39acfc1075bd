#include <algorithm>

#include "base/check.h"
#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/layout.h"

namespace openlora {
namespace {

// Columns [begin, end) of a packed row.
void GatherRow(const Weight& table, int64_t row, int64_t begin, int64_t end, float* out) {
  const char* const panel = static_cast<const char*>(table.data) + row / kPanel * PanelBytes(table.dtype, table.in);
  for (int64_t k = begin; k < end; ++k)
    out[k] = LoadAsFloat(panel, table.dtype, PanelIndex(table.dtype, row % kPanel, k));
}

// coefficients[entry][rank] = weight * scale * A[rank, token of the entry's row]
void GatherA(const EmbedArgs& args, const LoraJob& job, float* coefficients) {
  const AdapterPages& pages = *args.pages;
  const int64_t tiles_across = TilesAcross(args.table->out, pages);
  for (int32_t e = 0; e < job.entries; ++e) {
    const int32_t token = args.tokens[args.entries->entry_row[job.entry_begin + e]];
    const float weight = args.entries->entry_weight[job.entry_begin + e] * job.scale;
    for (int32_t rank = 0; rank < job.rank; ++rank) {
      const int32_t eight = rank / kTileRanks, ranks = std::min(kTileRanks, job.rank - eight * kTileRanks);
      const uint32_t address = job.a[eight * tiles_across + token / pages.tile_columns];
      const int64_t index = TileAIndex(pages.dtype, ranks, rank % kTileRanks, token % pages.tile_columns);
      coefficients[e * job.rank_stride() + rank] =
          weight * LoadAsFloat(pages.pool + int64_t{address} * kTileUnitBytes, pages.dtype, index);
    }
  }
}

}  // namespace

void CpuOps::Embed(const EmbedArgs& args) {
  if (args.rows == 0) return;
  const Weight& table = *args.table;
  const int64_t hidden = table.in, element = static_cast<int64_t>(SizeOf(table.dtype));
  counters_.weight_bytes_read += static_cast<uint64_t>(args.rows * hidden * element);
  plan_.Build(args.entries, args.pages, &args.site, 1, /*in=*/1, &counters_);
  float* const coefficients = coefficients_.Get<float>(static_cast<size_t>(plan_.coefficient_floats));
  for (const LoraJob& job : plan_.jobs) {
    GatherA(args, job, coefficients + job.coefficients_begin);
    counters_.lora_bytes_read +=
        static_cast<uint64_t>(int64_t{job.rank} * job.entries * static_cast<int64_t>(SizeOf(args.pages->dtype)) +
                              SiteTileBytes(*this, *args.pages, job.rank, hidden));
  }
  // Members own columns, so that each can gather, expand and scale alone.
  Parallel(DivideUp(hidden, kPanel), args.rows * hidden * 8, [&](int64_t panel_begin, int64_t panel_end) {
    const int64_t begin = panel_begin * kPanel, end = std::min(panel_end * kPanel, hidden);
    for (int32_t row = 0; row < args.rows; ++row) {
      OPENLORA_CHECK(args.tokens[row] >= 0 && args.tokens[row] < table.out);
      GatherRow(table, args.tokens[row], begin, end, args.out.f32(row));
    }
    for (const LoraJob& job : plan_.jobs) {
      ExpandArgs e;
      e.coefficients = coefficients + job.coefficients_begin;
      e.rank_stride = job.rank_stride();
      e.entry_row = args.entries->entry_row + job.entry_begin;
      e.entries = job.entries;
      e.pool = args.pages->pool;
      e.tiles = job.b;
      e.tile_columns = args.pages->tile_columns;
      e.rank = job.rank;
      e.out = hidden;
      e.y = args.out.f32();
      e.y_stride = args.out.stride;
      e.panel_begin = panel_begin;
      e.panel_end = panel_end;
      kernels_.expand[static_cast<int>(args.pages->dtype)](e);
    }
    if (args.scale == 1) return;
    for (int32_t row = 0; row < args.rows; ++row) kernels_.scale(args.out.f32(row) + begin, args.scale, end - begin);
  });
}

}  // namespace openlora
