#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/int8_adapter.h"
#include "ops/reference/reference_bf16.h"
#include "ops/reference/reference_int4.h"
#include "ops/reference/reference_int8.h"
#include "ops/reference/reference_lora.h"

namespace openlora::cpu_test {

inline std::unique_ptr<Ops> MakeOps(SimdLevel level, int threads) {
  std::unique_ptr<Ops> ops;
  const Status status = CreateCpuOps(level, threads, &ops);
  EXPECT_TRUE(status.ok()) << status.message();
  return ops;
}

// In [-1, 1), a pure function of (seed, index).
inline float Value(uint64_t seed, uint64_t index) {
  uint64_t z = (seed * 0x9E3779B97F4A7C15u) ^ (index + 1) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 30)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<float>(static_cast<int64_t>(z >> 40) - (1 << 23)) * 0x1.0p-23f;
}

inline std::vector<float> Values(uint64_t seed, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = Value(seed, i);
  return values;
}

inline float RoundTo(DType dtype, float value) {
  uint32_t place = 0;
  StoreFromFloat(&place, dtype, 0, value);
  return LoadAsFloat(&place, dtype, 0);
}

struct AlignedFree {
  void operator()(void* p) const { std::free(p); }
};
using Aligned = std::unique_ptr<uint8_t, AlignedFree>;
// Not a byte more than asked for (rounded to 64), so that a sanitizer sees reads behind the end.
inline Aligned AllocateAligned(int64_t bytes) {
  return Aligned(static_cast<uint8_t*>(std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64))));
}

// A packed matrix with the values that it holds, row-major, rounded to its dtype; of a quantised one, those that it was
// made of.
struct Matrix {
  Matrix(Ops& ops, WeightFormat format, int64_t out, int64_t in, uint64_t seed)
      : values(Values(seed, static_cast<size_t>(out * in))) {
    data = AllocateAligned(ops.PackedBytes(format, out, in));
    ops.Pack({values.data(), DType::kF32, out, in}, format, out, 0, data.get());
    weight = {format, out, in, data.get(), nullptr};
    if (format.is_quantised()) return;
    for (float& value : values) value = RoundTo(format.dtype(), value);
  }
  std::vector<float> values;
  Aligned data;
  Weight weight;
};

// One adapter's matrices at one site: A [rank, in] and B [out, rank], in the dtype of the pool; of int8 the codes, and
// the scales [rank, groups] of either.
struct Site {
  int32_t rank = 0;
  int64_t in = 0;
  int64_t out = 0;
  std::vector<float> a;
  std::vector<float> b;
  float scale = 1;
  std::vector<float> a_scales = {};
  std::vector<float> b_scales = {};
};

inline int64_t Int8Groups(int64_t columns) { return (columns + kInt8AdapterGroup - 1) / kInt8AdapterGroup; }

// Values [rank, columns] at values[r * rank_step + c * column_step] become codes; their scales.
inline std::vector<float> QuantiseAdapter(std::vector<float>& values, int32_t rank, int64_t columns, int64_t rank_step,
                                          int64_t column_step) {
  std::vector<float> scales;
  for (int32_t r = 0; r < rank; ++r)
    for (int64_t begin = 0; begin < columns; begin += kInt8AdapterGroup) {
      std::vector<float> group;
      const auto at = [&](size_t i) -> float& {
        return values[static_cast<size_t>(r * rank_step + (begin + static_cast<int64_t>(i)) * column_step)];
      };
      for (int64_t c = begin; c < std::min(columns, begin + kInt8AdapterGroup); ++c) group.push_back(at(group.size()));
      const reference::Int8AdapterValues quantised = reference::Int8QuantiseAdapter(group);
      for (size_t i = 0; i < group.size(); ++i) at(i) = static_cast<float>(quantised.q[i]);
      scales.push_back(quantised.scale);
    }
  return scales;
}

// A pool with adapters, each with the same number of sites. A frame holds `tile_columns` columns of eight ranks; each
// run has frames of its own, and its first tile stands somewhere in the first one, at its end.
class Adapters {
 public:
  Adapters(DType dtype, int32_t tile_columns) {
    pages_.dtype = dtype;
    pages_.frame_bytes = TileBytes(dtype, kTileRanks, tile_columns);
  }

  void Add(const Ops& ops, std::vector<Site> sites) {
    Slot slot;
    for (Site& site : sites) {
      SitePages pages;
      pages.rank = site.rank;
      pages.scale = site.scale;
      pages.a = static_cast<uint32_t>(slot.runs.size());
      PackTiles(ops, site, site.in, true, &slot);
      pages.b = static_cast<uint32_t>(slot.runs.size());
      PackTiles(ops, site, site.out, false, &slot);
      slot.pages.push_back(pages);
      RoundValues(&site);
    }
    slot.sites = std::move(sites);
    slots_.push_back(std::move(slot));
  }

  const Site& At(int slot, int site) const {
    return slots_[static_cast<size_t>(slot)].sites[static_cast<size_t>(site)];
  }

  const AdapterPages& Pages() {
    views_.clear();
    for (const Slot& slot : slots_) views_.push_back({slot.pages.data(), slot.runs.data(), slot.frames.data()});
    exact_ = AllocateAligned(static_cast<int64_t>(pool_.size()));
    std::memcpy(exact_.get(), pool_.data(), pool_.size());
    pages_.pool = exact_.get();
    pages_.slots = views_.data();
    return pages_;
  }

 private:
  void RoundValues(Site* site) const {
    if (pages_.dtype == DType::kI8) {
      site->a_scales = QuantiseAdapter(site->a, site->rank, site->in, site->in, 1);
      site->b_scales = QuantiseAdapter(site->b, site->rank, site->out, 1, site->rank);
      return;
    }
    for (float& value : site->a) value = RoundTo(pages_.dtype, value);
    for (float& value : site->b) value = RoundTo(pages_.dtype, value);
  }

  struct Slot {
    std::vector<Site> sites;
    std::vector<SitePages> pages;
    std::vector<TileRun> runs;
    std::vector<uint32_t> frames;
  };

  void PackTiles(const Ops& ops, const Site& site, int64_t columns, bool is_a, Slot* slot) {
    const int32_t step = TileStep(pages_.dtype, is_a);
    for (int32_t rank = 0; rank < site.rank; rank += kTileRanks) {
      const int32_t ranks = std::min(kTileRanks, site.rank - rank);
      const auto steps = static_cast<uint64_t>(pages_.frame_bytes / TileBytes(pages_.dtype, ranks, step));
      const auto first = static_cast<int32_t>(1 + runs_++ * 7 % steps) * step;
      const TileRun run = {static_cast<uint32_t>(slot->frames.size()),
                           static_cast<uint32_t>(pages_.frame_bytes - TileBytes(pages_.dtype, ranks, first)), first,
                           static_cast<int32_t>(steps) * step};
      slot->runs.push_back(run);
      for (int64_t begin = 0, end = 0; begin < columns; begin = end) {
        const TilePlace place = TileAt(run, begin);
        end = std::min(columns, place.column_end);
        slot->frames.push_back(static_cast<uint32_t>(pool_.size() / static_cast<size_t>(pages_.frame_bytes)));
        const size_t at = pool_.size() + static_cast<size_t>(place.offset);
        pool_.resize(pool_.size() + static_cast<size_t>(pages_.frame_bytes), 0xff);
        PackTile(ops, site, rank, ranks, begin, end, is_a, &pool_[at]);
      }
    }
  }

  void PackTile(const Ops& ops, const Site& site, int32_t rank, int32_t ranks, int64_t begin, int64_t end, bool is_a,
                uint8_t* tile) {
    const auto columns = static_cast<int32_t>(end - begin);
    if (is_a) {
      ops.PackTileA(&site.a[static_cast<size_t>(rank * site.in + begin)], site.in, ranks, columns, pages_.dtype, tile);
    } else {
      ops.PackTileB(&site.b[static_cast<size_t>(begin * site.rank + rank)], site.rank, ranks, columns, pages_.dtype,
                    tile);
    }
  }

  uint64_t runs_ = 0;
  std::vector<uint8_t> pool_;
  Aligned exact_;
  std::vector<Slot> slots_;
  std::vector<SlotPages> views_;
  AdapterPages pages_;
};

// The fixed expressions of the CPU ops, written down once more without tiles, threads or vectors.
// One chain over k; bf16 weights take the odd k of a pair first.
inline float Chain(DType dtype, const float* x, const float* w, int64_t count, float sum) {
  if (dtype != DType::kBF16) {
    for (int64_t k = 0; k < count; ++k) sum = std::fmaf(w[k], x[k], sum);
    return sum;
  }
  for (int64_t k = 0; k < count; k += 2) {
    if (k + 1 < count) sum = std::fmaf(w[k + 1], x[k + 1], sum);
    sum = std::fmaf(w[k], x[k], sum);
  }
  return sum;
}

// A group's products in integers, times x's scale; a chain of FMAs with w's scales over the groups.
inline float GroupChain(const std::vector<reference::Int8Group>& x, const std::vector<reference::Int8Group>& w) {
  float sum = 0;
  for (size_t g = 0; g < x.size(); ++g)
    sum = std::fmaf(static_cast<float>(reference::Int8Dot(x[g], w[g])) * x[g].scale, w[g].scale, sum);
  return sum;
}
inline float GroupChain(const std::vector<reference::Int4Group>& x, const std::vector<reference::Int4Group>& w) {
  float sum = 0;
  for (size_t g = 0; g < x.size(); ++g)
    sum = std::fmaf(static_cast<float>(reference::Int4Dot(x[g], w[g])) * x[g].scale, w[g].scale, sum);
  return sum;
}

// x [rows, in]·Wᵀ, [rows, out].
inline std::vector<float> BaseProducts(const Matrix& matrix, const std::vector<float>& x, int64_t rows) {
  const int64_t out = matrix.weight.out, in = matrix.weight.in;
  const auto row_of = [in](const std::vector<float>& values, int64_t row) {
    return std::span(values).subspan(static_cast<size_t>(row * in), static_cast<size_t>(in));
  };
  std::vector<float> y;
  const auto add_products = [&](const auto& quantise_w, const auto& quantise_x) {
    std::vector<decltype(quantise_w(row_of(x, 0)))> of_w;
    for (int64_t o = 0; o < out; ++o) of_w.push_back(quantise_w(row_of(matrix.values, o)));
    for (int64_t row = 0; row < rows; ++row) {
      const auto of_x = quantise_x(row_of(x, row));
      for (const auto& w : of_w) y.push_back(GroupChain(of_x, w));
    }
  };
  using Row = std::span<const float>;
  if (matrix.weight.format == WeightFormat::kInt8) {
    add_products([](Row row) { return reference::Int8QuantiseRow(row, &reference::Int8QuantiseWeights); },
                 [](Row row) { return reference::Int8QuantiseRow(row, &reference::Int8QuantiseActivations); });
  } else if (matrix.weight.format == WeightFormat::kInt4) {
    add_products([](Row row) { return reference::Int4QuantiseRow(row, &reference::Int4QuantiseWeights); },
                 [](Row row) { return reference::Int4QuantiseRow(row, &reference::Int4QuantiseActivations); });
  } else if (matrix.weight.format == WeightFormat::kBF16Dot) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t o = 0; o < out; ++o) y.push_back(reference::BF16Dot(row_of(x, row), row_of(matrix.values, o)));
  } else {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t o = 0; o < out; ++o)
        y.push_back(Chain(matrix.weight.format.dtype(), row_of(x, row).data(), row_of(matrix.values, o).data(), in, 0));
  }
  return y;
}

// Rank r of A by a row x.
inline float ShrinkOne(const Site& site, DType dtype, int32_t r, const float* x) {
  const float* const a = &site.a[static_cast<size_t>(r * site.in)];
  float h = 0;
  for (int64_t begin = 0; begin < site.in; begin += ShrinkChunk(dtype)) {
    const int64_t end = std::min<int64_t>(site.in, begin + ShrinkChunk(dtype));
    float chains[4] = {}, scaled[2] = {};
    for (int64_t k = begin; k < end; ++k) {
      chains[k % 4] = std::fmaf(a[k], x[k], chains[k % 4]);
      if (dtype != DType::kI8 || (k + 1 < end && (k + 1) % kInt8AdapterGroup != 0)) continue;
      const float scale = site.a_scales[static_cast<size_t>(r * Int8Groups(site.in) + k / kInt8AdapterGroup)];
      for (int i = 0; i < 2; ++i) scaled[i] = std::fmaf(chains[i] + chains[i + 2], scale, scaled[i]);
      std::fill(chains, chains + 4, 0.0f);
    }
    const float chunk = dtype == DType::kI8 ? scaled[0] + scaled[1] : (chains[0] + chains[1]) + (chains[2] + chains[3]);
    h = begin == 0 ? chunk : h + chunk;
  }
  return h;
}

// A's value of a token, for an Embed.
inline float GatherOne(const Site& site, DType dtype, int32_t r, int64_t token) {
  const float value = site.a[static_cast<size_t>(r * site.in + token)];
  if (dtype != DType::kI8) return value;
  return value * site.a_scales[static_cast<size_t>(r * Int8Groups(site.in) + token / kInt8AdapterGroup)];
}

// Output o goes on by the coefficients h [rank]: eights of ranks one after another; of bf16 pairs within an eight.
inline float ExpandOne(const Site& site, DType dtype, std::vector<float> h, int64_t o, float out) {
  if (dtype == DType::kI8)
    for (int32_t r = 0; r < site.rank; ++r)
      h[static_cast<size_t>(r)] *= site.b_scales[static_cast<size_t>(r * Int8Groups(site.out) + o / kInt8AdapterGroup)];
  for (int32_t r = 0; r < site.rank; r += kTileRanks)
    out = Chain(dtype, &h[static_cast<size_t>(r)], &site.b[static_cast<size_t>(o * site.rank + r)],
                std::min(kTileRanks, site.rank - r), out);
  return out;
}

}  // namespace openlora::cpu_test
