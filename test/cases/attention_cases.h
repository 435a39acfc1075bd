#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace openlora::cases {

struct AttentionSequence {
  int32_t cached;  // tokens whose K and V are there already
  int32_t rows;    // tokens of this step
};

struct AttentionCase {
  const char* name;
  int32_t heads = 2;
  int32_t kv_heads = 1;
  int32_t head_dim = 64;
  DType dtype = DType::kF32;
  int32_t frame_tokens = 16;
  std::vector<AttentionSequence> sequences = {{0, 1}};
  int32_t window = 0;
  float soft_cap = 0;
  uint64_t seed = 1;
  bool has_bf16_dots = false;  // of bf16 alone
};

inline std::string HeldAs(const AttentionCase& c) {
  return NameOf(c.dtype) + std::string(c.has_bf16_dots ? " dots" : "");
}

inline std::string Describe(const AttentionCase& c) {
  std::string text = std::string(c.name) + ": heads " + std::to_string(c.heads) + "/" + std::to_string(c.kv_heads) +
                     " x " + std::to_string(c.head_dim) + ", " + HeldAs(c) + ", frame tokens " +
                     std::to_string(c.frame_tokens) + ", window " + std::to_string(c.window) + ", cap " +
                     std::to_string(c.soft_cap) + ", cached+rows";
  for (const AttentionSequence& s : c.sequences) text += " " + std::to_string(s.cached) + "+" + std::to_string(s.rows);
  return text;
}

// As bf16, by bf16 dots.
inline AttentionCase WithDots(AttentionCase c) {
  c.dtype = DType::kBF16;
  c.has_bf16_dots = true;
  return c;
}

inline std::vector<AttentionCase> AttentionCases() {
  constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8};
  std::vector<AttentionCase> list;
  for (const DType dtype : kDTypes) {
    for (const int32_t head_dim : {8, 20, 32, 64, 80, 128})
      list.push_back({.name = "head_dim",
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = head_dim,
                      .dtype = dtype,
                      .sequences = {{37, 5}, {0, 3}},
                      .seed = 1});
    for (const int32_t frame_tokens : {1, 2, 4, 8, 16})
      list.push_back({.name = "frame tokens",
                      .heads = 3,
                      .kv_heads = 3,
                      .head_dim = 32,
                      .dtype = dtype,
                      .frame_tokens = frame_tokens,
                      .sequences = {{130, 3}, {0, 18}, {21, 1}},
                      .seed = 2});
    list.push_back({.name = "several spans",
                    .heads = 3,
                    .kv_heads = 1,
                    .head_dim = 16,
                    .dtype = dtype,
                    .sequences = {{1100, 1}, {1020, 9}, {1500, 2}},
                    .seed = 3});
  }
  for (const DType dtype : {DType::kBF16, DType::kI8})
    for (const int32_t group : {1, 2, 3, 4, 5, 6, 7, 8, 11})
      list.push_back({.name = "group",
                      .heads = 2 * group,
                      .kv_heads = 2,
                      .head_dim = 32,
                      .dtype = dtype,
                      .sequences = {{140, 3}, {10, 1}, {127, 2}},
                      .seed = 4});
  for (const int32_t cached : {0, 1, 7, 14, 15, 16, 17, 62, 63, 64, 126, 127, 128, 129, 255, 256, 1023, 1024})
    list.push_back({.name = "decode at a border",
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 16,
                    .sequences = {{cached, 1}},
                    .seed = 5});
  for (const int32_t cached : {0, 5, 120, 1000})
    list.push_back({.name = "chunk over a border",
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 16,
                    .sequences = {{cached, 33}},
                    .seed = 6});
  for (const int32_t window : {1, 2, 16, 17, 100, 128, 129, 1500}) {
    list.push_back({.name = "window",
                    .heads = 2,
                    .kv_heads = 1,
                    .head_dim = 32,
                    .dtype = DType::kBF16,
                    .sequences = {{150, 20}, {0, 9}},
                    .window = window,
                    .seed = 7});
    list.push_back({.name = "window over spans",
                    .heads = 1,
                    .kv_heads = 1,
                    .head_dim = 16,
                    .sequences = {{1015 + window, 20}},
                    .window = window,
                    .seed = 8});
  }
  list.push_back({.name = "window",
                  .heads = 2,
                  .kv_heads = 1,
                  .head_dim = 32,
                  .dtype = DType::kI8,
                  .sequences = {{150, 20}, {0, 9}},
                  .window = 100,
                  .seed = 7});
  for (const float cap : {1.0f, 30.0f})
    list.push_back({.name = "soft cap",
                    .heads = 8,
                    .kv_heads = 2,
                    .head_dim = 64,
                    .dtype = DType::kBF16,
                    .sequences = {{70, 4}, {300, 1}},
                    .soft_cap = cap,
                    .seed = 9});
  for (const DType dtype : {DType::kF16, DType::kI8})
    list.push_back({.name = "all at once",
                    .heads = 6,
                    .kv_heads = 2,
                    .head_dim = 80,
                    .dtype = dtype,
                    .frame_tokens = 4,
                    .sequences = {{1100, 3}, {0, 40}, {13, 1}, {500, 2}},
                    .window = 600,
                    .soft_cap = 20,
                    .seed = 10});
  // By dots what is there in bf16, and what is there in one dtype alone.
  const std::string_view of_one[] = {"decode at a border", "chunk over a border", "window over spans"};
  for (size_t i = 0, count = list.size(); i < count; ++i) {
    const AttentionCase c = list[i];
    const bool is_alone = std::find(std::begin(of_one), std::end(of_one), c.name) != std::end(of_one) ||
                          (std::string_view(c.name) == "all at once" && c.dtype == DType::kF16);
    if ((c.dtype == DType::kBF16 || is_alone) && c.frame_tokens % 2 == 0) list.push_back(WithDots(c));
  }
  return list;
}

}  // namespace openlora::cases
