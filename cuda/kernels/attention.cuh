#include "device/device.cuh"
#include "kernels/attention.h"

// Pairs of (row, head) are M = 16 of mma.m16n8k16, in Decode and in Prefill alike: scores are q·kᵀ with positions as N,
// their registers are the A operand of the product with V. Each warp walks all positions of its own tile, so that
// nothing of a row's result passes between warps; the warps of a block only share loads. One order of every sum, each
// product with a sum an explicit Fma: nothing is left to the compiler that could differ between kernels.

namespace openlora::attention {

inline constexpr float kLog2E = 1.44269504f;

__device__ __forceinline__ float MinusInfinity() { return dev::BitsToFloat(0xff800000u); }

template <bool is_f16>
__device__ __forceinline__ uint32_t Pack(float low, float high) {
  if constexpr (is_f16) return dev::PackF16(low, high);
  return dev::PackBF16(low, high);
}
template <bool is_f16>
__device__ __forceinline__ float SumOf(uint32_t pair) {
  if constexpr (is_f16)
    return dev::F16ToFloat(static_cast<uint16_t>(pair)) + dev::F16ToFloat(static_cast<uint16_t>(pair >> 16));
  return dev::BitsToFloat(pair << 16) + dev::BitsToFloat(pair & 0xffff0000u);
}
template <bool is_f16>
__device__ __forceinline__ bool IsFinite(uint32_t pair) {
  constexpr uint32_t kExponent = is_f16 ? 0x7c00u : 0x7f80u;
  return (pair & kExponent) != kExponent && (pair >> 16 & kExponent) != kExponent;
}
template <bool is_f16>
__device__ __forceinline__ void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (is_f16) return dev::MmaF16(d, a, b0, b1);
  dev::MmaBF16(d, a, b0, b1);
}

// Bytes from the pool's begin of K of a token, V is VOffset beyond.
__device__ __forceinline__ int64_t OffsetOf(const Cache& cache, uint32_t frame, int kv_head, int position) {
  const int token = position & ((1 << cache.frame_tokens_log2) - 1);
  return frame * cache.frame_bytes +
         static_cast<int64_t>((kv_head << cache.frame_tokens_log2) + token) * cache.head_dim * 2;
}
__device__ __forceinline__ int64_t VOffset(const Cache& cache) {
  return static_cast<int64_t>(cache.kv_heads << cache.frame_tokens_log2) * cache.head_dim * 2;
}
__device__ __forceinline__ uint32_t FrameOf(const Cache& cache, int sequence, int block) {
  return cache.table[cache.table_begin[sequence] + static_cast<int64_t>(block) * cache.layers + cache.layer];
}

// Eight floats, rounded.
template <bool is_f16>
__device__ __forceinline__ dev::Vec16 Take8(const float* from) {
  const auto low = *reinterpret_cast<const dev::Vec16*>(from);
  const auto high = *reinterpret_cast<const dev::Vec16*>(from + 4);
  return {{Pack<is_f16>(dev::BitsToFloat(low.w[0]), dev::BitsToFloat(low.w[1])),
           Pack<is_f16>(dev::BitsToFloat(low.w[2]), dev::BitsToFloat(low.w[3])),
           Pack<is_f16>(dev::BitsToFloat(high.w[0]), dev::BitsToFloat(high.w[1])),
           Pack<is_f16>(dev::BitsToFloat(high.w[2]), dev::BitsToFloat(high.w[3]))}};
}

// A warp for each (row, KV head), a lane for each eight columns.
template <bool is_f16>
__device__ __forceinline__ void AppendRows(const AppendParams& params) {
  constexpr int kWarps = kThreads / 32;
  const Cache& cache = params.cache;
  const int column = dev::Lane() * 8, count = *params.row_count * cache.kv_heads;
  const bool has = column < cache.head_dim;
  for (int i = dev::BlockIndex() * kWarps + dev::Warp(); i < count; i += dev::GridBlocks() * kWarps) {
    const int row = i / cache.kv_heads, head = i % cache.kv_heads, position = params.row_pos[row];
    const int64_t from = static_cast<int64_t>(head) * cache.head_dim + column;
    dev::Vec16 k = {}, v = {};
    if (has) {
      k = Take8<is_f16>(params.k + row * params.k_stride + from);
      v = Take8<is_f16>(params.v + row * params.v_stride + from);
    }
    const bool is_finite =
        IsFinite<is_f16>(v.w[0]) && IsFinite<is_f16>(v.w[1]) && IsFinite<is_f16>(v.w[2]) && IsFinite<is_f16>(v.w[3]);
    if (dev::Ballot(!is_finite) != 0) {
      k = {{~0u, ~0u, ~0u, ~0u}};
      v = {};
    }
    if (!has) continue;
    const uint32_t frame = FrameOf(cache, params.row_sequence[row], position >> cache.frame_tokens_log2);
    uint8_t* const to = cache.pool + OffsetOf(cache, frame, head, position) + column * 2;
    *reinterpret_cast<dev::Vec16*>(to) = k;
    *reinterpret_cast<dev::Vec16*>(to + VOffset(cache)) = v;
  }
}

// Positions, from begin to before end.
struct Range {
  int begin, end;
};
__device__ __forceinline__ Range SeenFrom(const Params& params, int position) {
  return {params.window > 0 ? dev::Max(0, position + 1 - params.window) : 0, position + 1};
}
__device__ __forceinline__ bool HasSplit(const Range& seen, int split) {
  return seen.begin < (split + 1) * kSplit && split * kSplit < seen.end;
}

// Of a number of pairs: positions that some row sees, and that every row sees.
struct Seen {
  Range some, every;
};
__device__ __forceinline__ Seen SeenBy(const Params& params, const Item& item, int begin, int end) {
  if (begin >= end) return {};
  const int group = params.heads / params.cache.kv_heads;
  const int first = item.row + (item.pair + begin) / group, last = item.row + (item.pair + end - 1) / group;
  const Range of_first = SeenFrom(params, params.row_pos[first]), of_last = SeenFrom(params, params.row_pos[last]);
  return {{of_first.begin, of_last.end}, {of_last.begin, of_first.end}};
}

struct Tile {
  int kv_head;
  int sequence;
  Range block;  // positions that some row sees
  Seen warp;
};
__device__ __forceinline__ Tile TileOf(const Params& params, const Item& item, int kv_head) {
  const int begin = dev::Warp() * kTileRows, end = dev::Min(begin + kTileRows, item.pairs);
  return {kv_head, params.row_sequence[item.row], SeenBy(params, item, 0, item.pairs).some,
          SeenBy(params, item, begin, end)};
}

// One of the two pairs of a tile whose scores and sums a lane holds a part of.
struct Pair {
  bool has;
  int row, head;
  Range seen;
};
// half 0: the pair lane / 4 of the warp's tile; 1: eight further.
__device__ __forceinline__ Pair PairOf(const Params& params, const Item& item, int kv_head, int half) {
  const int group = params.heads / params.cache.kv_heads;
  const int index = dev::Warp() * kTileRows + half * 8 + dev::Lane() / 4;
  Pair pair;
  pair.has = index < item.pairs;
  const int i = item.pair + dev::Min(index, item.pairs - 1);
  pair.row = item.row + i / group;
  pair.head = kv_head * group + i % group;
  pair.seen = SeenFrom(params, params.row_pos[pair.row]);
  return pair;
}

// What a warp knows of its pairs: index 0 and 1 of the lane's two, o as the D operands.
template <int dims>
struct Sums {
  float largest[2];
  float weight[2];
  float o[dims / 8][4];
};

// The lane's A operands of q, in registers or in shared memory.
template <int dims>
struct Query {
  dev::Vec16 a[kHasSharedQuery<dims> ? 1 : dims / 16];
};
template <int dims, int warps, bool has_query>
struct SharedQuery {};
template <int dims, int warps>
struct SharedQuery<dims, warps, true> {
  dev::Vec16 a[dims / 16][warps * 32];
};

template <int dims, int warps>
struct alignas(128) Ring : SharedQuery<dims, warps, kHasSharedQuery<dims>> {
  uint16_t k[kStages][kStep<dims>][dims + 8];  // eight rows of ldmatrix fall into different banks
  uint16_t v[kStages][kStep<dims>][dims + 8];
  uint32_t frames[kSplit];  // of a split's blocks
};
template <int dims, bool is_prefill>
struct AttendShared {
  Ring<dims, kDecodeWarps> ring;
};
template <int dims>
struct AttendShared<dims, true> {
  Ring<dims, kPrefillWarps<dims>> ring;
  dev::Vec16 o[dims / 8][kPrefillWarps<dims> * 32];  // sums over the splits before, each lane's own
};

template <bool is_f16, int dims, int warps>
__device__ __forceinline__ void LoadQuery(const Params& params, Ring<dims, warps>& ring, const Pair (&pairs)[2],
                                          Query<dims>& query) {
  const float scale = params.scale * kLog2E;
#pragma unroll
  for (int k = 0; k < dims / 16; ++k) {
    dev::Vec16 a = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = k * 16 + i / 2 * 8 + dev::Lane() % 4 * 2;
      const Pair& pair = pairs[i % 2];
      if (column >= params.cache.head_dim || !pair.has) continue;
      const int64_t at = static_cast<int64_t>(pair.head) * params.cache.head_dim + column;
      const auto q = *reinterpret_cast<const dev::Vec8*>(params.q + pair.row * params.q_stride + at);
      a.w[i] = Pack<is_f16>(dev::BitsToFloat(q.w[0]) * scale, dev::BitsToFloat(q.w[1]) * scale);
    }
    if constexpr (kHasSharedQuery<dims>) {
      ring.a[k][dev::ThreadIndex()] = a;
    } else {
      query.a[k] = a;
    }
  }
}

// Copies K and V of a step's positions into a stage. Those that no row sees are zero: they may not be written yet.
template <int dims, int warps>
__device__ __forceinline__ void Fetch(const Params& params, Ring<dims, warps>& ring, const Tile& tile,
                                      const Range& range, int step) {
  constexpr int kChunks = dims / 8, kTurns = kStep<dims> * kChunks / (warps * 32);
  static_assert(kStep<dims> * kChunks % (warps * 32) == 0);
  const Cache& cache = params.cache;
  const int first_block = range.begin >> cache.frame_tokens_log2, stage = step % kStages;
  const int64_t v_offset = VOffset(cache);
#pragma unroll 4
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = turn * warps * 32 + dev::ThreadIndex();
    const int row = i / kChunks, column = i % kChunks * 8, position = step * kStep<dims> + row;
    const bool has = position >= range.begin && position < range.end && column < cache.head_dim;
    const uint8_t* from = cache.pool;
    if (has) {
      const uint32_t frame = ring.frames[(position >> cache.frame_tokens_log2) - first_block];
      from += OffsetOf(cache, frame, tile.kv_head, position) + column * 2;
    }
    dev::CopyAsync16(&ring.k[stage][row][column], from, has ? 16 : 0);
    dev::CopyAsync16(&ring.v[stage][row][column], has ? from + v_offset : from, has ? 16 : 0);
  }
}

// Scores of a step, as powers of two: -infinity where a row doesn't see a position.
template <bool is_f16, int dims, int warps>
__device__ __forceinline__ void Score(const Params& params, Ring<dims, warps>& ring, const Tile& tile,
                                      const Pair (&pairs)[2], const Query<dims>& query, int step,
                                      float (&s)[kStep<dims> / 8][4]) {
  const int lane = dev::Lane(), begin = step * kStep<dims>;
#pragma unroll
  for (int k = 0; k < dims / 16; ++k) {
    dev::Vec16 a;
    if constexpr (kHasSharedQuery<dims>) {
      a = ring.a[k][dev::ThreadIndex()];
    } else {
      a = query.a[k];
    }
#pragma unroll
    for (int n = 0; n < kStep<dims> / 16; ++n) {
      uint32_t b[4];
      dev::LoadMatrix4(b, &ring.k[step % kStages][n * 16 + lane / 16 * 8 + lane % 8][k * 16 + lane / 8 % 2 * 8]);
      Mma<is_f16>(s[n * 2], a.w, b[0], b[1]);
      Mma<is_f16>(s[n * 2 + 1], a.w, b[2], b[3]);
    }
  }
  if (params.soft_cap > 0) {  // cap - 2·cap / (1 + e^(2s/cap))
    const float cap = params.soft_cap * kLog2E, factor = 2 / params.soft_cap;
#pragma unroll
    for (int n = 0; n < kStep<dims> / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = dev::Fma(-2 * cap, 1 / (1 + dev::Exp2(s[n][i] * factor)), cap);
  }
  if (begin >= tile.warp.every.begin && begin + kStep<dims> <= tile.warp.every.end) return;
#pragma unroll
  for (int n = 0; n < kStep<dims> / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int position = begin + n * 8 + lane % 4 * 2 + i % 2;
      const Range& seen = pairs[i / 2].seen;
      if (position < seen.begin || position >= seen.end) s[n][i] = MinusInfinity();
    }
}

// A largest score as what others are measured by: any number where there is none yet.
__device__ __forceinline__ float BaseOf(float largest) { return largest == MinusInfinity() ? 0 : largest; }

// Online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867, alg. 3. A step of which a row sees nothing changes
// nothing of it.
template <bool is_f16, int dims, int warps>
__device__ __forceinline__ void AddStep(Ring<dims, warps>& ring, int step, const float (&s)[kStep<dims> / 8][4],
                                        Sums<dims>& sums) {
  const int lane = dev::Lane();
  uint32_t p[kStep<dims> / 8][2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = sums.largest[half];
#pragma unroll
    for (int n = 0; n < kStep<dims> / 8; ++n) largest = dev::Max(dev::Max(largest, s[n][half * 2]), s[n][half * 2 + 1]);
    largest = dev::Max(largest, dev::ShuffleXor(largest, 1));
    largest = dev::Max(largest, dev::ShuffleXor(largest, 2));
    const float base = BaseOf(largest), factor = dev::Exp2(sums.largest[half] - base);
    float weight = 0;
#pragma unroll
    for (int n = 0; n < kStep<dims> / 8; ++n) {
      p[n][half] = Pack<is_f16>(dev::Exp2(s[n][half * 2] - base), dev::Exp2(s[n][half * 2 + 1] - base));
      weight += SumOf<is_f16>(p[n][half]);
    }
    sums.largest[half] = largest;
    sums.weight[half] = dev::Fma(sums.weight[half], factor, weight);
#pragma unroll
    for (int n = 0; n < dims / 8; ++n) {
      sums.o[n][half * 2] *= factor;
      sums.o[n][half * 2 + 1] *= factor;
    }
  }
#pragma unroll
  for (int k = 0; k < kStep<dims> / 16; ++k) {
    const uint32_t a[4] = {p[k * 2][0], p[k * 2][1], p[k * 2 + 1][0], p[k * 2 + 1][1]};
#pragma unroll
    for (int n = 0; n < dims / 16; ++n) {
      uint32_t b[4];
      dev::LoadMatrix4Trans(b, &ring.v[step % kStages][k * 16 + lane % 16][n * 16 + lane / 16 * 8]);
      Mma<is_f16>(sums.o[n * 2], a, b[0], b[1]);
      Mma<is_f16>(sums.o[n * 2 + 1], a, b[2], b[3]);
    }
  }
}

// The tile's sums over a split.
template <bool is_f16, int dims, int warps>
__device__ __forceinline__ void Walk(const Params& params, Ring<dims, warps>& ring, const Tile& tile,
                                     const Pair (&pairs)[2], const Query<dims>& query, int split, Sums<dims>& sums) {
  const Range range = {dev::Max(tile.block.begin, split * kSplit), dev::Min(tile.block.end, (split + 1) * kSplit)};
  const int log2 = params.cache.frame_tokens_log2, first_block = range.begin >> log2;
  for (int b = dev::ThreadIndex(); first_block + b <= (range.end - 1) >> log2; b += warps * 32)
    ring.frames[b] = FrameOf(params.cache, tile.sequence, first_block + b);
  dev::SyncBlock();  // and the ring is free
  const int begin = range.begin / kStep<dims>, end = dev::CeilDiv(range.end, kStep<dims>);
  sums = {};
  sums.largest[0] = sums.largest[1] = MinusInfinity();
  Fetch(params, ring, tile, range, begin);
  dev::CopyAsyncCommit();
  for (int step = begin; step < end; ++step) {
    dev::CopyAsyncWait<kStages - 2>();
    dev::SyncBlock();
    if (step + 1 < end) Fetch(params, ring, tile, range, step + 1);
    dev::CopyAsyncCommit();
    // A step that none of the warp's rows sees would change nothing: it is other warps'.
    if ((step + 1) * kStep<dims> <= tile.warp.some.begin || step * kStep<dims> >= tile.warp.some.end) continue;
    float s[kStep<dims> / 8][4] = {};
    Score<is_f16>(params, ring, tile, pairs, query, step, s);
    AddStep<is_f16>(ring, step, s, sums);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sums.weight[half] += dev::ShuffleXor(sums.weight[half], 1);
    sums.weight[half] += dev::ShuffleXor(sums.weight[half], 2);
  }
}

template <int dims>
__device__ __forceinline__ void StorePartial(const Params& params, const Pair (&pairs)[2], const Sums<dims>& sums,
                                             int split) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Pair& pair = pairs[half];
    if (!pair.has || !HasSplit(pair.seen, split)) continue;
    const int64_t at = static_cast<int64_t>(params.row_place[pair.row] + split) * params.heads + pair.head;
    if (dev::Lane() % 4 == 0) {
      params.partial_sums[at * 2] = sums.largest[half];
      params.partial_sums[at * 2 + 1] = sums.weight[half];
    }
    float* const out = params.partial_out + at * params.cache.head_dim + dev::Lane() % 4 * 2;
#pragma unroll
    for (int n = 0; n < dims / 8; ++n)
      if (n * 8 < params.cache.head_dim)
        *reinterpret_cast<dev::Vec8*>(out + n * 8) = {dev::FloatToBits(sums.o[n][half * 2]),
                                                      dev::FloatToBits(sums.o[n][half * 2 + 1])};
  }
}

// Adds sums over a further split: what the sums before, and these, are multiplied by.
struct Factors {
  float before, now;
};
__device__ __forceinline__ Factors AddSplit(float& largest, float& weight, float largest_now, float weight_now) {
  const float before = largest;
  largest = dev::Max(largest, largest_now);
  const Factors factors = {dev::Exp2(before - BaseOf(largest)), dev::Exp2(largest_now - BaseOf(largest))};
  weight = dev::Fma(weight, factors.before, weight_now * factors.now);
  return factors;
}
__device__ __forceinline__ float Add(float before, float now, const Factors& factors) {
  return dev::Fma(before, factors.before, now * factors.now);
}
// The sum with zero is for minus zero: splits and steps of which a row sees nothing may or may not have been added.
__device__ __forceinline__ float Mean(float sum, float inverse) { return dev::Fma(sum, inverse, 0.0f); }

// Walks every split of a tile, in ascending order, and writes the tile's output; or one split, whose partial result it
// stores. Both by one walk: a second one would double what there is to compile.
template <bool is_f16, int dims>
__device__ __forceinline__ void AttendSplits(const Params& params, AttendShared<dims, true>& shared, const Tile& tile,
                                             const Pair (&pairs)[2], const Query<dims>& query, int wanted) {
  float largest[2] = {MinusInfinity(), MinusInfinity()}, weight[2] = {};
  const int thread = dev::ThreadIndex(), first = tile.block.begin / kSplit;
  Sums<dims> sums;
#pragma unroll 1
  for (int split = wanted == kAllSplits ? first : wanted; split * kSplit < tile.block.end; ++split) {
    Walk<is_f16>(params, shared.ring, tile, pairs, query, split, sums);
    if (wanted != kAllSplits) return StorePartial(params, pairs, sums, split);
    Factors factors[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      factors[half] = AddSplit(largest[half], weight[half], sums.largest[half], sums.weight[half]);
#pragma unroll
    for (int n = 0; n < dims / 8; ++n) {
      dev::Vec16 before = {};
      if (split > first) before = shared.o[n][thread];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        before.w[i] = dev::FloatToBits(Add(dev::BitsToFloat(before.w[i]), sums.o[n][i], factors[i / 2]));
      shared.o[n][thread] = before;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Pair& pair = pairs[half];
    if (!pair.has) continue;
    const int64_t at = static_cast<int64_t>(pair.head) * params.cache.head_dim + dev::Lane() % 4 * 2;
    uint16_t* const out = params.out + pair.row * params.out_stride + at;
    const float inverse = 1 / weight[half];
#pragma unroll
    for (int n = 0; n < dims / 8; ++n)
      if (n * 8 < params.cache.head_dim)
        *reinterpret_cast<uint32_t*>(out + n * 8) =
            Pack<is_f16>(Mean(dev::BitsToFloat(shared.o[n][thread].w[half * 2]), inverse),
                         Mean(dev::BitsToFloat(shared.o[n][thread].w[half * 2 + 1]), inverse));
  }
}

template <bool is_f16, int dims, bool is_prefill>
__device__ __forceinline__ void Attend(const Params& params) {
  auto& shared = dev::Shared<AttendShared<dims, is_prefill>>();
  static_assert(sizeof(shared) == (is_prefill ? kPrefillSharedBytes<dims> : kDecodeSharedBytes<dims>));
  const int kv_heads = params.cache.kv_heads, count = *params.item_count * kv_heads;
  for (int i = dev::BlockIndex(); i < count; i += dev::GridBlocks()) {
    const Item item = params.items[i / kv_heads];
    const Tile tile = TileOf(params, item, i % kv_heads);
    const Pair pairs[2] = {PairOf(params, item, tile.kv_head, 0), PairOf(params, item, tile.kv_head, 1)};
    Query<dims> query;
    LoadQuery<is_f16>(params, shared.ring, pairs, query);
    if (item.split != kAllSplits && !HasSplit(tile.block, item.split)) continue;
    if constexpr (is_prefill) {
      AttendSplits<is_f16>(params, shared, tile, pairs, query, item.split);
    } else {
      Sums<dims> sums;
      Walk<is_f16>(params, shared.ring, tile, pairs, query, item.split, sums);
      StorePartial(params, pairs, sums, item.split);
    }
  }
}

// A warp for each (row, head).
template <bool is_f16>
__device__ __forceinline__ void MergeRows(const Params& params) {
  constexpr int kWarps = kThreads / 32, kTurns = kHeadDimMax / 64;
  const int head_dim = params.cache.head_dim, column = dev::Lane() * 2, count = *params.merge_count * params.heads;
  for (int i = dev::BlockIndex() * kWarps + dev::Warp(); i < count; i += dev::GridBlocks() * kWarps) {
    const int row = params.merge_row[i / params.heads], head = i % params.heads;
    const Range seen = SeenFrom(params, params.row_pos[row]);
    float largest = MinusInfinity(), weight = 0, sums[kTurns][2] = {};
#pragma unroll 2
    for (int split = seen.begin / kSplit; split <= (seen.end - 1) / kSplit; ++split) {
      const int64_t at = static_cast<int64_t>(params.row_place[row] + split) * params.heads + head;
      const Factors factors = AddSplit(largest, weight, params.partial_sums[at * 2], params.partial_sums[at * 2 + 1]);
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        if (column + turn * 64 >= head_dim) continue;
        const auto o = *reinterpret_cast<const dev::Vec8*>(params.partial_out + at * head_dim + column + turn * 64);
        sums[turn][0] = Add(sums[turn][0], dev::BitsToFloat(o.w[0]), factors);
        sums[turn][1] = Add(sums[turn][1], dev::BitsToFloat(o.w[1]), factors);
      }
    }
    uint16_t* const out = params.out + row * params.out_stride + static_cast<int64_t>(head) * head_dim + column;
    const float inverse = 1 / weight;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn)
      if (column + turn * 64 < head_dim)
        *reinterpret_cast<uint32_t*>(out + turn * 64) =
            Pack<is_f16>(Mean(sums[turn][0], inverse), Mean(sums[turn][1], inverse));
  }
}

__global__ void __launch_bounds__(kThreads) AppendBF16(const AppendParams params) { AppendRows<false>(params); }
__global__ void __launch_bounds__(kThreads) AppendF16(const AppendParams params) { AppendRows<true>(params); }
__global__ void __launch_bounds__(kThreads) MergeBF16(const Params params) { MergeRows<false>(params); }
__global__ void __launch_bounds__(kThreads) MergeF16(const Params params) { MergeRows<true>(params); }

#define ATTEND_KERNELS(format, is_f16, dims)                                                                     \
  __global__ void __launch_bounds__(kDecodeWarps * 32, 8) Decode##format##x##dims(const Params params) {         \
    Attend<is_f16, dims, false>(params);                                                                         \
  }                                                                                                              \
  __global__ void __launch_bounds__(kPrefillWarps<dims> * 32, 2) Prefill##format##x##dims(const Params params) { \
    Attend<is_f16, dims, true>(params);                                                                          \
  }
ATTEND_KERNELS(BF16, false, 64)
ATTEND_KERNELS(BF16, false, 96)
ATTEND_KERNELS(BF16, false, 128)
ATTEND_KERNELS(BF16, false, 256)
ATTEND_KERNELS(F16, true, 64)
ATTEND_KERNELS(F16, true, 96)
ATTEND_KERNELS(F16, true, 128)
ATTEND_KERNELS(F16, true, 256)

}  // namespace openlora::attention
