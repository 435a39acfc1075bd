#include "memory/tile_layout.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace openlora {
namespace {

constexpr int64_t kAlignment = 64;  // of the first run of fewer than eight ranks: that of a cache line

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Puts runs end to end.
class Placer {
 public:
  explicit Placer(const TileFormat& format) : dtype_(format.dtype), frame_bytes_(format.frame_bytes) {}

  TileRun Place(int32_t ranks, int64_t columns, bool is_a) {
    const int64_t step = TileStep(dtype_, is_a), step_bytes = TileBytes(dtype_, ranks, step);
    const int64_t each = frame_bytes_ / step_bytes * step;
    OPENLORA_CHECK(each > 0);
    if (LeftOfFrame() < step_bytes) at_ = RoundUp(at_, frame_bytes_);
    int64_t left = RoundUp(columns, kTileGroup), tile = std::min(left, LeftOfFrame() / step_bytes * step);
    const TileRun run = {static_cast<uint32_t>(at_ / frame_bytes_), static_cast<uint32_t>(at_ % frame_bytes_),
                         static_cast<int32_t>(tile), static_cast<int32_t>(each)};
    at_ += tile / step * step_bytes;
    while ((left -= tile) > 0) {
      tile = std::min(left, each);
      at_ = RoundUp(at_, frame_bytes_) + tile / step * step_bytes;
    }
    return run;
  }

  void Align(int64_t unit) { at_ = RoundUp(at_, unit); }
  int64_t frames() const { return RoundUp(at_, frame_bytes_) / frame_bytes_; }

 private:
  int64_t LeftOfFrame() const { return frame_bytes_ - at_ % frame_bytes_; }

  DType dtype_;
  int64_t frame_bytes_;
  int64_t at_ = 0;
};

// Calls each(tile, column_begin, columns) for the tiles of a run.
template <typename Each>
void ForEachTile(const TileRun& run, int64_t columns, const Each& each) {
  for (int64_t begin = 0; begin < columns;) {
    const TilePlace tile = TileAt(run, begin);
    const int64_t end = std::min(tile.column_end, columns);
    each(tile, begin, static_cast<int32_t>(end - begin));
    begin = end;
  }
}

// Writes the tiles of one adapter.
class Filler {
 public:
  Filler(const TileLayout& layout, const TileFormat& format, const TileSink& sink)
      : layout_(layout), format_(format), sink_(sink) {}

  Status FillA(const std::vector<float>& a, const AdapterSite& site) {
    const int64_t in = site.a.cols;
    return Fill(PagesOf(site).a, site.rank, in, [&](int32_t r, int32_t ranks, int64_t c, int32_t columns) {
      format_.ops->PackTileA(a.data() + r * in + c, in, ranks, columns, format_.dtype, tile_.data());
    });
  }
  Status FillB(const std::vector<float>& b, const AdapterSite& site) {
    const int32_t rank = site.rank;
    return Fill(PagesOf(site).b, rank, site.b.rows, [&](int32_t r, int32_t ranks, int64_t c, int32_t columns) {
      format_.ops->PackTileB(b.data() + c * rank + r, rank, ranks, columns, format_.dtype, tile_.data());
    });
  }

 private:
  const SitePages& PagesOf(const AdapterSite& site) const { return layout_.sites[static_cast<size_t>(site.site)]; }

  template <typename Pack>
  Status Fill(uint32_t first_run, int32_t rank, int64_t width, const Pack& pack) {
    Status status;
    for (int32_t r = 0; r < rank; r += kTileRanks) {
      const int32_t ranks = std::min(kTileRanks, rank - r);
      const TileRun& run = layout_.runs[first_run + static_cast<uint32_t>(r / kTileRanks)];
      ForEachTile(run, width, [&](const TilePlace& place, int64_t c, int32_t columns) {
        tile_.resize(static_cast<size_t>(TileBytes(format_.dtype, ranks, columns)));
        pack(r, ranks, c, columns);
        if (status.ok()) status = sink_(place, tile_.data(), tile_.size());
      });
    }
    return status;
  }

  const TileLayout& layout_;
  const TileFormat& format_;
  const TileSink& sink_;
  std::vector<uint8_t> tile_;
};

// A or B of a site.
struct Matrix {
  const AdapterSite* site;
  bool is_a;
  const TensorRange& range() const { return is_a ? site->a : site->b; }
};

std::vector<Matrix> InFileOrder(const AdapterManifest& manifest) {
  std::vector<Matrix> matrices;
  for (const AdapterSite& site : manifest.sites)
    for (const bool is_a : {true, false}) matrices.push_back({&site, is_a});
  const auto place = [](const Matrix& matrix) { return std::tuple(matrix.range().file, matrix.range().offset); };
  std::stable_sort(matrices.begin(), matrices.end(),
                   [&](const Matrix& a, const Matrix& b) { return place(a) < place(b); });
  return matrices;
}

// The least magnitude that becomes infinite in `dtype`.
constexpr float EndOf(DType dtype) {
  if (dtype == DType::kF16) return 65520;        // halfway from 65504, the largest, to 65536
  if (dtype == DType::kBF16) return 0x1.ffp127;  // likewise
  if (dtype == DType::kI8) return 0x1.fcp127;    // and half a step more is still finite
  return std::numeric_limits<float>::infinity();
}

Status CheckFits(const Matrix& matrix, const std::vector<float>& values, DType dtype) {
  const float end = EndOf(dtype);
  const auto fits = [end](float value) { return std::fabs(value) < end; };
  const auto found = std::find_if_not(values.begin(), values.end(), fits);
  if (found == values.end()) return Ok();
  const int64_t cols = matrix.range().cols, index = found - values.begin();
  return Error(kErrAdapterNotFinite,
               "lora_%c at site %d is %g at row %lld, column %lld: adapters are held as %s, where that "
               "is infinite",
               matrix.is_a ? 'A' : 'B', matrix.site->site, static_cast<double>(*found),
               static_cast<long long>(index / cols), static_cast<long long>(index % cols), NameOf(dtype));
}

}  // namespace

TileLayout PlanTiles(const AdapterManifest& manifest, const std::vector<SiteShape>& shapes, const TileFormat& format) {
  TileLayout layout;
  layout.sites.resize(shapes.size());
  for (const AdapterSite& site : manifest.sites) {
    SitePages& pages = layout.sites[static_cast<size_t>(site.site)];
    const auto eights = static_cast<size_t>((site.rank + kTileRanks - 1) / kTileRanks);
    pages.rank = site.rank;
    pages.scale = site.scale;
    pages.a = static_cast<uint32_t>(layout.runs.size());
    pages.b = static_cast<uint32_t>(layout.runs.size() + eights);
    layout.runs.resize(layout.runs.size() + 2 * eights);
  }
  Placer placer(format);
  const auto place = [&](TileRun* run, int32_t ranks, int64_t columns, bool is_a) {
    *run = placer.Place(ranks, columns, is_a);
    layout.bytes += TileBytes(format.dtype, ranks, columns);
  };
  for (const AdapterSite& site : manifest.sites) {
    const SitePages& pages = layout.sites[static_cast<size_t>(site.site)];
    const SiteShape& shape = shapes[static_cast<size_t>(site.site)];
    for (uint32_t i = 0; i < static_cast<uint32_t>(site.rank / kTileRanks); ++i)
      place(&layout.runs[pages.a + i], kTileRanks, shape.in, true);
    for (uint32_t i = 0; i < static_cast<uint32_t>(site.rank / kTileRanks); ++i)
      place(&layout.runs[pages.b + i], kTileRanks, shape.out, false);
  }
  placer.Align(kAlignment);
  for (const AdapterSite& site : manifest.sites) {
    if (site.rank % kTileRanks == 0) continue;
    const SitePages& pages = layout.sites[static_cast<size_t>(site.site)];
    const SiteShape& shape = shapes[static_cast<size_t>(site.site)];
    const auto last = static_cast<uint32_t>(site.rank / kTileRanks);
    place(&layout.runs[pages.a + last], site.rank % kTileRanks, shape.in, true);
    place(&layout.runs[pages.b + last], site.rank % kTileRanks, shape.out, false);
  }
  layout.frames = placer.frames();
  return layout;
}

std::vector<int32_t> PartsOfSites(const TileLayout& layout, const std::vector<SiteShape>& shapes, int64_t frames_each) {
  std::vector<int32_t> parts(layout.sites.size(), -1);
  for (size_t site = 0; site < layout.sites.size(); ++site) {
    const SitePages& pages = layout.sites[site];
    const auto runs = static_cast<uint32_t>((pages.rank + kTileRanks - 1) / kTileRanks);
    for (uint32_t run = 0; run < runs; ++run) {
      for (const auto& [first, columns] : {std::pair(pages.a, shapes[site].in), std::pair(pages.b, shapes[site].out)}) {
        const TilePlace last = TileAt(layout.runs[first + run], columns - 1);
        parts[site] = std::max(parts[site], static_cast<int32_t>(last.frame / frames_each));
      }
    }
  }
  return parts;
}

Status FillTiles(const AdapterSource& source, const TileLayout& layout, const TileFormat& format, const TileSink& sink,
                 const Pace& pace) {
  SourceReader reader(source, pace);
  OPENLORA_RETURN_IF_ERROR(reader.Open());
  Filler filler(layout, format, sink);
  std::vector<float> values;
  for (const Matrix& matrix : InFileOrder(source.manifest)) {
    Status status = reader.Read(matrix.range(), &values);
    if (status.ok()) status = CheckFits(matrix, values, format.dtype);
    // In a file that was changed that is what is wrong, whatever it holds now.
    if (status.code() == std::string_view(kErrAdapterNotFinite)) OPENLORA_RETURN_IF_ERROR(reader.Finish());
    OPENLORA_RETURN_IF_ERROR(status);
    OPENLORA_RETURN_IF_ERROR(matrix.is_a ? filler.FillA(values, *matrix.site) : filler.FillB(values, *matrix.site));
  }
  return reader.Finish();
}

}  // namespace openlora
