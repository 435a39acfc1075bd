#include "memory/tile_layout.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace openlora {
namespace {

// Frames that still have room; a few are enough to fill the gaps that tiles of odd sizes leave.
constexpr int kOpenFrames = 4;

class Placer {
 public:
  Placer(int64_t frame_bytes, TileLayout* layout) : frame_bytes_(frame_bytes), layout_(layout) {}

  void Place(int64_t bytes) {
    Open* chosen = nullptr;
    for (Open& open : open_) {
      if (open.left >= bytes && (chosen == nullptr || open.left < chosen->left)) chosen = &open;
    }
    if (chosen == nullptr) {
      chosen =
          &*std::min_element(open_.begin(), open_.end(), [](const Open& a, const Open& b) { return a.left < b.left; });
      *chosen = {static_cast<uint32_t>(layout_->frames++), frame_bytes_};
    }
    layout_->places.push_back({chosen->frame, static_cast<uint32_t>((frame_bytes_ - chosen->left) / kTileUnitBytes)});
    chosen->left -= bytes;
    layout_->bytes += bytes;
  }

 private:
  struct Open {
    uint32_t frame = 0;
    int64_t left = 0;
  };
  int64_t frame_bytes_;
  TileLayout* layout_;
  std::array<Open, kOpenFrames> open_{};
};

// Calls each(rank_begin, ranks, column_begin, columns) for the tiles of one matrix, in their documented order.
template <typename Each>
void ForEachTile(int32_t rank, int64_t columns, int32_t tile_columns, const Each& each) {
  for (int32_t r = 0; r < rank; r += kTileRanks) {
    for (int64_t c = 0; c < columns; c += tile_columns) {
      each(r, std::min(kTileRanks, rank - r), c, static_cast<int32_t>(std::min<int64_t>(tile_columns, columns - c)));
    }
  }
}

// Writes the tiles of one adapter, in order.
class Filler {
 public:
  Filler(const TileLayout& layout, const TileFormat& format, const TileSink& sink)
      : layout_(layout), format_(format), sink_(sink) {}

  Status FillA(const std::vector<float>& a, int32_t rank, int64_t in) {
    return Fill(rank, in, [&](int32_t r, int32_t ranks, int64_t c, int32_t columns) {
      format_.ops->PackTileA(a.data() + r * in + c, in, ranks, columns, format_.dtype, tile_.data());
    });
  }
  Status FillB(const std::vector<float>& b, int32_t rank, int64_t out) {
    return Fill(rank, out, [&](int32_t r, int32_t ranks, int64_t c, int32_t columns) {
      format_.ops->PackTileB(b.data() + c * rank + r, rank, ranks, columns, format_.dtype, tile_.data());
    });
  }

 private:
  template <typename Pack>
  Status Fill(int32_t rank, int64_t width, const Pack& pack) {
    Status status;
    ForEachTile(rank, width, format_.tile_columns, [&](int32_t r, int32_t ranks, int64_t c, int32_t columns) {
      const TileLayout::Place place = layout_.places[next_++];
      tile_.assign(static_cast<size_t>(format_.ops->TileBytes(format_.dtype, ranks, columns)), 0);
      pack(r, ranks, c, columns);
      if (status.ok()) status = sink_(place, tile_.data(), tile_.size());
    });
    return status;
  }

  const TileLayout& layout_;
  const TileFormat& format_;
  const TileSink& sink_;
  size_t next_ = 0;
  std::vector<uint8_t> tile_;
};

Status OpenUnchanged(const std::string& path, const FileIdentity& checked, File* file) {
  const Status status = File::Open(path, file);
  if (!status.ok()) return Status(kErrAdapterChanged, status.message());
  if (file->identity() == checked) return Ok();
  return Error(kErrAdapterChanged,
               "%s is not the file that was registered: %lld bytes, %lld were checked (or it was written since)",
               path.c_str(), static_cast<long long>(file->size()), static_cast<long long>(checked.size));
}

// The least magnitude that becomes infinite in `dtype`.
constexpr float EndOf(DType dtype) {
  if (dtype == DType::kF16) return 65520;        // halfway from 65504, the largest, to 65536
  if (dtype == DType::kBF16) return 0x1.ffp127;  // likewise
  if (dtype == DType::kI8) return 0x1.fcp127;    // and half a step more is still finite
  return std::numeric_limits<float>::infinity();
}

Status CheckFits(const AdapterSite& site, char matrix, const std::vector<float>& values, DType dtype) {
  const float end = EndOf(dtype);
  const auto fits = [end](float value) { return std::fabs(value) < end; };
  const auto found = std::find_if_not(values.begin(), values.end(), fits);
  if (found == values.end()) return Ok();
  const int64_t cols = matrix == 'A' ? site.a.cols : site.b.cols, index = found - values.begin();
  return Error(kErrAdapterNotFinite,
               "lora_%c at site %d is %g at row %lld, column %lld: adapters are held as %s, where that "
               "is infinite",
               matrix, site.site, static_cast<double>(*found), static_cast<long long>(index / cols),
               static_cast<long long>(index % cols), NameOf(dtype));
}

}  // namespace

int32_t FrameTileColumns(const Ops& ops, DType dtype, int64_t frame_bytes) {
  int32_t columns = ShrinkChunk(dtype);
  const auto fits = [&] { return ops.TileBytes(dtype, kTileRanks, columns) <= frame_bytes; };
  while (columns > 32 && !fits()) {
    do columns -= 32;
    while (ShrinkChunk(dtype) % columns != 0);
  }
  OPENLORA_CHECK(fits());
  return columns;
}

TileLayout PlanTiles(const AdapterManifest& manifest, const std::vector<SiteShape>& shapes, const TileFormat& format) {
  TileLayout layout;
  layout.sites.resize(shapes.size());
  Placer placer(format.frame_bytes, &layout);
  const auto place = [&](int32_t, int32_t ranks, int64_t, int32_t columns) {
    placer.Place(format.ops->TileBytes(format.dtype, ranks, columns));
  };
  for (const AdapterSite& site : manifest.sites) {
    SitePages& pages = layout.sites[static_cast<size_t>(site.site)];
    const SiteShape& shape = shapes[static_cast<size_t>(site.site)];
    pages.rank = site.rank;
    pages.scale = site.scale;
    pages.a = static_cast<uint32_t>(layout.places.size());
    ForEachTile(site.rank, shape.in, format.tile_columns, place);
    pages.b = static_cast<uint32_t>(layout.places.size());
    ForEachTile(site.rank, shape.out, format.tile_columns, place);
  }
  return layout;
}

Status FillTiles(const AdapterSource& source, const TileLayout& layout, const TileFormat& format, const TileSink& sink,
                 const Pace& pace) {
  const AdapterManifest& manifest = source.manifest;
  std::vector<File> files(manifest.files.size());
  for (size_t i = 0; i < files.size(); ++i)
    OPENLORA_RETURN_IF_ERROR(OpenUnchanged(manifest.files[i], source.files[i], &files[i]));
  Filler filler(layout, format, sink);
  std::vector<float> values;
  const auto read = [&](const AdapterSite& site, char matrix, const TensorRange& range) {
    if (!pace(range.bytes)) return Status(kErrAborted, "loading was aborted");
    OPENLORA_RETURN_IF_ERROR(ReadTensor(files[static_cast<size_t>(range.file)], range, &values));
    return CheckFits(site, matrix, values, format.dtype);
  };
  for (const AdapterSite& site : manifest.sites) {
    OPENLORA_RETURN_IF_ERROR(read(site, 'A', site.a));
    OPENLORA_RETURN_IF_ERROR(filler.FillA(values, site.rank, site.a.cols));
    OPENLORA_RETURN_IF_ERROR(read(site, 'B', site.b));
    OPENLORA_RETURN_IF_ERROR(filler.FillB(values, site.rank, site.b.rows));
  }
  // Not written to while it was read either.
  for (size_t i = 0; i < files.size(); ++i) {
    OPENLORA_RETURN_IF_ERROR(OpenUnchanged(manifest.files[i], source.files[i], &files[i]));
    files[i].DoneWith();
  }
  return Ok();
}

}  // namespace openlora
