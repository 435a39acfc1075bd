#pragma once

#include <cstddef>
#include <cstdint>

// What attention.cc and attention-inl.h say to each other. A tile is up to eight (row, query head) pairs of one
// sequence and one KV head; they share every load of K and V.

namespace openlora {

inline constexpr int kAttentionPairs = 8;
inline constexpr int kGroupTokens =
    16;  // K of 16 tokens: [head_dim][16]; token j adds to lane j % 16 of the softmax sum
inline constexpr int kHeadDimMax = 1024;
inline constexpr int kQueryStride = kHeadDimMax + 16;  // of a tile's queries; not whole pages, which share L1's sets
inline constexpr int kBlockTokens = 128;               // one rescale for each; the scores of a tile take 4 KB
inline constexpr int kBlockGroups = kBlockTokens / kGroupTokens;

// scores[pair][token] = q[pair]·k[token]: for each a chain over head_dim; in int8 times the token's scale.
struct ScoreArgs {
  const float* q = nullptr;  // [pairs][kQueryStride], scaled
  int32_t pairs = 0;
  int32_t head_dim = 0;
  const void* const* keys = nullptr;        // [groups], each [head_dim][kGroupTokens]
  const uint16_t* const* scales = nullptr;  // int8: [groups], each [kGroupTokens] in bf16
  int32_t groups = 0;
  float* scores = nullptr;  // [kAttentionPairs][kBlockTokens]
};

// The online softmax of one pair: Σ e^(s - max) in 16 lanes, and Σ e^(s - max) v.
struct AttentionState {
  float max;
  float sums[kGroupTokens];
  float* out;  // [head_dim rounded up to kGroupTokens]
};

// Tokens [begin, end) of a block: scores become e^(s - max), state's max and sums take them in, out is rescaled. In
// int8 the scores end as e^(s - max) times the scale of the token's V.
struct SoftmaxArgs {
  float* scores = nullptr;                  // [kBlockTokens]
  const uint16_t* const* scales = nullptr;  // [kBlockGroups], each [kGroupTokens] in bf16; null: not int8
  int32_t begin = 0;
  int32_t end = 0;
  float soft_cap = 0;
  int64_t out_count = 0;  // floats of state->out
  AttentionState* state = nullptr;
};

// out[pair] += Σ_t p[pair][t] · v[t] over tokens [begin, end) of a block: for each element a chain over t.
struct ValueArgs {
  const float* p = nullptr;  // [pairs][kBlockTokens]
  int32_t pairs = 0;
  int32_t head_dim = 0;
  const void* const* values = nullptr;  // [frames of the block], each [frame_tokens][head_dim]
  int32_t frame_tokens = 0;
  int32_t begin = 0;
  int32_t end = 0;
  float* out = nullptr;  // [pairs][out_stride]
  int64_t out_stride = 0;
};

struct AttentionKernels {
  void (*scores[4])(const ScoreArgs& args);  // by DType
  void (*softmax)(const SoftmaxArgs& args);
  void (*values[4])(const ValueArgs& args);
  // into = into ∪ from
  void (*merge)(AttentionState* into, const AttentionState& from, int64_t out_count);
  // out[0, head_dim) = state.out / Σ state.sums
  void (*finish)(const AttentionState& state, float* out, int64_t head_dim);
};

// Attention by bf16 dots (KvView::has_bf16_dots): what stands side by side in pairs is one float of two bf16. Scores
// are in powers of two.

// q' of `pairs` rows q [head_dim].
struct DotQueryArgs {
  const float* q[kAttentionPairs] = {};
  int32_t pairs = 0;
  int32_t head_dim = 0;
  float scale = 1;
  float* rounded = nullptr;  // [pairs][kQueryStride], head_dim/2 of each
};

// Of pair i the tokens [begin[i], end[i]) of a block: states take them in.
struct DotSoftmaxArgs {
  float* scores = nullptr;  // [pairs][kBlockTokens]; lost
  float* p = nullptr;       // out: [pairs][kBlockTokens/2], zero beside those tokens where their thirty-two have others
  int32_t pairs = 0;
  int32_t begin[kAttentionPairs] = {};
  int32_t end[kAttentionPairs] = {};
  float soft_cap = 0;
  int64_t out_count = 0;
  AttentionState* states = nullptr;  // [pairs]
};

struct AttentionDotKernels {
  void (*queries)(const DotQueryArgs& args);
  void (*scores)(const ScoreArgs& args);  // K [head_dim/2][kGroupTokens], q as DotQueryArgs gives it
  void (*softmax)(const DotSoftmaxArgs& args);
  void (*values)(const ValueArgs& args);  // V [frame_tokens/2][head_dim], p [pairs][kBlockTokens/2]
  void (*merge)(AttentionState* into, const AttentionState& from, int64_t out_count);
};

}  // namespace openlora
