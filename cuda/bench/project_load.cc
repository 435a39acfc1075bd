#include "bench/project_load.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "bench/known_value.h"
#include "kernels/lora.h"

namespace openlora {
namespace {

constexpr float kScale = 0.25f;  // of adapters
constexpr uint64_t kX = 1, kWeights = 16, kAdapters = 1024;

uint64_t WeightTag(size_t product) { return kWeights + product; }
uint64_t TagOf(int32_t adapter, size_t product, bool is_a) {
  return kAdapters + (static_cast<uint64_t>(adapter) * lora::kProductsMax + product) * 2 + (is_a ? 0 : 1);
}

}  // namespace

StepLimits ProjectLoad::Measure() {
  const auto outs = std::accumulate(shape_.outs.begin(), shape_.outs.end(), int64_t{0});
  const auto in = int64_t{shape_.in}, rows = int64_t{shape_.rows};
  if (is_base()) {
    for (const int32_t out : shape_.outs) bytes_ += ops_.PackedBytes(DType::kBF16, out, in);
    operations_ = 2.0 * static_cast<double>(rows * in * outs);
  } else {
    const int64_t products = static_cast<int64_t>(shape_.outs.size());
    bytes_ = shape_.adapters * int64_t{shape_.rank} * (in * products + outs) * 2;
    operations_ = 2.0 * static_cast<double>(rows * shape_.rank * (in * products + outs));
  }
  StepLimits limits{.rows = shape_.rows, .context = 1, .logit_rows = 1, .hidden = 8, .project_in = shape_.in};
  limits.vocab = 32;
  limits.sites = static_cast<int32_t>(shape_.outs.size());
  limits.heads = limits.kv_heads = 1;
  limits.head_dim = 8;
  limits.weights = limits.kv = limits.adapters = DType::kBF16;
  return limits;
}

Status ProjectLoad::MakeData(int32_t copies) {
  const auto elements = static_cast<size_t>(shape_.rows) * static_cast<size_t>(shape_.in);
  std::vector<uint16_t> x(elements);
  for (size_t i = 0; i < elements; ++i) x[i] = KnownBits(kX, static_cast<int64_t>(i));
  void* memory = nullptr;
  OPENLORA_RETURN_IF_ERROR(Allocate(static_cast<int64_t>(elements * sizeof(uint16_t)), &memory));
  x_ = static_cast<uint16_t*>(memory);
  OPENLORA_RETURN_IF_ERROR(context_->Upload(x_, x.data(), elements * sizeof(uint16_t)));
  for (const int32_t out : shape_.outs) {
    OPENLORA_RETURN_IF_ERROR(Allocate(int64_t{shape_.rows} * out * 4, &memory));
    ys_.push_back(static_cast<float*>(memory));
    list_.push_back({DType::kBF16, out, shape_.in, nullptr, nullptr});
  }
  return is_base() ? MakeWeights(copies) : MakeAdapters(copies);
}

// Packed once; the other copies are made on the device.
Status ProjectLoad::MakeWeights(int32_t copies) {
  void* memory = nullptr;
  OPENLORA_RETURN_IF_ERROR(Allocate(bytes_ * copies, &memory));
  weights_ = static_cast<uint8_t*>(memory);
  int64_t at = 0;
  std::vector<uint16_t> source;
  for (size_t p = 0; p < shape_.outs.size(); ++p) {
    for (int64_t begin = 0; begin < shape_.outs[p]; begin += Ops::kPackRows) {
      const int64_t rows = std::min<int64_t>(Ops::kPackRows, shape_.outs[p] - begin);
      source.resize(static_cast<size_t>(rows * shape_.in));
      for (size_t i = 0; i < source.size(); ++i)
        source[i] = KnownBits(WeightTag(p), begin * shape_.in + static_cast<int64_t>(i));
      ops_.Pack({source.data(), DType::kBF16, rows, shape_.in}, DType::kBF16, shape_.outs[p], begin, weights_ + at);
    }
    at += ops_.PackedBytes(DType::kBF16, shape_.outs[p], shape_.in);
  }
  CopyFirst(weights_, bytes_, copies);
  return context_->Synchronize();
}

// Every copy is a layer of its own, whose sites hold the same values.
Status ProjectLoad::MakeAdapters(int32_t copies) {
  const auto products = static_cast<int32_t>(shape_.outs.size());
  std::vector<SiteShape> shapes;
  AdapterManifest manifest;
  for (int32_t site = 0; site < copies * products; ++site) {
    shapes.push_back({shape_.in, shape_.outs[static_cast<size_t>(site % products)]});
    manifest.sites.push_back({site, shape_.rank, kScale, {}, {}});
  }
  const TileLayout layout = PlanTiles(manifest, shapes, {&ops_, DType::kBF16, kFrameBytes});
  const std::vector<uint32_t> places = Shuffled(static_cast<size_t>(layout.frames * shape_.adapters));
  std::vector<uint8_t> pool(places.size() * static_cast<size_t>(kFrameBytes));
  layouts_.assign(static_cast<size_t>(shape_.adapters), layout);
  for (int32_t adapter = 0; adapter < shape_.adapters; ++adapter) {
    const auto begin = places.begin() + adapter * layout.frames;
    frames_.emplace_back(begin, begin + layout.frames);
    for (int32_t site = 0; site < copies * products; ++site)
      PackSite(adapter, layout.sites[static_cast<size_t>(site)], static_cast<size_t>(site % products), &pool);
  }
  for (size_t i = 0; i < layouts_.size(); ++i)
    slots_.push_back({layouts_[i].sites.data(), layouts_[i].runs.data(), frames_[i].data(),
                      static_cast<uint32_t>(layout.runs.size()), static_cast<uint32_t>(layout.frames), i + 1});
  void* memory = nullptr;
  OPENLORA_RETURN_IF_ERROR(Allocate(static_cast<int64_t>(pool.size()), &memory));
  batch_.pages = {static_cast<uint8_t*>(memory), slots_.data(), DType::kBF16, kFrameBytes};
  return context_->Upload(memory, pool.data(), pool.size());
}

// Tiles of A and of B are alike.
void ProjectLoad::PackSite(int32_t adapter, const SitePages& site, size_t product, std::vector<uint8_t>* pool) {
  const TileLayout& layout = layouts_[static_cast<size_t>(adapter)];
  std::vector<float> values;
  for (const bool is_a : {true, false}) {
    const int64_t columns = is_a ? shape_.in : shape_.outs[product];
    const uint64_t tag = TagOf(adapter, product, is_a);
    for (int32_t rank = 0; rank < shape_.rank; rank += kTileRanks) {
      const TileRun& run = layout.runs[(is_a ? site.a : site.b) + static_cast<uint32_t>(rank / kTileRanks)];
      const int32_t ranks = std::min(kTileRanks, shape_.rank - rank);
      values.resize(static_cast<size_t>(ranks * columns));  // [ranks, columns], of B too
      for (size_t i = 0; i < values.size(); ++i) values[i] = KnownValue(tag, rank * columns + static_cast<int64_t>(i));
      for (int64_t begin = 0, end = 0; begin < columns; begin = end) {
        const TilePlace place = TileAt(run, begin);
        end = std::min(columns, place.column_end);
        const uint32_t frame = frames_[static_cast<size_t>(adapter)][static_cast<size_t>(place.frame)];
        uint8_t* const tile = pool->data() + frame * kFrameBytes + place.offset;
        ops_.PackTileA(&values[static_cast<size_t>(begin)], columns, ranks, static_cast<int32_t>(end - begin),
                       DType::kBF16, tile);
      }
    }
  }
}

void ProjectLoad::Launch(int32_t copy) {
  const uint8_t* weights = is_base() ? weights_ + copy * bytes_ : nullptr;
  std::vector<Product> products;
  for (size_t p = 0; p < list_.size(); ++p) {
    const auto site = copy * static_cast<int32_t>(list_.size()) + static_cast<int32_t>(p);
    products.push_back({&list_[p], F32View(ys_[p], shape_.rows, shape_.outs[p]), site});
    if (!is_base()) continue;
    list_[p].data = weights;
    weights += ops_.PackedBytes(DType::kBF16, shape_.outs[p], shape_.in);
  }
  const TensorView x{x_, DType::kBF16, shape_.rows, shape_.in, shape_.in};
  const ProjectArgs args{.x = x, .products = products, .entries = &batch_.entries, .pages = &batch_.pages};
  if (is_base()) {
    ops_.MultiplyWeights(args, x);
  } else {
    ops_.AddAdapters(args, x);
  }
}

double ProjectLoad::Wanted(int64_t row, size_t product, int64_t out) const {
  const int64_t in = shape_.in;
  const auto dot = [&](uint64_t tag, int64_t begin) {
    double sum = 0;
    for (int64_t c = 0; c < in; ++c) sum += double{KnownValue(kX, row * in + c)} * KnownValue(tag, begin + c);
    return sum;
  };
  if (is_base()) return dot(WeightTag(product), out * in);
  const auto adapter = static_cast<int32_t>(row % shape_.adapters);
  double sum = 0;
  for (int64_t rank = 0; rank < shape_.rank; ++rank)
    sum += dot(TagOf(adapter, product, true), rank * in) *
           KnownValue(TagOf(adapter, product, false), rank * shape_.outs[product] + out);
  return kScale * sum;
}

// An mma may cut off where it should round, each of in / 16 by a unit to the same side. Of adapters h is rounded to
// bf16 before it is multiplied by B.
Status ProjectLoad::Compare(double* error, double* error_max) {
  RelativeError relative;
  for (size_t p = 0; p < ys_.size(); ++p) {
    const int64_t outs = shape_.outs[p];
    std::vector<float> y(static_cast<size_t>(shape_.rows * outs));
    OPENLORA_RETURN_IF_ERROR(Download(ys_[p], {reinterpret_cast<uint8_t*>(y.data()), y.size() * sizeof(float)}));
    for (const int64_t row : SampleOf(shape_.rows, 4))
      for (const int64_t out : SampleOf(outs, 8))
        relative.Add(y[static_cast<size_t>(row * outs + out)], Wanted(row, p, out));
  }
  *error = relative.Value();
  *error_max = ChainErrorMax(shape_.in + shape_.rank) + shape_.in / 16 * 0x1p-23 + (is_base() ? 0 : 0x1p-8);
  return Ok();
}

}  // namespace openlora
