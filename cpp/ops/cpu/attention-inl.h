#pragma once

#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/math-inl.h"

namespace openlora {
namespace {

// How K and V are stored.
template <class V>
struct KvF32 {
  using T = float;
  static constexpr bool kHasScales = false;
  OPENLORA_INLINE static typename V::F Load(const T* p) { return V::Load(p); }
  OPENLORA_INLINE static typename V::F LoadPart(const T* p, int n) { return V::LoadPart(p, n); }
};
template <class V>
struct KvF16 {
  using T = uint16_t;
  static constexpr bool kHasScales = false;
  OPENLORA_INLINE static typename V::F Load(const T* p) { return V::LoadF16(p); }
  OPENLORA_INLINE static typename V::F LoadPart(const T* p, int n) { return V::LoadF16Part(p, n); }
};
template <class V>
struct KvBF16 {
  using T = uint16_t;
  static constexpr bool kHasScales = false;
  OPENLORA_INLINE static typename V::F Load(const T* p) { return V::LoadBF16(p); }
  OPENLORA_INLINE static typename V::F LoadPart(const T* p, int n) { return V::LoadBF16Part(p, n); }
};
template <class V>
struct KvI8 {
  using T = int8_t;
  static constexpr bool kHasScales = true;
  OPENLORA_INLINE static typename V::F Load(const T* p) { return V::LoadInt8(p); }
  OPENLORA_INLINE static typename V::F LoadPart(const T* p, int n) { return V::LoadInt8Part(p, n); }
};

// Vectors beside `pairs` rows of accumulators.
template <class V>
constexpr int WideFor(int pairs) {
  return pairs * 4 <= V::kSums ? 4 : pairs * 2 <= V::kSums ? 2 : 1;
}

// Vectors [begin, begin + kWide) of the groups' tokens.
template <class V, class Kv, int kPairs, int kWide>
OPENLORA_INLINE void ScoreSlice(const ScoreArgs& a, int begin) {
  using F = typename V::F;
  using T = typename Kv::T;
  constexpr int kPerGroup = kGroupTokens / V::kLanes;
  const T* k[kWide];
  F sums[kPairs][kWide];
  OPENLORA_UNROLL
  for (int w = 0; w < kWide; ++w) {
    k[w] = static_cast<const T*>(a.keys[(begin + w) / kPerGroup]) + (begin + w) % kPerGroup * V::kLanes;
    OPENLORA_UNROLL
    for (int p = 0; p < kPairs; ++p) sums[p][w] = V::Zero();
  }
  for (int64_t d = 0; d < a.head_dim; ++d) {
    F key[kWide];
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w) key[w] = Kv::Load(k[w] + d * kGroupTokens);
    OPENLORA_UNROLL
    for (int p = 0; p < kPairs; ++p) {
      const F q = V::Set(a.q[p * kQueryStride + d]);
      OPENLORA_UNROLL
      for (int w = 0; w < kWide; ++w) sums[p][w] = V::Fma(q, key[w], sums[p][w]);
    }
  }
  [[maybe_unused]] F scales[kWide];
  if constexpr (Kv::kHasScales) {
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w)
      scales[w] = V::LoadBF16(a.scales[(begin + w) / kPerGroup] + (begin + w) % kPerGroup * V::kLanes);
  }
  OPENLORA_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w) {
      if constexpr (Kv::kHasScales) sums[p][w] = V::Mul(sums[p][w], scales[w]);
      V::Store(a.scores + p * kBlockTokens + (begin + w) * V::kLanes, sums[p][w]);
    }
  }
}

template <class V, class Kv, int kPairs>
void ScorePairs(const ScoreArgs& a) {
  constexpr int kWide = WideFor<V>(kPairs);
  const int vectors = a.groups * (kGroupTokens / V::kLanes);
  int begin = 0;
  for (; begin + kWide <= vectors; begin += kWide) ScoreSlice<V, Kv, kPairs, kWide>(a, begin);
  if constexpr (kWide > 2) {
    for (; begin + 2 <= vectors; begin += 2) ScoreSlice<V, Kv, kPairs, 2>(a, begin);
  }
  if constexpr (kWide > 1) {
    for (; begin < vectors; ++begin) ScoreSlice<V, Kv, kPairs, 1>(a, begin);
  }
}

// Elements [d, d + kWide vectors) of all pairs; kIsPart: one vector of n lanes.
template <class V, class Kv, int kPairs, int kWide, bool kIsPart>
OPENLORA_INLINE void ValueSlice(const ValueArgs& a, int64_t d, int n) {
  using F = typename V::F;
  using T = typename Kv::T;
  F sums[kPairs][kWide];
  OPENLORA_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w) sums[p][w] = V::Load(a.out + p * a.out_stride + d + w * V::kLanes);
  }
  for (int t = a.begin; t < a.end;) {
    const int frame = t / a.frame_tokens;
    const int frame_end = (frame + 1) * a.frame_tokens;
    const T* v = static_cast<const T*>(a.values[frame]) + int64_t{t - frame * a.frame_tokens} * a.head_dim + d;
    for (const int stop = frame_end < a.end ? frame_end : a.end; t < stop; ++t, v += a.head_dim) {
      F value[kWide];
      OPENLORA_UNROLL
      for (int w = 0; w < kWide; ++w) value[w] = kIsPart ? Kv::LoadPart(v, n) : Kv::Load(v + w * V::kLanes);
      OPENLORA_UNROLL
      for (int p = 0; p < kPairs; ++p) {
        const F weight = V::Set(a.p[p * kBlockTokens + t]);
        OPENLORA_UNROLL
        for (int w = 0; w < kWide; ++w) sums[p][w] = V::Fma(weight, value[w], sums[p][w]);
      }
    }
  }
  OPENLORA_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    OPENLORA_UNROLL
    for (int w = 0; w < kWide; ++w) V::Store(a.out + p * a.out_stride + d + w * V::kLanes, sums[p][w]);
  }
}

template <class V, class Kv, int kPairs>
void ValuePairs(const ValueArgs& a) {
  constexpr int kWide = WideFor<V>(kPairs);
  int64_t d = 0;
  for (; d + kWide * V::kLanes <= a.head_dim; d += kWide * V::kLanes)
    ValueSlice<V, Kv, kPairs, kWide, false>(a, d, V::kLanes);
  for (; d + V::kLanes <= a.head_dim; d += V::kLanes) ValueSlice<V, Kv, kPairs, 1, false>(a, d, V::kLanes);
  if (d < a.head_dim) ValueSlice<V, Kv, kPairs, 1, true>(a, d, static_cast<int>(a.head_dim - d));
}

template <class V, class Kv>
void Scores(const ScoreArgs& a) {
  switch (a.pairs) {
    case 1:
      return ScorePairs<V, Kv, 1>(a);
    case 2:
      return ScorePairs<V, Kv, 2>(a);
    case 3:
      return ScorePairs<V, Kv, 3>(a);
    case 4:
      return ScorePairs<V, Kv, 4>(a);
    case 5:
      return ScorePairs<V, Kv, 5>(a);
    case 6:
      return ScorePairs<V, Kv, 6>(a);
    case 7:
      return ScorePairs<V, Kv, 7>(a);
    default:
      return ScorePairs<V, Kv, 8>(a);
  }
}

template <class V, class Kv>
void Values(const ValueArgs& a) {
  switch (a.pairs) {
    case 1:
      return ValuePairs<V, Kv, 1>(a);
    case 2:
      return ValuePairs<V, Kv, 2>(a);
    case 3:
      return ValuePairs<V, Kv, 3>(a);
    case 4:
      return ValuePairs<V, Kv, 4>(a);
    case 5:
      return ValuePairs<V, Kv, 5>(a);
    case 6:
      return ValuePairs<V, Kv, 6>(a);
    case 7:
      return ValuePairs<V, Kv, 7>(a);
    default:
      return ValuePairs<V, Kv, 8>(a);
  }
}

template <class V>
OPENLORA_INLINE float ExpOne(float x) {
  float lanes[V::kLanes];
  V::Store(lanes, Exp<V>(V::Set(x)));
  return lanes[0];
}

struct NaturalBase {
  template <class V>
  static OPENLORA_INLINE float PowerOne(float x) {
    return ExpOne<V>(x);
  }
};

template <class V>
OPENLORA_INLINE void ScaleState(AttentionState* state, float scale, int64_t out_count) {
  for (int i = 0; i < kGroupTokens; i += V::kLanes)
    V::Store(state->sums + i, V::Mul(V::Load(state->sums + i), V::Set(scale)));
  for (int64_t i = 0; i < out_count; i += V::kLanes)
    V::Store(state->out + i, V::Mul(V::Load(state->out + i), V::Set(scale)));
}

// Online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867, algorithm 3, a block at a time.
template <class V>
void SoftmaxPair(const SoftmaxArgs& a) {
  using F = typename V::F;
  constexpr int kPerGroup = kGroupTokens / V::kLanes;
  const int first = a.begin / kGroupTokens * kGroupTokens;
  const int last = (a.end + kGroupTokens - 1) / kGroupTokens * kGroupTokens;
  if (a.soft_cap > 0) {
    for (int t = first; t < last; t += V::kLanes) V::Store(a.scores + t, SoftCap<V>(V::Load(a.scores + t), a.soft_cap));
  }
  for (int t = first; t < a.begin; ++t) a.scores[t] = -__builtin_inff();
  for (int t = a.end; t < last; ++t) a.scores[t] = -__builtin_inff();

  F max = V::Set(a.state->max);
  for (int t = first; t < last; t += V::kLanes) max = V::Max(max, V::Load(a.scores + t));
  float lanes[V::kLanes];
  V::Store(lanes, max);
  for (int half = V::kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  if (lanes[0] > a.state->max) {
    ScaleState<V>(a.state, ExpOne<V>(a.state->max - lanes[0]), a.out_count);
    a.state->max = lanes[0];
  }

  max = V::Set(a.state->max);
  F sums[kPerGroup];
  OPENLORA_UNROLL
  for (int i = 0; i < kPerGroup; ++i) sums[i] = V::Load(a.state->sums + i * V::kLanes);
  for (int t = first; t < last; t += kGroupTokens) {
    OPENLORA_UNROLL
    for (int i = 0; i < kPerGroup; ++i) {
      const F p = ExpOfWeight<V>(V::Sub(V::Load(a.scores + t + i * V::kLanes), max));
      sums[i] = V::Add(sums[i], p);
      F weight = p;
      if (a.scales != nullptr) weight = V::Mul(p, V::LoadBF16(a.scales[t / kGroupTokens] + i * V::kLanes));
      V::Store(a.scores + t + i * V::kLanes, weight);
    }
  }
  OPENLORA_UNROLL
  for (int i = 0; i < kPerGroup; ++i) V::Store(a.state->sums + i * V::kLanes, sums[i]);
}

template <class V, class Base>
void MergeStates(AttentionState* into, const AttentionState& from, int64_t out_count) {
  const float max = into->max > from.max ? into->max : from.max;
  ScaleState<V>(into, Base::template PowerOne<V>(into->max - max), out_count);
  into->max = max;
  const typename V::F scale = V::Set(Base::template PowerOne<V>(from.max - max));
  for (int i = 0; i < kGroupTokens; i += V::kLanes)
    V::Store(into->sums + i, V::Fma(V::Load(from.sums + i), scale, V::Load(into->sums + i)));
  for (int64_t i = 0; i < out_count; i += V::kLanes)
    V::Store(into->out + i, V::Fma(V::Load(from.out + i), scale, V::Load(into->out + i)));
}

// v[0] + v[distance], in lane 0 and its like, distance 8, 4, 2, 1.
template <class V, int distance>
OPENLORA_INLINE typename V::F SumFromAfar(typename V::F v) {
  v = V::Add(v, V::template SwapLanes<distance>(v));
  if constexpr (distance > 1) v = SumFromAfar<V, distance / 2>(v);
  return v;
}

template <class V>
void FinishPair(const AttentionState& state, float* out, int64_t head_dim) {
  constexpr int kParts = kGroupTokens / V::kLanes;
  typename V::F sums[kParts];
  OPENLORA_UNROLL
  for (int i = 0; i < kParts; ++i) sums[i] = V::Load(state.sums + i * V::kLanes);
  OPENLORA_UNROLL
  for (int half = kParts / 2; half > 0; half /= 2) OPENLORA_UNROLL
  for (int i = 0; i < half; ++i) sums[i] = V::Add(sums[i], sums[i + half]);
  const typename V::F sum = SumFromAfar<V, V::kLanes / 2>(sums[0]);  // the same in all lanes: a sum of two commutes
  int64_t d = 0;
  for (; d + V::kLanes <= head_dim; d += V::kLanes) V::Store(out + d, V::Div(V::Load(state.out + d), sum));
  if (d < head_dim) V::StorePart(out + d, V::Div(V::Load(state.out + d), sum), static_cast<int>(head_dim - d));
}

template <class V>
constexpr AttentionKernels MakeAttentionKernels() {
  return {
      .scores = {&Scores<V, KvF32<V>>, &Scores<V, KvF16<V>>, &Scores<V, KvBF16<V>>, &Scores<V, KvI8<V>>},
      .softmax = &SoftmaxPair<V>,
      .values = {&Values<V, KvF32<V>>, &Values<V, KvF16<V>>, &Values<V, KvBF16<V>>, &Values<V, KvI8<V>>},
      .merge = &MergeStates<V, NaturalBase>,
      .finish = &FinishPair<V>,
  };
}

}  // namespace
}  // namespace openlora
