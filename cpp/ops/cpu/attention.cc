#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include "base/check.h"
#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/cpu_ops_impl.h"

// A row's attention is one fixed expression of its own q and the KV that it sees: spans of kSpanTokens tokens at
// absolute positions, each an online softmax over its blocks of kBlockTokens, merged in ascending order. Tiles,
// threads, chunks of the prompt and neighbours decide who computes what, never what is computed: within a block a
// pair's tokens are exactly those that it sees, in ascending order. By bf16 dots, pairs of tokens stand at absolute
// positions, and what a row doesn't see of one is zero.

namespace openlora {
namespace {

constexpr int kSpanTokens = 1024;
constexpr float kLog2E = 1.44269504f;

// Pairs [first_pair, first_pair + pairs) of (sequence, kv_head). Pair i of the rows of a sequence and of the `group`
// query heads that share a KV head is (row i / group, head i % group).
struct Tile {
  int32_t sequence;
  int32_t kv_head;
  int32_t row_begin;  // of the sequence
  int32_t first_pair;
  int32_t pairs;
  int32_t begin;  // tokens that any pair sees
  int32_t end;

  int32_t FirstSpan() const { return begin / kSpanTokens; }
  int32_t LastSpan() const { return (end - 1) / kSpanTokens; }
  int32_t Spans() const { return LastSpan() - FirstSpan() + 1; }
};

struct TokenRange {
  int32_t begin;
  int32_t end;
};

struct Shape {
  int32_t group;         // query heads to a KV head
  int64_t out_count;     // head_dim rounded up to kGroupTokens
  int64_t frame_values;  // elements of K, or of V, in a frame
};

constexpr int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

Shape ShapeOf(const AttentionArgs& args) {
  const KvView& kv = args.kv;
  OPENLORA_CHECK(args.heads % kv.kv_heads == 0 && kv.head_dim <= kHeadDimMax);
  OPENLORA_CHECK(kv.frame_tokens > 0 && kGroupTokens % kv.frame_tokens == 0);
  OPENLORA_CHECK(kv.scale_bytes >= KvScaleBytes(kv.dtype, kv.kv_heads, kv.frame_tokens));
  OPENLORA_CHECK(!kv.has_bf16_dots || (kv.dtype == DType::kBF16 && kv.head_dim % 2 == 0 && kv.frame_tokens % 2 == 0));
  return {args.heads / kv.kv_heads, RoundUp(kv.head_dim, kGroupTokens),
          int64_t{kv.kv_heads} * kv.head_dim * kv.frame_tokens};
}

TokenRange SeenBy(const AttentionArgs& args, int32_t row) {
  const int32_t end = args.rows.row_pos[row] + 1;
  return {args.window > 0 ? std::max(0, end - args.window) : 0, end};
}

// Calls visit(row_begin, row_end) for each sequence.
template <typename Visit>
void ForEachSequence(const RowsView& rows, const Visit& visit) {
  for (int32_t begin = 0; begin < rows.rows;) {
    int32_t end = begin + 1;
    while (end < rows.rows && rows.row_sequence[end] == rows.row_sequence[begin]) ++end;
    visit(begin, end);
    begin = end;
  }
}

int64_t CountTiles(const AttentionArgs& args, const Shape& shape) {
  int64_t tiles = 0;
  ForEachSequence(args.rows, [&](int32_t begin, int32_t end) {
    tiles += (int64_t{end - begin} * shape.group + kAttentionPairs - 1) / kAttentionPairs * args.kv.kv_heads;
  });
  return tiles;
}

// Within a (sequence, KV head) the last rows first: they see the most. Returns the multiply-adds of all tiles.
int64_t FillTiles(const AttentionArgs& args, const Shape& shape, Tile* tiles) {
  int64_t work = 0;
  ForEachSequence(args.rows, [&](int32_t row_begin, int32_t row_end) {
    const int32_t pairs = (row_end - row_begin) * shape.group;
    for (int32_t kv_head = 0; kv_head < args.kv.kv_heads; ++kv_head)
      for (int32_t first = (pairs - 1) / kAttentionPairs * kAttentionPairs; first >= 0; first -= kAttentionPairs) {
        Tile& tile = *tiles++;
        tile = {args.rows.row_sequence[row_begin],        kv_head, row_begin, first,
                std::min(kAttentionPairs, pairs - first), 0,       0};
        tile.begin = SeenBy(args, row_begin + first / shape.group).begin;
        tile.end = SeenBy(args, row_begin + (first + tile.pairs - 1) / shape.group).end;
        work += int64_t{tile.end - tile.begin} * tile.pairs * args.kv.head_dim * 2;
      }
  });
  return work;
}

// One thread's work on one tile.
class TileWorker {
 public:
  TileWorker(const AttentionArgs& args, const Shape& shape, const KernelTable& kernels, uint8_t* scratch)
      : args_(args),
        kv_(args.kv),
        shape_(shape),
        kernels_(kernels.attention),
        dots_(kernels.attention_dots),
        element_(static_cast<int64_t>(SizeOf(kv_.dtype))),
        key_width_(kv_.has_bf16_dots ? 2 : 1) {
    q_ = Take<float>(scratch, int64_t{kQueryStride} * kAttentionPairs);
    weights_ = Take<float>(scratch, int64_t{kBlockTokens} / 2 * kAttentionPairs);
    scores_ = Take<float>(scratch, int64_t{kBlockTokens} * kAttentionPairs);
    keys_ = Take<const void*>(scratch, kBlockGroups);
    values_ = Take<const void*>(scratch, kBlockTokens);
    key_scales_ = Take<const uint16_t*>(scratch, kBlockGroups);
    value_scales_ = Take<const uint16_t*>(scratch, kBlockGroups);
    gathered_scales_ = Take<uint16_t>(scratch, 2 * kBlockTokens);
    state_ = StatesAt(shape, scratch);
    span_state_ = StatesAt(shape, scratch + StateBytes(shape));
    scratch += 2 * StateBytes(shape);
    gathered_ = scratch;
  }

  // Of the states of a tile: a multiple of 64.
  static int64_t StateBytes(const Shape& shape) {
    return kAttentionPairs * (static_cast<int64_t>(sizeof(AttentionState)) + shape.out_count * 4);
  }
  static int64_t ScratchBytes(const AttentionArgs& args, const Shape& shape) {
    const int64_t gathered = int64_t{kBlockTokens} * args.kv.head_dim * 4;
    const int64_t q = int64_t{kQueryStride} * kAttentionPairs * 4;
    return q + kAttentionPairs * kBlockTokens * 6 + (3 * kBlockGroups + kBlockTokens) * 8 + 2 * kBlockTokens * 2 +
           2 * StateBytes(shape) + gathered + 10 * 64;
  }
  static AttentionState* StatesAt(const Shape& shape, uint8_t* memory) {
    AttentionState* states = Take<AttentionState>(memory, kAttentionPairs);
    float* out = reinterpret_cast<float*>(memory);
    for (int p = 0; p < kAttentionPairs; ++p) states[p].out = out + p * shape.out_count;
    return states;
  }

  // Has what a tile reads and writes beside KV brought near: rows stand pages apart.
  __attribute__((always_inline)) void PrefetchRows(const Tile& tile) const {
    for (int p = 0; p < tile.pairs; ++p) {
      const int64_t column = HeadOf(tile, p) * kv_.head_dim;
      const float* const q = args_.q.f32(RowOf(tile, p)) + column;
      const float* const out = args_.out.f32(RowOf(tile, p)) + column;
      for (int32_t d = 0; d < kv_.head_dim; d += 16) {
        __builtin_prefetch(q + d, 0, 2);
        __builtin_prefetch(out + d, 1, 2);
      }
    }
  }

  // The whole tile, into the output.
  void Attend(const Tile& tile) {
    for (int32_t span = tile.FirstSpan(); span <= tile.LastSpan(); ++span) {
      const bool is_first = span == tile.FirstSpan();
      AttendSpan(tile, span, is_first ? state_ : span_state_);
      if (!is_first) Merge(tile, span, state_, span_state_);
    }
    Finish(tile, state_);
  }

  // Tokens of one span, into `states`.
  void AttendSpan(const Tile& tile, int32_t span, AttentionState* states) {
    TakeQueries(tile);
    for (int p = 0; p < tile.pairs; ++p) {
      states[p].max = -std::numeric_limits<float>::infinity();
      std::fill_n(states[p].sums, kGroupTokens, 0.0f);
      std::fill_n(states[p].out, shape_.out_count, 0.0f);
    }
    const int32_t end = std::min(tile.end, (span + 1) * kSpanTokens);
    for (int32_t block = std::max(tile.begin, span * kSpanTokens) / kBlockTokens * kBlockTokens; block < end;
         block += kBlockTokens)
      AttendBlock(tile, block, states);
  }

  void Merge(const Tile& tile, int32_t span, AttentionState* into, const AttentionState* from) {
    for (int p = 0; p < tile.pairs; ++p) {
      const TokenRange seen = SeenBy(args_, RowOf(tile, p));
      if (seen.end <= span * kSpanTokens || seen.begin >= (span + 1) * kSpanTokens) continue;
      if (seen.begin / kSpanTokens < span) {
        (kv_.has_bf16_dots ? dots_.merge : kernels_.merge)(&into[p], from[p], shape_.out_count);
      } else {  // the first span that this row sees
        into[p].max = from[p].max;
        std::copy_n(from[p].sums, kGroupTokens, into[p].sums);
        std::copy_n(from[p].out, shape_.out_count, into[p].out);
      }
    }
  }

  // The item-th span of all tiles.
  void AttendItem(const Tile* tiles, int64_t item, AttentionState* states) {
    while (item >= tiles->Spans()) item -= tiles++->Spans();
    AttendSpan(*tiles, tiles->FirstSpan() + static_cast<int32_t>(item), states);
  }

  // The spans of a tile, whose states stand StateBytes apart, in order.
  void MergeSpans(const Tile& tile, uint8_t* states) {
    AttentionState* all = StatesAt(shape_, states);
    for (int32_t span = tile.FirstSpan() + 1; span <= tile.LastSpan(); ++span)
      Merge(tile, span, all, StatesAt(shape_, states += StateBytes(shape_)));
    Finish(tile, all);
  }

 private:
  void Finish(const Tile& tile, const AttentionState* states) {
    for (int p = 0; p < tile.pairs; ++p)
      kernels_.finish(states[p], args_.out.f32(RowOf(tile, p)) + HeadOf(tile, p) * kv_.head_dim, kv_.head_dim);
  }

  template <typename T>
  static T* Take(uint8_t*& scratch, int64_t count) {
    T* taken = reinterpret_cast<T*>(scratch);
    scratch += RoundUp(count * static_cast<int64_t>(sizeof(T)), 64);
    return taken;
  }

  int32_t RowOf(const Tile& tile, int p) const { return tile.row_begin + (tile.first_pair + p) / shape_.group; }
  int64_t HeadOf(const Tile& tile, int p) const {
    return tile.kv_head * shape_.group + (tile.first_pair + p) % shape_.group;
  }

  void TakeQueries(const Tile& tile) {
    DotQueryArgs dots = {.pairs = tile.pairs, .head_dim = kv_.head_dim, .scale = args_.scale * kLog2E, .rounded = q_};
    for (int p = 0; p < tile.pairs; ++p) {
      seen_[p] = SeenBy(args_, RowOf(tile, p));
      const float* q = dots.q[p] = args_.q.f32(RowOf(tile, p)) + HeadOf(tile, p) * kv_.head_dim;
      if (kv_.has_bf16_dots) continue;
      for (int32_t d = 0; d < kv_.head_dim; ++d) q_[p * kQueryStride + d] = q[d] * args_.scale;
    }
    if (kv_.has_bf16_dots) dots_.queries(dots);
  }

  // K and V of the tokens [begin, end) of the block at `block`, begin a multiple of kGroupTokens, as the kernels read
  // them.
  void FindFrames(const Tile& tile, int32_t block, int32_t begin, int32_t end) {
    const int32_t frame_tokens = kv_.frame_tokens;
    const int64_t head = int64_t{tile.kv_head} * kv_.head_dim * frame_tokens;
    for (int32_t t = begin; t < end; t += frame_tokens) {
      const uint8_t* frame = kv_.Frame(tile.sequence, (block + t) / frame_tokens, args_.layer);
      values_[t / frame_tokens] = frame + (shape_.frame_values + head) * element_;
      const uint8_t* key = frame + head * element_;
      uint8_t* group = gathered_ + int64_t{t / kGroupTokens} * kGroupTokens * kv_.head_dim * element_;
      if (frame_tokens < kGroupTokens) CopyKeys(key, group + t % kGroupTokens * key_width_ * element_);
      keys_[t / kGroupTokens] = frame_tokens < kGroupTokens ? group : key;
    }
  }

  // Likewise the scales of the same tokens.
  void FindScales(const Tile& tile, int32_t block, int32_t begin, int32_t end) {
    const int32_t frame_tokens = kv_.frame_tokens;
    for (int32_t t = begin; t < end; t += frame_tokens) {
      const uint16_t* key =
          kv_.Scales(tile.sequence, (block + t) / frame_tokens, args_.layer) + int64_t{tile.kv_head} * frame_tokens;
      const uint16_t* value = key + int64_t{kv_.kv_heads} * frame_tokens;
      const int32_t group = t / kGroupTokens;
      if (frame_tokens < kGroupTokens) {
        std::copy_n(key, frame_tokens, gathered_scales_ + t);
        std::copy_n(value, frame_tokens, gathered_scales_ + kBlockTokens + t);
        key = gathered_scales_ + group * kGroupTokens;
        value = key + kBlockTokens;
      }
      key_scales_[group] = key;
      value_scales_[group] = value;
    }
  }

  // [head_dim][frame_tokens] into columns of [head_dim][kGroupTokens], or both in pairs.
  void CopyKeys(const uint8_t* key, uint8_t* group) {
    const int64_t token = key_width_ * element_;
    const auto copy = [&](auto constant) {
      for (int64_t d = 0; d < kv_.head_dim / key_width_; ++d)
        std::memcpy(group + d * kGroupTokens * token, key + d * constant, static_cast<size_t>(constant));
    };
    switch (kv_.frame_tokens * token) {
      case 1:
        return copy(std::integral_constant<int64_t, 1>{});
      case 2:
        return copy(std::integral_constant<int64_t, 2>{});
      case 4:
        return copy(std::integral_constant<int64_t, 4>{});
      case 8:
        return copy(std::integral_constant<int64_t, 8>{});
      case 16:
        return copy(std::integral_constant<int64_t, 16>{});
      default:
        return copy(std::integral_constant<int64_t, 32>{});
    }
  }

  void AttendBlock(const Tile& tile, int32_t block, AttentionState* states) {
    const int32_t begin = std::max(0, tile.begin - block) / kGroupTokens * kGroupTokens;
    const int32_t end = std::min(kBlockTokens, tile.end - block);
    FindFrames(tile, block, begin, end);
    const bool has_scales = kv_.dtype == DType::kI8;
    if (has_scales) FindScales(tile, block, begin, end);
    const int32_t first_group = begin / kGroupTokens, groups = (end - 1) / kGroupTokens + 1 - first_group;
    const auto scores = kv_.has_bf16_dots ? dots_.scores : kernels_.scores[static_cast<int>(kv_.dtype)];
    scores({q_, tile.pairs, kv_.head_dim, keys_ + first_group, key_scales_ + first_group, groups,
            scores_ + first_group * kGroupTokens});
    TokenRange seen[kAttentionPairs];
    for (int p = 0; p < tile.pairs; ++p)
      seen[p] = {std::clamp(seen_[p].begin - block, 0, kBlockTokens),
                 std::clamp(seen_[p].end - block, 0, kBlockTokens)};
    Softmax(tile, seen, states);
    AddValues(tile, states, seen);
  }

  void Softmax(const Tile& tile, const TokenRange* seen, AttentionState* states) {
    DotSoftmaxArgs dots = {.scores = scores_,
                           .p = weights_,
                           .pairs = tile.pairs,
                           .soft_cap = args_.soft_cap * kLog2E,
                           .out_count = shape_.out_count,
                           .states = states};
    for (int p = 0; p < tile.pairs; ++p) {
      dots.begin[p] = seen[p].begin;
      dots.end[p] = seen[p].end;
      if (kv_.has_bf16_dots || seen[p].begin >= seen[p].end) continue;
      kernels_.softmax({scores_ + p * kBlockTokens, kv_.dtype == DType::kI8 ? value_scales_ : nullptr, seen[p].begin,
                        seen[p].end, args_.soft_cap, shape_.out_count, &states[p]});
    }
    if (kv_.has_bf16_dots) dots_.softmax(dots);
  }

  // The tokens that all pairs see together; those before and after row by row. A pair of tokens that only some see
  // whole is theirs alone.
  void AddValues(const Tile& tile, AttentionState* states, const TokenRange* seen) {
    TokenRange common = seen[0];
    bool is_same = true;
    for (int p = 1; p < tile.pairs; ++p) {
      is_same = is_same && seen[p].begin == seen[0].begin && seen[p].end == seen[0].end;
      common = {std::max(common.begin, seen[p].begin), std::min(common.end, seen[p].end)};
    }
    if (!is_same && kv_.has_bf16_dots) common = {common.begin + common.begin % 2, common.end / 2 * 2};
    if (common.begin >= common.end) common = {kBlockTokens, kBlockTokens};
    AddRows(tile, states, seen, {0, common.begin});
    AddValues(0, tile.pairs, common, states);
    AddRows(tile, states, seen, {common.end, kBlockTokens});
  }

  // What each row sees of `tokens`.
  void AddRows(const Tile& tile, AttentionState* states, const TokenRange* seen, TokenRange tokens) {
    for (int p = 0, next; p < tile.pairs; p = next) {
      for (next = p + 1; next < tile.pairs && seen[next].begin == seen[p].begin && seen[next].end == seen[p].end;)
        ++next;
      AddValues(p, next - p, {std::max(seen[p].begin, tokens.begin), std::min(seen[p].end, tokens.end)}, states);
    }
  }

  void AddValues(int p, int pairs, TokenRange tokens, AttentionState* states) {
    if (tokens.begin >= tokens.end) return;
    const auto values = kv_.has_bf16_dots ? dots_.values : kernels_.values[static_cast<int>(kv_.dtype)];
    const float* const weights = kv_.has_bf16_dots ? weights_ + p * (kBlockTokens / 2) : scores_ + p * kBlockTokens;
    values({weights, pairs, kv_.head_dim, values_, kv_.frame_tokens, tokens.begin, tokens.end, states[p].out,
            shape_.out_count});
  }

  const AttentionArgs& args_;
  const KvView& kv_;
  const Shape& shape_;
  const AttentionKernels& kernels_;
  const AttentionDotKernels& dots_;
  const int64_t element_;             // bytes
  const int64_t key_width_;           // elements of a token that stand together in K
  TokenRange seen_[kAttentionPairs];  // of the tile's pairs
  float* q_;                          // [kAttentionPairs][kQueryStride]
  float* weights_;                    // by dots: [kAttentionPairs][kBlockTokens/2]
  float* scores_;                     // [kAttentionPairs][kBlockTokens]
  const void** keys_;                 // [kBlockGroups]
  const void** values_;               // [kBlockTokens / frame_tokens]
  const uint16_t** key_scales_;       // [kBlockGroups], int8 alone, as the next two
  const uint16_t** value_scales_;     // [kBlockGroups]
  uint16_t* gathered_scales_;         // of K, then of V, [kBlockTokens] each, where frames hold fewer than kGroupTokens
  AttentionState* state_;             // [kAttentionPairs]
  AttentionState* span_state_;        // [kAttentionPairs]
  uint8_t* gathered_;                 // [kBlockGroups][head_dim][kGroupTokens], where frames hold fewer tokens
};

}  // namespace

void CpuOps::Attention(const AttentionArgs& args) {
  if (args.rows.rows == 0) return;
  const Shape shape = ShapeOf(args);
  const int threads = pool_.size();
  const int64_t tile_count = CountTiles(args, shape);
  const int32_t last_position = *std::max_element(args.rows.row_pos, args.rows.row_pos + args.rows.rows);
  // Few tiles of many spans: the threads share the spans instead of the tiles.
  const bool is_split = threads > 1 && tile_count < 2 * threads && last_position >= kSpanTokens;
  const int64_t states_max = is_split ? tile_count * (last_position / kSpanTokens + 1) : 0;

  const int64_t tile_bytes = RoundUp(tile_count * static_cast<int64_t>(sizeof(Tile)), 4096);
  const int64_t worker_bytes = RoundUp(TileWorker::ScratchBytes(args, shape), 4096);
  const int64_t state_bytes = TileWorker::StateBytes(shape);
  uint8_t* scratch = attention_scratch_.Get<uint8_t>(
      static_cast<size_t>(tile_bytes + worker_bytes * threads + states_max * state_bytes));
  Tile* tiles = reinterpret_cast<Tile*>(scratch);
  uint8_t* workers = scratch + tile_bytes;
  uint8_t* states = workers + worker_bytes * threads;

  const int64_t work = FillTiles(args, shape, tiles);
  int64_t items = tile_count;
  if (is_split)
    items =
        std::accumulate(tiles, tiles + tile_count, int64_t{0}, [](int64_t n, const Tile& t) { return n + t.Spans(); });
  std::atomic<int64_t> next{0};
  const auto body = [&](int member, int) {
    TileWorker worker(args, shape, kernels_, workers + worker_bytes * member);
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
      if (is_split) {
        worker.AttendItem(tiles, item, TileWorker::StatesAt(shape, states + item * state_bytes));
      } else {
        if (item + threads < items) worker.PrefetchRows(tiles[item + threads]);
        worker.Attend(tiles[item]);
      }
    }
  };
  constexpr int64_t kWorkToShare = 1 << 16;  // multiply-adds: about 2 µs of one thread
  if (threads == 1 || items == 1 || work < kWorkToShare) {
    body(0, 1);
  } else {
    pool_.Run(body);
  }
  if (!is_split) return;
  TileWorker worker(args, shape, kernels_, workers);
  for (const Tile* tile = tiles; tile < tiles + tile_count; states += tile->Spans() * state_bytes, ++tile)
    worker.MergeSpans(*tile, states);
}

}  // namespace openlora
