#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/check.h"
#include "cases/lora_data.h"
#include "cases/project_cases.h"

namespace openlora::cases {

inline std::string Describe(const ProjectCase& c) {
  std::string text =
      std::string(c.name) + ": rows " + std::to_string(c.rows) + ", in " + std::to_string(c.in) + ", outs";
  for (const int32_t out : c.outs)
    if (out > 0) text += " " + std::to_string(out);
  text +=
      std::string(", ") + NameOf(c.dtype) + ", adapters " + NameOf(c.mix) + " " + NameOf(c.adapter_dtype) + ", ranks";
  for (const int32_t rank : c.ranks) text += " " + std::to_string(rank);
  return text + ", tile columns " + std::to_string(c.tile_columns) + ", per row " + std::to_string(c.adapters_per_row);
}

inline constexpr float kEmbedScale = 1.5f;

// The numbers of a case, the same for every Ops. Values that are stored in a dtype are rounded to it already.
struct ProjectData {
  explicit ProjectData(const ProjectCase& c) : shape(c) {
    Random random(c.seed);
    for (const int32_t out : c.outs) {
      if (out == 0) continue;
      weights.push_back(
          RandomValues(random, int64_t{c.in} * out, c.dtype.is_quantised() ? DType::kF32 : c.dtype.dtype()));
      biases.push_back(RandomValues(random, out));
      initial.push_back(RandomValues(random, int64_t{c.rows} * out));
    }
    if (c.is_embed) {
      for (int32_t row = 0; row < c.rows; ++row) tokens.push_back(random.Below(c.in));
    } else {
      x = RandomValues(random, int64_t{c.rows} * c.in);
    }
    assignment = Assign(c.mix, c.rows, c.adapters_per_row, random);
    sites.resize(kSites, {16, 16});  // those of other modules lie between
    for (size_t i = 0; i < weights.size(); ++i) sites[SiteOf(i)] = {c.in, c.outs[i]};
    for (int32_t adapter = 0; adapter < AdapterCount(assignment); ++adapter) {
      adapters.emplace_back(kSites);
      for (size_t i = 0; i < weights.size(); ++i)
        adapters.back()[SiteOf(i)] =
            RandomSite(random, sites[SiteOf(i)], c.ranks[adapter % c.ranks.size()], c.adapter_dtype);
    }
  }

  static constexpr int32_t kSites = 7;
  static int32_t SiteOf(size_t product) { return static_cast<int32_t>(5 - 2 * product); }
  size_t products() const { return weights.size(); }

  ProjectCase shape;
  std::vector<float> x;                     // [T, in]
  std::vector<int32_t> tokens;              // [T], of an Embed
  std::vector<std::vector<float>> weights;  // [product][out, in]; of an Embed: [V, H]
  std::vector<std::vector<float>> biases;   // [product][out]
  std::vector<std::vector<float>> initial;  // [product][T, out]: what is in the output before
  Assignment assignment;
  std::vector<SiteShape> sites;
  AdapterValues adapters;
};

// A case's weights and adapters as one Ops wants them.
class ProjectPacked {
 public:
  ProjectPacked(Ops& ops, const ProjectData& data)
      : ops_(ops),
        data_(data),
        pool_(ops, data.sites, data.adapters, data.shape.adapter_dtype, data.shape.tile_columns, data.shape.seed + 1) {
    const ProjectCase& c = data.shape;
    for (size_t i = 0; i < data.products(); ++i) {
      const int64_t out = c.is_embed ? c.in : c.outs[i], in = c.is_embed ? c.outs[i] : c.in;
      packed_.emplace_back(static_cast<size_t>(ops.PackedBytes(c.dtype, out, in)));
      PackInPieces(data.weights[i], out, in, packed_.back().data());
      weights_.push_back({c.dtype, out, in, packed_.back().data(), c.has_bias ? data.biases[i].data() : nullptr});
    }
  }
  ProjectPacked(ProjectPacked&&) = delete;

  Ops& ops() const { return ops_; }
  const ProjectData& data() const { return data_; }
  const LoraPool& pool() const { return pool_; }
  const Weight& weight(size_t product) const { return weights_[product]; }
  int64_t WeightBytes() const {
    int64_t bytes = 0;
    for (const GuardedBytes& packed : packed_) bytes += static_cast<int64_t>(packed.size());
    return bytes;
  }

  // Nothing was written beside the packed forms.
  bool IsIntact() const {
    return pool_.IsIntact() &&
           std::all_of(packed_.begin(), packed_.end(), [](const GuardedBytes& packed) { return packed.IsIntact(); });
  }

 private:
  // In two calls, as a loader that reads a matrix in pieces does; the source isn't aligned.
  void PackInPieces(const std::vector<float>& values, int64_t out, int64_t in, void* packed) {
    std::vector<uint8_t> bytes(values.size() * sizeof(float) + 1);
    std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(float));
    const int64_t first = std::min(out, (out / 2 + Ops::kPackRows - 1) / Ops::kPackRows * Ops::kPackRows);
    const auto pack = [&](int64_t begin, int64_t end) {
      if (begin == end) return;
      const uint8_t* source = bytes.data() + 1 + static_cast<size_t>(begin * in) * sizeof(float);
      ops_.Pack({source, DType::kF32, end - begin, in}, data_.shape.dtype, out, begin, packed);
    };
    pack(first, out);
    pack(0, first);
  }

  Ops& ops_;
  const ProjectData& data_;
  LoraPool pool_;
  std::vector<GuardedBytes> packed_;
  std::vector<Weight> weights_;
};

// Rows [row_begin, row_end) of a case.
class ProjectRun {
 public:
  ProjectRun(const ProjectPacked& packed, int32_t row_begin, int32_t row_end)
      : packed_(packed),
        data_(packed.data()),
        row_begin_(row_begin),
        rows_(row_end - row_begin),
        entries_(data_.assignment, row_begin, row_end, packed.pool()),
        x_(data_.x.empty() ? 0 : rows_, data_.shape.in) {
    if (!data_.x.empty()) x_.CopyFrom(data_.x.data() + int64_t{row_begin} * data_.shape.in);
    for (size_t i = 0; i < data_.products(); ++i) outs_.emplace_back(rows_, data_.shape.outs[i]);
    ResetOutputs();
  }
  ProjectRun(ProjectRun&&) = delete;

  // As before the first Run.
  void ResetOutputs() {
    for (size_t i = 0; i < outs_.size(); ++i)
      if (Accumulates(i)) outs_[i].CopyFrom(data_.initial[i].data() + int64_t{row_begin_} * data_.shape.outs[i]);
  }

  void Run() {
    const bool has_adapters = data_.shape.mix != AdapterMix::kNone;
    const EntriesView* entries = has_adapters ? &entries_.view() : nullptr;
    const AdapterPages* pages = has_adapters ? &packed_.pool().pages() : nullptr;
    Ops& ops = packed_.ops();
    if (data_.shape.is_embed) {
      ops.Embed({data_.tokens.data() + row_begin_, rows_, &packed_.weight(0), kEmbedScale, outs_[0].View(),
                 ProjectData::SiteOf(0), entries, pages});
    } else {
      std::vector<Product> products;
      for (size_t i = 0; i < outs_.size(); ++i)
        products.push_back({&packed_.weight(i), outs_[i].View(), ProjectData::SiteOf(i), Accumulates(i)});
      ops.Project({x_.View(), products, entries, pages});
    }
    OPENLORA_CHECK(ops.Synchronize().ok());
  }

  std::vector<float> Values(size_t product) const { return outs_[product].Values(); }
  const EntriesView& entries() const { return entries_.view(); }

  // Nothing was written beside the outputs, and x is as it was.
  bool IsIntact() const {
    for (const GuardedMatrix& out : outs_)
      if (!out.IsIntact()) return false;
    if (data_.x.empty()) return true;
    const std::vector<float> x = x_.Values();
    return x_.IsIntact() && std::equal(x.begin(), x.end(), data_.x.begin() + int64_t{row_begin_} * data_.shape.in);
  }

 private:
  bool Accumulates(size_t product) const { return product == 0 && data_.shape.accumulates; }

  const ProjectPacked& packed_;
  const ProjectData& data_;
  const int32_t row_begin_;
  const int32_t rows_;
  EntryList entries_;
  GuardedMatrix x_;
  std::vector<GuardedMatrix> outs_;
};

}  // namespace openlora::cases
