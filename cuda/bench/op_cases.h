#pragma once

#include <cstdint>
#include <string>
#include <vector>

// What `openlora bench ops` measures on a GPU.

namespace openlora {

enum class CudaOpKind { kBase, kAdapters, kAttention };

struct CudaOpCase {
  CudaOpKind kind = CudaOpKind::kBase;
  const char* name = "";
  int32_t rows = 1;
  // Products that share x, or their adapters' parts.
  int32_t in = 0;
  std::vector<int32_t> outs = {};
  int32_t adapters = 0;  // distinct ones, which rows take by turns
  int32_t rank = 0;
  // Attention: a row of each of `rows` sequences after `context` tokens, or of a prefill that many rows of one.
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t context = 0;
  bool is_prefill = false;
};

inline std::string Describe(const CudaOpCase& c) {
  std::string text = std::string(c.name) + ": rows " + std::to_string(c.rows);
  if (c.kind == CudaOpKind::kAttention)
    return text + ", context " + std::to_string(c.context) + ", heads " + std::to_string(c.heads) + "/" +
           std::to_string(c.kv_heads) + " x " + std::to_string(c.head_dim);
  text += ", in " + std::to_string(c.in) + ", outs";
  for (const int32_t out : c.outs) text += " " + std::to_string(out);
  if (c.kind == CudaOpKind::kAdapters)
    text += ", " + std::to_string(c.adapters) + (c.adapters == 1 ? " adapter" : " distinct adapters") + " of rank " +
            std::to_string(c.rank);
  return text;
}

// The shapes of Llama-3.1-8B.
inline std::vector<CudaOpCase> CudaOpCases() {
  using K = CudaOpKind;
  constexpr int32_t kHidden = 4096, kKv = 1024, kIntermediate = 14336, kVocabulary = 128256;
  const CudaOpCase qkv = {.name = "qkv", .in = kHidden, .outs = {kHidden, kKv, kKv}};
  const CudaOpCase o = {.name = "o", .in = kHidden, .outs = {kHidden}};
  const CudaOpCase gate_up = {.name = "gate up", .in = kHidden, .outs = {kIntermediate, kIntermediate}};
  const CudaOpCase down = {.name = "down", .in = kIntermediate, .outs = {kHidden}};
  const CudaOpCase head = {.name = "head", .in = kHidden, .outs = {kVocabulary}};
  std::vector<CudaOpCase> list;
  const auto base = [&](CudaOpCase c, int32_t rows) {
    c.rows = rows;
    list.push_back(c);
  };
  const auto adapters = [&](CudaOpCase c, int32_t rows, int32_t count, int32_t rank) {
    c.kind = K::kAdapters;
    c.rows = rows;
    c.adapters = count;
    c.rank = rank;
    list.push_back(c);
  };
  const auto attention = [&](const char* name, int32_t rows, int32_t context, bool is_prefill) {
    list.push_back({.kind = K::kAttention,
                    .name = name,
                    .rows = rows,
                    .heads = 32,
                    .kv_heads = 8,
                    .head_dim = 128,
                    .context = context,
                    .is_prefill = is_prefill});
  };
  for (const int32_t rows : {1, 8, 32, 64, 512})
    for (const CudaOpCase& c : {qkv, o, gate_up, down}) base(c, rows);
  for (const int32_t rows : {1, 32}) base(head, rows);
  for (const int32_t count : {1, 4, 16, 32, 64})
    for (const CudaOpCase& c : {qkv, o, gate_up, down}) adapters(c, count, count, 16);
  for (const int32_t rank : {1, 8, 64, 128}) {
    adapters(qkv, 1, 1, rank);
    adapters(qkv, 32, 32, rank);
  }
  for (const int32_t count : {1, 8}) adapters(qkv, 64, count, 16);
  adapters(qkv, 512, 1, 16);  // long segments
  adapters(qkv, 512, 4, 16);
  for (const int32_t rows : {1, 32, 64})
    for (const int32_t context : {64, 1024}) attention("decode", rows, context, false);
  attention("decode", 1, 16384, false);
  for (const int32_t context : {0, 4096}) attention("prefill", 512, context, true);
  return list;
}

// Seconds in place of minutes.
inline std::vector<CudaOpCase> QuickCudaOpCases() {
  using K = CudaOpKind;
  return {
      {.name = "qkv", .rows = 3, .in = 96, .outs = {64, 32, 32}},
      {.name = "down", .rows = 80, .in = 160, .outs = {64}},
      {.kind = K::kAdapters, .name = "qkv", .rows = 5, .in = 96, .outs = {64, 32, 32}, .adapters = 3, .rank = 9},
      {.kind = K::kAttention, .name = "decode", .rows = 3, .heads = 4, .kv_heads = 2, .head_dim = 32, .context = 40},
      {.kind = K::kAttention,
       .name = "prefill",
       .rows = 20,
       .heads = 4,
       .kv_heads = 2,
       .head_dim = 32,
       .context = 16,
       .is_prefill = true}};
}

}  // namespace openlora
