#pragma once

#include "ops/cpu/attention-inl.h"
#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/bf16_dots-inl.h"

// Attention by bf16 dots (KvView::has_bf16_dots): K in pairs of head_dim, V in pairs of tokens, so that lanes are
// tokens for scores and elements of head_dim for values, and a pair is one f32 of the kernels for f32.
//
// The fixed expression of a row: scores are chains over head_dim; the softmax's sum has sixteen lanes, lane i takes the
// tokens 2i and 2i + 1 of each thirty-two, the odd one first; values are chains over tokens. Chains of dots flush
// denormals, sums and rescaling don't.

namespace openlora {
namespace {

// The arithmetic of dots: by the instruction or in a mode, else by hand.
template <class V, bool is_by_hand>
struct DotsOf {
  using Type = Pairs<V>;
  static OPENLORA_INLINE typename V::F Flush(typename V::F a) { return a; }
};
template <class V>
struct DotsOf<V, true> {
  using Type = Pairs<Flushing<V>>;
  static OPENLORA_INLINE typename V::F Flush(typename V::F a) { return Flushing<V>::Flush(a); }
};
template <class V>
using Dots = DotsOf<V, !V::kHasBF16Dot && !V::kHasFlushMode>;

template <class V>
void DotQueries(const DotQueryArgs& a) {
  const typename V::F scale = V::Set(a.scale);
  for (int p = 0; p < a.pairs; ++p) {
    float* const to = a.rounded + p * kQueryStride;
    int d = 0;
    for (; d + 2 * V::kLanes <= a.head_dim; d += 2 * V::kLanes) {
      const typename V::F low = V::Mul(V::Load(a.q[p] + d), scale),
                          high = V::Mul(V::Load(a.q[p] + d + V::kLanes), scale);
      V::StoreInt(to + d / 2, V::PairsOf(low, high));
    }
    if (d == a.head_dim) continue;
    float last[2 * V::kLanes] = {};
    for (int i = d; i < a.head_dim; ++i) last[i - d] = a.q[p][i];
    const typename V::F low = V::Mul(V::Load(last), scale), high = V::Mul(V::Load(last + V::kLanes), scale);
    V::StoreInt(to + d / 2, V::PairsOf(low, high));  // the stride has room behind head_dim
  }
}

// 2^x for x <= 0: 3e-6 of it off, and 2^-100; 0 at -100 and below. NaN stays NaN: its payload is q's or K's, bf16, so
// that its low bits are zero.
template <class V>
OPENLORA_INLINE typename V::F PowerOfWeight(typename V::F x) {
  using F = typename V::F;
  constexpr float kLowest = -100;
  x = V::Max(V::Set(kLowest), x);
  const F round = V::Set(0x1.8p23f);  // adding it leaves the nearest integer in the low bits
  const F shifted = V::Add(x, round);
  const F r = V::Sub(x, V::Sub(shifted, round));
  F p = V::Set(9.58285509e-3f);
  p = V::Fma(p, r, V::Set(5.59064347e-2f));
  p = V::Fma(p, r, V::Set(2.40240986e-1f));
  p = V::Fma(p, r, V::Set(6.93124192e-1f));
  p = V::Fma(p, r, V::Set(1.0f));
  return V::Sub(V::FromBits(V::AddInt(V::BitsOf(p), V::template ShiftLeft<23>(V::BitsOf(shifted)))), V::Set(0x1p-100f));
}

struct BaseTwo {
  template <class V>
  static OPENLORA_INLINE float PowerOne(float x) {
    return ExpOne<V>(x * 0.693147181f);
  }
};

template <class V>
OPENLORA_INLINE float LargestLane(typename V::F a) {
  if constexpr (V::kLanes >= 16) a = V::Max(a, V::template SwapLanes<8>(a));
  if constexpr (V::kLanes >= 8) a = V::Max(a, V::template SwapLanes<4>(a));
  a = V::Max(a, V::template SwapLanes<2>(a));
  a = V::Max(a, V::template SwapLanes<1>(a));
  float lanes[V::kLanes];
  V::Store(lanes, a);
  return lanes[0];
}

template <class V>
OPENLORA_INLINE void Fill(float* p, int count, float value) {
  for (; count > 0; p += V::kLanes, count -= V::kLanes)
    V::StorePart(p, V::Set(value), count < V::kLanes ? count : V::kLanes);
}

inline constexpr int kDotTokens = 2 * kGroupTokens;  // tokens

// What a pair of the tile sees of a block, in whole kDotTokens.
struct Stretch {
  int first;
  int last;
};
OPENLORA_INLINE Stretch StretchOf(int begin, int end) {
  return {begin / kDotTokens * kDotTokens, (end + kDotTokens - 1) / kDotTokens * kDotTokens};
}

// The largest score that a pair sees; others, beside them, become -inf.
template <class V>
OPENLORA_INLINE float LargestScore(float* scores, int begin, int end, float soft_cap, float largest) {
  const Stretch all = StretchOf(begin, end);
  if (soft_cap > 0) {
    for (int t = all.first; t < all.last; t += V::kLanes)
      V::Store(scores + t, SoftCap<V>(V::Load(scores + t), soft_cap));
  }
  Fill<V>(scores + all.first, begin - all.first, -__builtin_inff());
  Fill<V>(scores + end, all.last - end, -__builtin_inff());
  typename V::F max = V::Set(largest);
  for (int t = all.first; t < all.last; t += V::kLanes) max = V::Max(max, V::Load(scores + t));
  return LargestLane<V>(max);
}

template <class V>
OPENLORA_INLINE void AddWeights(const float* scores, float* weights, Stretch tokens, AttentionState* state) {
  using F = typename V::F;
  constexpr int kParts = kGroupTokens / V::kLanes;
  const F max = V::Set(state->max);
  F sums[kParts];
  OPENLORA_UNROLL
  for (int i = 0; i < kParts; ++i) sums[i] = V::Load(state->sums + i * V::kLanes);
  for (int t = tokens.first; t < tokens.last; t += kDotTokens) {
    OPENLORA_UNROLL
    for (int i = 0; i < kParts; ++i) {
      const float* const s = scores + t + 2 * i * V::kLanes;
      const F low = PowerOfWeight<V>(V::Sub(V::Load(s), max));
      const F high = PowerOfWeight<V>(V::Sub(V::Load(s + V::kLanes), max));
      const typename V::I pairs = V::PairsOf(low, high);
      V::StoreInt(weights + t / 2 + i * V::kLanes, pairs);
      sums[i] = V::Add(V::Add(sums[i], V::OddBF16(pairs)), V::EvenBF16(pairs));
    }
  }
  OPENLORA_UNROLL
  for (int i = 0; i < kParts; ++i) V::Store(state->sums + i * V::kLanes, sums[i]);
}

// Online softmax, as SoftmaxPair. Step by step for all pairs: one alone would wait for its reductions.
template <class V>
void DotSoftmax(const DotSoftmaxArgs& a) {
  float largest[kAttentionPairs];
  for (int p = 0; p < a.pairs; ++p) {
    if (a.begin[p] < a.end[p])
      largest[p] = LargestScore<V>(a.scores + p * kBlockTokens, a.begin[p], a.end[p], a.soft_cap, a.states[p].max);
  }
  for (int p = 0; p < a.pairs; ++p) {
    if (a.begin[p] >= a.end[p] || !(largest[p] > a.states[p].max)) continue;
    if (a.states[p].max != -__builtin_inff())  // else it holds zeros or NaN, and would be times 0
      ScaleState<V>(&a.states[p], BaseTwo::PowerOne<V>(a.states[p].max - largest[p]), a.out_count);
    a.states[p].max = largest[p];
  }
  for (int p = 0; p < a.pairs; ++p) {
    if (a.begin[p] < a.end[p])
      AddWeights<V>(a.scores + p * kBlockTokens, a.p + p * (kBlockTokens / 2), StretchOf(a.begin[p], a.end[p]),
                    &a.states[p]);
  }
}

// What a row sees of a pair of tokens.
enum class Seen { kBoth, kEven, kOdd };

template <class V, Seen kSeen>
OPENLORA_INLINE typename V::F Masked(typename V::F pair) {
  if constexpr (kSeen == Seen::kBoth) return pair;
  const typename V::F odd = V::OddBF16(V::BitsOf(pair));
  if constexpr (kSeen == Seen::kOdd) return odd;
  return V::FromBits(V::SubInt(V::BitsOf(pair), V::BitsOf(odd)));
}

// sums += p * v, elements [d, d + kWide vectors) of the pair of tokens t; kIsPart: one vector of n lanes.
template <class V, Seen kSeen, int kPairs, int kWide, bool kIsPart>
OPENLORA_INLINE void AddTokens(const float* p, const float* v, int n, typename V::F (&sums)[kPairs][kWide]) {
  using F = typename V::F;
  F value[kWide];
  OPENLORA_UNROLL
  for (int w = 0; w < kWide; ++w) value[w] = Masked<V, kSeen>(kIsPart ? V::LoadPart(v, n) : V::Load(v + w * V::kLanes));
  OPENLORA_UNROLL
  for (int i = 0; i < kPairs; ++i) {
    const F weight = V::Set(p[i * (kBlockTokens / 2)]);
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w) sums[i][w] = Dots<V>::Type::Fma(weight, value[w], sums[i][w]);
  }
}

template <class V, int kPairs, int kWide, bool kIsPart>
OPENLORA_INLINE void DotValueSlice(const ValueArgs& a, int64_t d, int n) {
  using F = typename V::F;
  F sums[kPairs][kWide];
  OPENLORA_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w) sums[p][w] = Dots<V>::Flush(V::Load(a.out + p * a.out_stride + d + w * V::kLanes));
  }
  const int in_frame = a.frame_tokens / 2;
  const auto at = [&](int pair) OPENLORA_INLINE_LAMBDA {
    return static_cast<const float*>(a.values[pair / in_frame]) + int64_t{pair % in_frame} * a.head_dim + d;
  };
  int t = a.begin / 2;
  if (a.begin % 2 != 0) {
    AddTokens<V, Seen::kOdd, kPairs, kWide, kIsPart>(a.p + t, at(t), n, sums);
    ++t;
  }
  for (const int end = a.end / 2; t < end;) {
    const float* v = at(t);
    const int frame_end = (t / in_frame + 1) * in_frame;
    for (const int stop = frame_end < end ? frame_end : end; t < stop; ++t, v += a.head_dim)
      AddTokens<V, Seen::kBoth, kPairs, kWide, kIsPart>(a.p + t, v, n, sums);
  }
  if (a.end % 2 != 0) AddTokens<V, Seen::kEven, kPairs, kWide, kIsPart>(a.p + t, at(t), n, sums);
  OPENLORA_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w) V::Store(a.out + p * a.out_stride + d + w * V::kLanes, sums[p][w]);
  }
}

template <class V>
struct DotValues {
  template <int kPairs>
  static OPENLORA_INLINE void Run(const ValueArgs& a) {
    constexpr int kWide = WideFor<V>(kPairs);
    int64_t d = 0;
    for (; d + kWide * V::kLanes <= a.head_dim; d += kWide * V::kLanes)
      DotValueSlice<V, kPairs, kWide, false>(a, d, V::kLanes);
    for (; d + V::kLanes <= a.head_dim; d += V::kLanes) DotValueSlice<V, kPairs, 1, false>(a, d, V::kLanes);
    if (d < a.head_dim) DotValueSlice<V, kPairs, 1, true>(a, d, static_cast<int>(a.head_dim - d));
  }
};

template <class V>
struct DotScores {
  template <int kPairs>
  static OPENLORA_INLINE void Run(const ScoreArgs& a) {
    using D = typename Dots<V>::Type;
    ScoreArgs paired = a;
    paired.head_dim = a.head_dim / 2;
    ScorePairs<D, KvF32<D>, kPairs>(paired);
  }
};

// Not inlined, so that nothing of it is computed outside of the mode.
template <class Kernel, int kPairs, class Args>
__attribute__((noinline)) void RunDots(const Args& a) {
  Kernel::template Run<kPairs>(a);
}

template <class V, class Kernel, class Args>
void InMode(const Args& a) {
  constexpr void (*kRun[kAttentionPairs])(const Args&) = {
      &RunDots<Kernel, 1, Args>, &RunDots<Kernel, 2, Args>, &RunDots<Kernel, 3, Args>, &RunDots<Kernel, 4, Args>,
      &RunDots<Kernel, 5, Args>, &RunDots<Kernel, 6, Args>, &RunDots<Kernel, 7, Args>, &RunDots<Kernel, 8, Args>};
  if constexpr (V::kHasFlushMode && !V::kHasBF16Dot) {
    const uint32_t before = V::EnterFlushMode();
    kRun[a.pairs - 1](a);
    V::LeaveFlushMode(before);
  } else {
    kRun[a.pairs - 1](a);
  }
}

template <class V>
constexpr AttentionDotKernels MakeAttentionDotKernels() {
  return {
      .queries = &DotQueries<V>,
      .scores = &InMode<V, DotScores<V>, ScoreArgs>,
      .softmax = &DotSoftmax<V>,
      .values = &InMode<V, DotValues<V>, ValueArgs>,
      .merge = &MergeStates<V, BaseTwo>,
  };
}

}  // namespace
}  // namespace openlora
