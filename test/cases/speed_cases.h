#pragma once

#include <cstdint>
#include <vector>

#include "cases/attention_cases.h"
#include "cases/project_cases.h"

namespace openlora::cases {

// The same structs at the sizes of a model, Qwen2.5-0.5B: hidden 896, 14 heads of 64 over 2 KV heads, intermediate
// 4864, vocabulary 151,936. For the bench; too large for the tests.

inline ProjectCase QkvCase(int32_t rows, WeightFormat dtype) {
  return {.name = "qkv", .rows = rows, .in = 896, .outs = {896, 128, 128}, .dtype = dtype, .has_bias = true};
}
inline ProjectCase GateUpCase(int32_t rows, WeightFormat dtype) {
  return {.name = "gate up", .rows = rows, .in = 896, .outs = {4864, 4864}, .dtype = dtype};
}
inline ProjectCase DownCase(int32_t rows, WeightFormat dtype) {
  return {.name = "down", .rows = rows, .in = 4864, .outs = {896}, .dtype = dtype, .accumulates = true};
}
inline ProjectCase HeadCase(int32_t rows, WeightFormat dtype) {
  return {.name = "head", .rows = rows, .in = 896, .outs = {151936}, .dtype = dtype};
}

inline ProjectCase WithAdapters(ProjectCase c, AdapterMix mix, std::vector<int32_t> ranks) {
  c.mix = mix;
  c.ranks = std::move(ranks);
  c.adapter_dtype = c.dtype.is_quantised() ? DType::kBF16 : c.dtype.dtype();
  return c;
}
inline ProjectCase InInt8(ProjectCase c) {
  c.adapter_dtype = DType::kI8;
  c.tile_columns = ShrinkChunk(DType::kI8);
  return c;
}

inline std::vector<ProjectCase> ProjectSpeedCases() {
  using M = AdapterMix;
  std::vector<ProjectCase> list;
  for (const WeightFormat dtype :
       {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kBF16Dot, WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const int32_t rows : {1, 4, 8, 16, 32, 256, 512}) {
      list.push_back(QkvCase(rows, dtype));
      list.push_back(GateUpCase(rows, dtype));
      list.push_back(DownCase(rows, dtype));
    }
    for (const int32_t rows : {1, 32}) list.push_back(HeadCase(rows, dtype));
    list.push_back(WithAdapters(GateUpCase(1, dtype), M::kIdentical, {16}));
    list.push_back(WithAdapters(DownCase(1, dtype), M::kIdentical, {16}));
    for (const M mix : {M::kIdentical, M::kDistinct, M::kUniform, M::kZipf, M::kSkewed}) {
      list.push_back(WithAdapters(GateUpCase(32, dtype), mix, {16}));
      list.push_back(WithAdapters(DownCase(32, dtype), mix, {16}));
    }
    list.push_back(WithAdapters(GateUpCase(32, dtype), M::kDistinct, {8, 64, 16, 3, 32}));
    if (dtype != WeightFormat::kBF16 && dtype != WeightFormat::kInt8) continue;
    for (const auto& of_shape : {GateUpCase, DownCase}) {
      list.push_back(InInt8(WithAdapters(of_shape(1, dtype), M::kIdentical, {16})));
      const ProjectCase eight = WithAdapters(of_shape(8, dtype), M::kDistinct, {16});
      list.push_back(eight);
      list.push_back(InInt8(eight));
    }
  }
  return list;
}

inline AttentionCase AttentionSpeedCase(const char* name, DType dtype, int32_t sequences, AttentionSequence sequence) {
  return {.name = name,
          .heads = 14,
          .kv_heads = 2,
          .head_dim = 64,
          .dtype = dtype,
          .sequences = std::vector<AttentionSequence>(static_cast<size_t>(sequences), sequence)};
}

inline std::vector<AttentionCase> AttentionSpeedCases() {
  std::vector<AttentionCase> list;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const AttentionCase of_dtype[] = {
        AttentionSpeedCase("decode", dtype, 1, {1023, 1}), AttentionSpeedCase("decode of 32", dtype, 32, {63, 1}),
        AttentionSpeedCase("decode of 32", dtype, 32, {1023, 1}), AttentionSpeedCase("prefill", dtype, 1, {0, 256}),
        AttentionSpeedCase("prefill", dtype, 1, {768, 256})};
    list.insert(list.end(), std::begin(of_dtype), std::end(of_dtype));
    if (dtype != DType::kBF16) continue;
    for (const AttentionCase& c : of_dtype) list.push_back(WithDots(c));
  }
  return list;
}

}  // namespace openlora::cases
