#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "ops/batch_view.h"
#include "ops/kv_view.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_format.h"

namespace openlora {

// Dimension letters: T rows, H hidden, R rank, S segments, E entries, V vocabulary.
//
// The contract of every op: a row's results depend on that row alone (and the KV that it reads) — not on the other
// rows, their count, where a prompt was cut into chunks, or the number of threads — bit for bit. So each output is one
// fixed f32 expression: sums over `in` run in ascending order in one chain (see cpu/README.md for the exceptions).

// One step's input, laid out by the engine.
struct BatchView {
  RowsView rows;
  EntriesView entries;
  KvView kv;
  AdapterPages pages;
  std::span<const int32_t> logit_rows;  // rows whose logits are wanted, ascending
  EntriesView logit_entries;            // the entries of those rows, numbered as in logit_rows
};

// What no step of an engine exceeds.
struct StepLimits {
  int32_t rows = 0;        // T
  int32_t context = 0;     // positions of a sequence
  int32_t logit_rows = 0;  // of Head
  int32_t hidden = 0;
  int32_t project_in = 0;  // the largest `in` of a Project
  int32_t vocab = 0;
  int32_t sites = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  WeightFormat weights = DType::kF32;
  DType kv = DType::kF32;
  DType adapters = DType::kF32;
};

// A matrix of the base, packed by an Ops for its own use.
struct Weight {
  WeightFormat format = DType::kF32;
  int64_t out = 0;
  int64_t in = 0;
  const void* data = nullptr;   // Ops::PackedBytes(format, out, in)
  const float* bias = nullptr;  // [out] or null
};

// One of the products of a Project.
struct Product {
  const Weight* weight = nullptr;
  TensorView out;            // [T, weight->out] f32
  int32_t site = -1;         // index into SlotPages::sites
  bool accumulates = false;  // out += …, else out = …
};

enum class Activation : int32_t {
  kSilu,      // x / (1 + e^-x)
  kGeluTanh,  // x/2 · (1 + tanh(sqrt(2/pi) · (x + 0.044715 x³))): Hendrycks & Gimpel 2016, arXiv:1606.08415
};

struct Gate {
  Activation activation;
  TensorView up;  // [T, in] f32
};

struct ProjectArgs {
  TensorView x;                          // [T, in] f32, or Ops::input_dtype()
  std::span<const Product> products;     // share x; at most 3
  const EntriesView* entries = nullptr;  // null or empty: base only, costs nothing
  const AdapterPages* pages = nullptr;
  // Not null: x is activation(x) * up, as GatedActivation computes it; what stands in its memory afterwards is open.
  const Gate* gate = nullptr;
};

struct EmbedArgs {
  const int32_t* tokens = nullptr;  // [T]
  int32_t rows = 0;
  const Weight* table = nullptr;  // packed as a [V, H] matrix, the same as an untransposed head
  float scale = 1;                // of the base's part and the adapters' alike
  TensorView out;                 // [T, H] f32
  int32_t site = -1;              // adapters act as on a Project whose x is one-hot: A is [R, V], B is [H, R]
  const EntriesView* entries = nullptr;
  const AdapterPages* pages = nullptr;
};

struct AttentionArgs {
  TensorView q;    // [T, heads * head_dim] f32
  TensorView out;  // the same shape, Ops::input_dtype()
  RowsView rows;
  KvView kv;
  int32_t layer = 0;
  int32_t heads = 0;
  float scale = 1;     // of q·k
  int32_t window = 0;  // positions seen, the row's own included; 0: all
  float soft_cap = 0;  // s = cap * tanh(s / cap); 0: none
};

// A rotary table: rotary_dim/2 inverse frequencies, scaling applied. `long_inv_freq`, if not empty, holds those of rows
// whose sequence is long (RowsView::row_is_long).
struct RopeFrequencies {
  std::span<const float> inv_freq;
  std::span<const float> long_inv_freq;
  float factor = 1;  // of cos and sin
};

// Most alternatives that `logprobs` can ask for.
inline constexpr int kTopLogprobsMax = 20;

struct TokenBias {
  int32_t token;
  float bias;  // added to the logit; -inf forbids
};

// A distinct token of a sequence.
struct SeenToken {
  int32_t token;
  int32_t count;  // in the output; 0: in the prompt alone
};

// What to do with one row of logits. A drawn token's logits x are changed first of all, for a greedy choice too:
//   bias        x += bias
//   repetition  x = x < 0 ? x * repetition_penalty : x / repetition_penalty; beyond f32: ±the largest, not infinity
//   frequency   x -= frequency_penalty * count
//   presence    x -= presence_penalty where count > 0
// the last three for seen tokens, each step rounded to f32. Then temperature, top_k, top_p, min_p.
struct SampleRow {
  int32_t target = -1;    // >= 0: only report this token's logprob (prompt scoring); -1: draw
  float temperature = 0;  // 0: the most likely token, ties to the lowest id
  int32_t top_k = 0;      // 0: all
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  uint64_t draw_index = 0;       // the index of the output token: draws are counter-based
  int32_t logprobs = -1;         // -1: none; n: the chosen token's, and the n most likely tokens
  float repetition_penalty = 1;  // > 0
  float frequency_penalty = 0;
  float presence_penalty = 0;
  std::span<const TokenBias> bias;  // a token at most once
  std::span<const SeenToken> seen;  // a token at most once; only these are penalised
};

struct SampleResult {
  int32_t token = -1;  // -1: the row holds NaN, or every token is forbidden
  float logprob = 0;   // log-softmax of the raw logits
  int32_t top_count = 0;
  int32_t top_token[kTopLogprobsMax];
  float top_logprob[kTopLogprobsMax];
};

struct OpCounters {
  uint64_t weight_bytes_read = 0;  // base weights: a matrix once for each Project, an embedding's rows for each Embed
  uint64_t lora_bytes_read = 0;    // A and B tiles: each once for each segment
  uint64_t lora_ops = 0;           // (segment, site) pairs computed
  uint64_t page_table_reads = 0;   // (segment, site) lookups
};

// Steps that are recorded once and replayed; all zero where the ops have no such thing.
struct GraphCounters {
  uint64_t captures = 0;
  uint64_t replays = 0;  // steps that ran from a record, each of its first time left out
  double capture_ms = 0;
  int64_t bytes = 0;  // of device memory that captures took
};

// The op table: chosen once, at load. Calls of one object come from one thread at a time.
class Ops {
 public:
  virtual ~Ops() = default;
  virtual const char* name() const = 0;  // "reference", "cpu-avx512", …

  // --- packing, at load ---
  // Names what PackedBytes, Pack and PackVector do: of two Ops with one name, on whatever machine, they do the same,
  // bit for bit. Packed weights are kept on disk under it.
  virtual const char* packed_layout() const = 0;
  virtual int64_t PackedBytes(WeightFormat format, int64_t out, int64_t in) const = 0;
  // Writes rows [0, source.rows) of `source` [rows, in] as outputs [out_begin, out_begin + rows) of a weight of
  // `format` [out, in] at `packed`. A split of a matrix into calls must begin at multiples of kPackRows (all but the
  // last).
  virtual void Pack(const SourceView& source, WeightFormat format, int64_t out, int64_t out_begin, void* packed) = 0;
  static constexpr int64_t kPackRows = 32;
  // Writes `source` [1, n], a norm's gain or a bias, as n floats, each plus `offset`, then times `scale`.
  virtual void PackVector(const SourceView& source, float offset, float scale, float* packed) {
    for (int64_t i = 0; i < source.cols; ++i) packed[i] = (LoadUnaligned(source, i) + offset) * scale;
  }

  // --- adapter tiles, while an adapter loads; any thread ---
  // `ranks` <= kTileRanks; `columns` of `in` (an A tile) or of `out` (a B tile), whole steps of TileStep but for a
  // run's last ones. Writes all TileBytes of a tile. values[rank * stride + column] of A; values[column * stride +
  // rank] of B.
  virtual void PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                         void* tile) const = 0;
  virtual void PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                         void* tile) const = 0;

  // --- a step ---
  // What the products of a step read: RmsNorm and Attention write it for them.
  virtual DType input_dtype() const { return DType::kF32; }
  // Before the first step. An error: this model, or so much memory, isn't possible.
  virtual Status Reserve(const StepLimits&) { return Ok(); }
  // Before the first op of a step. All that views of later ops point to is that of `batch`, and stays until the step's
  // Synchronize. True: a step of this shape is on record, and runs; the ops up to EndStep aren't called.
  virtual bool BeginStep(const BatchView&) { return false; }
  // After the op that gives the logits.
  virtual void EndStep() {}
  virtual void Embed(const EmbedArgs& args) = 0;
  // out[t,:] = x[t,:] / sqrt(mean(x²) + eps) * gain; [T, dim], T rows of `groups` vectors each when x is [T, groups *
  // dim]. `out`: f32, x itself too, or input_dtype().
  virtual void RmsNorm(const TensorView& x, const float* gain, int64_t dim, float eps, const TensorView& out) = 0;
  // y = x·Wᵀ (+ bias) + Σ_a w_a · (x·A_aᵀ)·B_aᵀ for each product.
  virtual void Project(const ProjectArgs& args) = 0;
  // cos_sin[t] = rotary_dim/2 cosines, then as many sines, of pos[t] * inv_freq[i], both times the factor.
  virtual void RopeTable(const RowsView& rows, const RopeFrequencies& rope, const TensorView& cos_sin) = 0;
  // Rotates the first rotary_dim (= cos_sin.cols) of each head in place; pairs (i, i + rotary_dim/2), as Hugging Face
  // lays them out.
  virtual void Rope(const TensorView& x, int32_t heads, int32_t head_dim, const TensorView& cos_sin) = 0;
  // Stores k, v [T, kv_heads * head_dim] at the rows' positions.
  virtual void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv,
                        int32_t layer) = 0;
  // Bytes of one layer's K and V of `tokens` tokens, without KvScaleBytes.
  virtual int64_t KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) const = 0;
  // Whether V slots that were never written must be zero (KvView).
  virtual bool needs_zeroed_kv() const { return true; }
  virtual void Attention(const AttentionArgs& args) = 0;
  // gate = activation(gate) * up, elementwise.
  virtual void GatedActivation(Activation activation, const TensorView& gate, const TensorView& up) = 0;
  // out += scale * x
  virtual void AddScaled(const TensorView& x, float scale, const TensorView& out) = 0;
  // x = cap * tanh(x / cap)
  virtual void SoftCap(const TensorView& x, float cap) = 0;
  // out[i,:] = x[rows[i],:]
  virtual void GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) = 0;
  // Reports log-probabilities of the logits as they are. May change a row while it draws from it; afterwards it is as
  // before.
  virtual void Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) = 0;
  // Waits for everything above; its outputs may be read afterwards.
  virtual Status Synchronize() = 0;

  const OpCounters& counters() const { return counters_; }
  const GraphCounters& graphs() const { return graphs_; }

 protected:
  OpCounters counters_;
  GraphCounters graphs_;
};

}  // namespace openlora
