#include <algorithm>

#include "base/check.h"
#include "ops/cpu/cpu_ops_impl.h"
#include "ops/cpu/layout.h"

namespace openlora {
namespace {

constexpr int kProductsMax = 3;

PanelsArgs PanelsOf(const ProjectArgs& args, const Product& product) {
  PanelsArgs panels;
  panels.x = args.x.f32();
  panels.x_stride = args.x.stride;
  panels.rows = static_cast<int32_t>(args.x.rows);
  panels.in = product.weight->in;
  panels.weights = product.weight->data;
  panels.panel_bytes = PanelBytes(product.weight->format, product.weight->in);
  panels.out = product.weight->out;
  panels.bias = product.weight->bias;
  panels.y = product.out.f32();
  panels.y_stride = product.out.stride;
  panels.accumulates = product.accumulates;
  return panels;
}

}  // namespace

// Room for x in every format of its own that a product has.
CpuOps::QuantisedX CpuOps::RoomForX(const ProjectArgs& args) {
  QuantisedX x;
  for (const Product& product : args.products) {
    const WeightFormat format = product.weight->format;
    if (!format.has_own_x()) continue;
    const int i = FormatIndex(format);
    const int64_t row_bytes = DivideUp(args.x.cols, GroupK(format)) * KernelsOf(format).group_bytes;
    x.of[i] = x_quantised_[i].Get<uint8_t>(static_cast<size_t>(args.x.rows * row_bytes));
  }
  return x;
}

// Whether nobody reads x but to make it ready for one product.
bool CpuOps::IsGatedAsQuantised(const ProjectArgs& args) const {
  return args.products.size() == 1 && args.products[0].weight->format.has_own_x() && plan_.jobs.empty();
}

// Groups [begin, end) of a row of x, gated first if they are to be.
void CpuOps::QuantiseGroups(const ProjectArgs& args, WeightFormat format, int64_t row, Piece groups,
                            uint8_t* to) const {
  const QuantisedFormat& kernels = KernelsOf(format);
  const float* const x = args.x.f32(row);
  if (args.gate == nullptr) return kernels.quantise(x, args.x.cols, groups.begin, groups.end, to);
  const auto gated_activation = kernels_.gated_activation[static_cast<int>(args.gate->activation)];
  constexpr int64_t kAtOnce = 1024;  // columns: 4 KB of L1
  const int64_t group_k = GroupK(format);
  for (int64_t begin = groups.begin; begin < groups.end; begin += kAtOnce / group_k) {
    const int64_t end = std::min(groups.end, begin + kAtOnce / group_k), column = begin * group_k;
    const int64_t count = std::min(args.x.cols, end * group_k) - column;
    float gated[kAtOnce];
    gated_activation(x + column, args.gate->up.f32(row) + column, count, gated);
    kernels.quantise(gated, count, 0, end - begin, to + begin * kernels.group_bytes);
  }
}

// One member's share of the groups of x, in each of those formats.
void CpuOps::QuantiseShare(const ProjectArgs& args, int member, int members, const QuantisedX& x) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kBF16Dot}) {
    uint8_t* const to = x.of[FormatIndex(format)];
    if (to == nullptr) continue;
    const QuantisedFormat& kernels = KernelsOf(format);
    const int64_t groups = DivideUp(args.x.cols, GroupK(format));
    const Piece mine = Split(args.x.rows * groups, 1, member, members);
    for (int64_t at = mine.begin; at < mine.end;) {
      const int64_t row = at / groups, begin = at % groups, end = std::min(groups, begin + mine.end - at);
      QuantiseGroups(args, format, row, {begin, end}, to + row * groups * kernels.group_bytes);
      at += end - begin;
    }
  }
}

// Panels [begin, end) of the products' panels laid end to end.
void CpuOps::BasePanels(const ProjectArgs& args, Piece panels, const QuantisedX& x, float* scratch) {
  int64_t before = 0;
  for (const Product& product : args.products) {
    const WeightFormat format = product.weight->format;
    PanelsArgs of_product = PanelsOf(args, product);
    const int64_t count = DivideUp(of_product.out, kPanel);
    of_product.panel_begin = std::max<int64_t>(panels.begin - before, 0);
    of_product.panel_end = std::min(panels.end - before, count);
    of_product.scratch = scratch;
    before += count;
    if (of_product.panel_begin >= of_product.panel_end) continue;
    if (format.has_own_x()) {
      of_product.x_quantised = x.of[FormatIndex(format)];
      of_product.x_stride_groups = DivideUp(args.x.cols, GroupK(format));
      KernelsOf(format).panels(of_product);
    } else {
      kernels_.panels[format.kind](of_product);
    }
  }
}

void CpuOps::Project(const ProjectArgs& args) {
  const int64_t in = args.x.cols;
  const int32_t products = static_cast<int32_t>(args.products.size());
  OPENLORA_CHECK(products <= kProductsMax);
  if (args.x.rows == 0 || products == 0) return;
  int32_t sites[kProductsMax];
  for (int32_t p = 0; p < products; ++p) {
    const Weight& weight = *args.products[p].weight;
    OPENLORA_CHECK(weight.in == in);
    sites[p] = args.products[p].site;
    counters_.weight_bytes_read += static_cast<uint64_t>(PackedBytes(weight.format, weight.out, in));
  }
  plan_.Build(args.entries, args.pages, sites, products, in, &counters_);
  for (const LoraJob& job : plan_.jobs)
    counters_.lora_bytes_read +=
        static_cast<uint64_t>(SiteTileBytes(*args.pages, job.rank, in) +
                              SiteTileBytes(*args.pages, job.rank, args.products[job.product].weight->out));

  if (args.gate != nullptr && !IsGatedAsQuantised(args)) {
    GatedActivation(args.gate->activation, args.x, args.gate->up);
    ProjectArgs gated = args;
    gated.gate = nullptr;
    return Multiply(gated);
  }
  Multiply(args);
}

// Each member: its share of quantising x, where weights have their own x; its share of the shrinks; base panels, over
// which everybody's shrinks get done; the expands onto the same panels, which no other member touches.
void CpuOps::Multiply(const ProjectArgs& args) {
  const int64_t rows = args.x.rows, in = args.x.cols;
  int64_t total = 0;
  for (const Product& product : args.products) total += DivideUp(product.weight->out, kPanel);
  const int members_max = pool_.size();
  const int64_t scratch_floats = PanelScratchFloats(rows);
  float* const scratch = panel_scratch_.Get<float>(static_cast<size_t>(members_max * scratch_floats));
  float* const partial = partial_.Get<float>(static_cast<size_t>(plan_.partial_floats));
  float* const coefficients = coefficients_.Get<float>(static_cast<size_t>(members_max * plan_.coefficient_floats));
  const QuantisedX x = RoomForX(args);
  shrunk_.Reset();
  quantised_.Reset();
  panels_.Reset(total, 1);
  const auto body = [&](int member, int members) {
    if (x.is_used()) {
      QuantiseShare(args, member, members, x);
      quantised_.Arrive();
    }
    const bool has_lora = !plan_.jobs.empty();
    if (has_lora) {
      ShrinkShare(args, member, members, partial);
      shrunk_.Arrive();
    }
    if (x.is_used()) quantised_.Wait(members);
    std::vector<Piece>& taken = taken_[static_cast<size_t>(member)];
    taken.clear();
    for (Piece panels = panels_.Take(member); !panels.is_empty(); panels = panels_.Take(member)) {
      BasePanels(args, panels, x, scratch + member * scratch_floats);
      const bool goes_on = !taken.empty() && taken.back().end == panels.begin;
      if (goes_on) {
        taken.back().end = panels.end;
      } else {
        taken.push_back(panels);
      }
    }
    if (!has_lora || taken.empty()) return;
    shrunk_.Wait(members);
    float* const of_member = coefficients + member * plan_.coefficient_floats;
    SumChunks(args, partial, of_member);
    for (const Piece& panels : taken) ExpandPanels(args, member, panels, of_member);
  };
  if (rows * in * total * kPanel < kParallelProducts) return body(0, 1);
  pool_.Run(body);
}

}  // namespace openlora
