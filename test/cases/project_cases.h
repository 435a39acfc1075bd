#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cases/adapter_mix.h"
#include "ops/batch_view.h"
#include "tensor/weight_format.h"

namespace openlora::cases {

// Projects of up to three products that share x, or an Embed.
struct ProjectCase {
  const char* name;
  int32_t rows = 1;
  int32_t in = 64;                   // of an Embed: V
  std::array<int32_t, 3> outs = {};  // 0: no such product; of an Embed: {H}
  WeightFormat dtype = DType::kF32;  // of the weights
  AdapterMix mix = AdapterMix::kNone;
  std::vector<int32_t> ranks = {8};  // of adapter i: ranks[i % size]; 0: doesn't act
  DType adapter_dtype = DType::kF32;
  int32_t tile_columns = 512;  // of eight ranks in a frame
  int32_t adapters_per_row = 1;
  bool has_bias = false;
  bool accumulates = false;  // the first product
  bool is_embed = false;
  uint64_t seed = 1;
};

inline constexpr WeightFormat kWeightFormats[] = {WeightFormat::kF32,  WeightFormat::kF16,  WeightFormat::kBF16,
                                                  WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kBF16Dot};

// The mixes, all ranks and every tile width, on ragged shapes.
inline void AddLoraCases(std::vector<ProjectCase>& list) {
  using M = AdapterMix;
  const std::vector<int32_t> mixed = {1, 3, 5, 7, 8, 9, 16, 17, 33, 64, 256};
  constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8};
  for (const DType dtype : {DType::kBF16, DType::kI8})
    for (const M mix : {M::kOneRow, M::kIdentical, M::kDistinct, M::kUniform, M::kZipf, M::kSkewed})
      for (const int32_t rows : {1, 3, 8, 21, 64})
        list.push_back({.name = "mix",
                        .rows = rows,
                        .in = 150,
                        .outs = {70, 33},
                        .dtype = DType::kBF16,
                        .mix = mix,
                        .ranks = {8, 16, 4},
                        .adapter_dtype = dtype,
                        .tile_columns = ShrinkChunk(dtype),
                        .seed = 10});
  for (const DType dtype : kDTypes) {
    for (const int32_t rank : mixed)
      list.push_back({.name = "rank",
                      .rows = 5,
                      .in = 77,
                      .outs = {45},
                      .mix = M::kUniform,
                      .ranks = {rank},
                      .adapter_dtype = dtype,
                      .tile_columns = ShrinkChunk(dtype),
                      .seed = 11});
    for (const int32_t tile_columns : {32, 64, 96, 128, 160, 256, 480, 512}) {
      list.push_back({.name = "tile columns",
                      .rows = 9,
                      .in = 1101,
                      .outs = {531, 96},
                      .mix = M::kSkewed,
                      .ranks = {8, 17, 3},
                      .adapter_dtype = dtype,
                      .tile_columns = tile_columns,
                      .seed = 12});
      list.push_back({.name = "whole tiles",
                      .rows = 4,
                      .in = 1024,
                      .outs = {512, 64, 64},
                      .mix = M::kDistinct,
                      .ranks = {16, 8},
                      .adapter_dtype = dtype,
                      .tile_columns = tile_columns,
                      .seed = 13});
    }
    list.push_back({.name = "ranks mixed",
                    .rows = 33,
                    .in = 130,
                    .outs = {65, 100, 31},
                    .dtype = dtype,
                    .mix = M::kDistinct,
                    .ranks = mixed,
                    .adapter_dtype = dtype,
                    .tile_columns = ShrinkChunk(dtype),
                    .has_bias = true,
                    .seed = 14});
    list.push_back({.name = "adapters without this site",
                    .rows = 16,
                    .in = 96,
                    .outs = {64, 40},
                    .mix = M::kDistinct,
                    .ranks = {8, 0, 3, 0},
                    .adapter_dtype = dtype,
                    .tile_columns = ShrinkChunk(dtype),
                    .seed = 15});
    for (const int32_t per_row : {2, 4})
      list.push_back({.name = "several adapters per row",
                      .rows = 12,
                      .in = 200,
                      .outs = {90, 64},
                      .dtype = dtype,
                      .mix = M::kUniform,
                      .ranks = {8, 5, 16},
                      .adapter_dtype = dtype,
                      .tile_columns = ShrinkChunk(dtype),
                      .adapters_per_row = per_row,
                      .has_bias = true,
                      .seed = 16});
  }
  for (const WeightFormat base : {WeightFormat::kInt8, WeightFormat::kBF16Dot})
    for (const int32_t rows : {1, 6, 21})
      list.push_back({.name = "a base with its own x",
                      .rows = rows,
                      .in = 300,
                      .outs = {96, 45, 33},
                      .dtype = base,
                      .mix = M::kUniform,
                      .ranks = {8, 0, 5},
                      .adapter_dtype = DType::kBF16,
                      .has_bias = true,
                      .seed = 18});
  list.push_back({.name = "accumulates",
                  .rows = 7,
                  .in = 300,
                  .outs = {128},
                  .mix = M::kZipf,
                  .ranks = {16, 8},
                  .tile_columns = 64,
                  .accumulates = true,
                  .seed = 17});
}

inline std::vector<ProjectCase> ProjectCases() {
  std::vector<ProjectCase> list;
  for (const WeightFormat dtype : kWeightFormats) {
    for (const int32_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 64})
      list.push_back({.name = "rows", .rows = rows, .in = 129, .outs = {67}, .dtype = dtype, .seed = 1});
    for (const int32_t in : {1, 2, 3, 31, 127, 128, 255, 257, 640})
      for (const int32_t rows : {2, 13})
        list.push_back({.name = "in", .rows = rows, .in = in, .outs = {40}, .dtype = dtype, .seed = 2});
    for (const int32_t out : {1, 2, 15, 31, 32, 33, 63, 64, 65, 100, 257})
      for (const int32_t rows : {1, 10})
        list.push_back({.name = "out", .rows = rows, .in = 66, .outs = {out}, .dtype = dtype, .seed = 3});
    list.push_back({.name = "three products",
                    .rows = 6,
                    .in = 160,
                    .outs = {96, 33, 7},
                    .dtype = dtype,
                    .has_bias = true,
                    .seed = 4});
    list.push_back({.name = "accumulates",
                    .rows = 11,
                    .in = 96,
                    .outs = {65},
                    .dtype = dtype,
                    .has_bias = true,
                    .accumulates = true,
                    .seed = 5});
  }
  AddLoraCases(list);
  return list;
}

inline std::vector<ProjectCase> EmbedCases() {
  using M = AdapterMix;
  std::vector<ProjectCase> list;
  for (const WeightFormat dtype : kWeightFormats) {
    const DType adapter_dtype = dtype.is_quantised() ? DType::kBF16 : dtype.dtype();
    for (const int32_t hidden : {1, 31, 64, 130, 300})
      list.push_back(
          {.name = "embed", .rows = 9, .in = 101, .outs = {hidden}, .dtype = dtype, .is_embed = true, .seed = 20});
    for (const int32_t tile_columns : {32, 512})
      list.push_back({.name = "embed, ranks mixed",
                      .rows = 17,
                      .in = 1043,
                      .outs = {100},
                      .dtype = dtype,
                      .mix = M::kDistinct,
                      .ranks = {1, 8, 9, 33, 0},
                      .adapter_dtype = adapter_dtype,
                      .tile_columns = tile_columns,
                      .is_embed = true,
                      .seed = 21});
    list.push_back({.name = "embed, several adapters per row",
                    .rows = 8,
                    .in = 90,
                    .outs = {48},
                    .dtype = dtype,
                    .mix = M::kUniform,
                    .ranks = {8, 3},
                    .adapter_dtype = adapter_dtype,
                    .adapters_per_row = 3,
                    .is_embed = true,
                    .seed = 22});
  }
  for (const int32_t tile_columns : {32, 480})
    for (const WeightFormat dtype : {WeightFormat::kBF16, WeightFormat::kInt8})
      list.push_back({.name = "embed, int8 adapters",
                      .rows = 17,
                      .in = 1043,
                      .outs = {100},
                      .dtype = dtype,
                      .mix = M::kDistinct,
                      .ranks = {1, 8, 9, 33, 0},
                      .adapter_dtype = DType::kI8,
                      .tile_columns = tile_columns,
                      .is_embed = true,
                      .seed = 23});
  return list;
}

}  // namespace openlora::cases
