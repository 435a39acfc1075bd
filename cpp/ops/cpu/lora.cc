#include <algorithm>

#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/layout.h"

// The adapters' part of Project and Embed.

namespace openlora {
namespace {

// The units of a job whose costs begin in [cost_begin, cost_end) of the whole plan's.
Piece UnitsOf(const LoraJob& job, int64_t cost_begin, int64_t cost_end) {
  const auto first_from = [&](int64_t cost) {
    return std::clamp<int64_t>(DivideUp(std::max<int64_t>(cost - job.cost_before, 0), job.unit_cost), 0, job.units);
  };
  return {first_from(cost_begin), first_from(cost_end)};
}

// Calls each(job, unit) for a member's share of the shrinks.
template <typename Each>
void ForEachUnit(const LoraPlan& plan, int member, int members, const Each& each) {
  const int64_t cost_begin = plan.cost * member / members, cost_end = plan.cost * (member + 1) / members;
  for (const LoraJob& job : plan.jobs) {
    const Piece units = UnitsOf(job, cost_begin, cost_end);
    for (int64_t i = units.begin; i < units.end; ++i) {
      const int64_t pieces = DivideUp(job.entries, kUnitEntries);
      each(job, LoraUnit{i / pieces / plan.chunks, i / pieces % plan.chunks, i % pieces});
    }
  }
}

// Calls each(job, panels) for the jobs that act on panels [begin, end) of the products' panels laid end to end.
template <typename Each>
void ForEachExpand(const LoraPlan& plan, std::span<const Product> products, Piece panels, const Each& each) {
  for (const LoraJob& job : plan.jobs) {
    int64_t before = 0;
    for (int32_t p = 0; p < job.product; ++p) before += DivideUp(products[p].weight->out, kPanel);
    const int64_t of_product = DivideUp(products[job.product].weight->out, kPanel);
    const Piece piece = {std::max<int64_t>(panels.begin - before, 0), std::min(panels.end - before, of_product)};
    if (piece.begin < piece.end) each(job, piece);
  }
}

}  // namespace

// One member's share of the shrinks.
void CpuOps::ShrinkShare(const ProjectArgs& args, int member, int members, float* partial) {
  const AdapterPages& pages = *args.pages;
  const int64_t in = args.x.cols, chunk_columns = ShrinkChunk(pages.dtype);
  TileOrder& order = tile_order_[static_cast<size_t>(member)];
  order.Clear();
  ForEachUnit(plan_, member, members,
              [&](const LoraJob& job, const LoraUnit& unit) { order.AddUnit(job, unit, in, pages); });
  const TileSpan* spans = order.Finish();
  ForEachUnit(plan_, member, members, [&](const LoraJob& job, const LoraUnit& unit) {
    const int32_t entry = static_cast<int32_t>(unit.piece * kUnitEntries);
    ShrinkArgs a;
    a.x = args.x.f32();
    a.x_stride = args.x.stride;
    a.entry_row = args.entries->entry_row + job.entry_begin + entry;
    a.entries = std::min(job.entries - entry, kUnitEntries);
    a.spans = spans;
    a.ranks = job.ranks_of(unit.eight);
    a.column_begin = unit.chunk * chunk_columns;
    a.columns = static_cast<int32_t>(std::min<int64_t>(chunk_columns, in - a.column_begin));
    a.partial =
        partial + job.partial_begin + ((unit.eight * plan_.chunks + unit.chunk) * job.entries + entry) * kTileRanks;
    kernels_.shrink[static_cast<int>(pages.dtype)](a);
    spans = SkipColumns(spans, a.columns);
  });
}

// What every adapter's shrink gives: its chunks' sums, times weight and scale. Each member has its own copy.
void CpuOps::SumChunks(const ProjectArgs& args, const float* partial, float* coefficients) {
  for (const LoraJob& job : plan_.jobs)
    for (int64_t eight = 0; eight < job.eights(); ++eight)
      kernels_.sum_chunks(partial + job.partial_begin + eight * plan_.chunks * job.entries * kTileRanks, plan_.chunks,
                          job.entries, args.entries->entry_weight + job.entry_begin, job.scale,
                          coefficients + job.coefficients_begin + eight * kTileRanks, job.rank_stride());
}

// All adapters onto panels [begin, end) of the products' panels laid end to end.
void CpuOps::ExpandPanels(const ProjectArgs& args, int member, Piece panels, const float* coefficients) {
  const AdapterPages& pages = *args.pages;
  TileOrder& order = tile_order_[static_cast<size_t>(member)];
  order.Clear();
  ForEachExpand(plan_, args.products, panels, [&](const LoraJob& job, Piece piece) {
    order.AddExpand(job, piece, args.products[job.product].weight->out, pages);
  });
  const TileSpan* spans = order.Finish();
  ForEachExpand(plan_, args.products, panels, [&](const LoraJob& job, Piece piece) {
    const Product& product = args.products[job.product];
    ExpandArgs e;
    e.panel_begin = piece.begin;
    e.panel_end = piece.end;
    e.coefficients = coefficients + job.coefficients_begin;
    e.rank_stride = job.rank_stride();
    e.entry_row = args.entries->entry_row + job.entry_begin;
    e.entries = job.entries;
    e.spans = spans;
    e.rank = job.rank;
    e.out = product.weight->out;
    e.y = product.out.f32();
    e.y_stride = product.out.stride;
    kernels_.expand[static_cast<int>(pages.dtype)](e);
    spans = SkipColumns(spans, job.eights() * (std::min(piece.end * kPanel, e.out) - piece.begin * kPanel));
  });
}

}  // namespace openlora
