#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "cases/attention_cases.h"
#include "cases/buffers.h"
#include "ops/ops.h"

namespace openlora::cases {

// q, k and v of every token of every sequence, the cached ones included; k and v rounded to the dtype of the cache, but
// for int8, which rounds by whole rows.
struct AttentionData {
  explicit AttentionData(const AttentionCase& c) : shape(c) {
    Random random(c.seed);
    const DType rounded = c.dtype == DType::kI8 ? DType::kF32 : c.dtype;
    for (const AttentionSequence& s : c.sequences) {
      const int64_t tokens = s.cached + s.rows;
      q.push_back(RandomValues(random, tokens * c.heads * c.head_dim, DType::kF32, 3));
      k.push_back(RandomValues(random, tokens * c.kv_heads * c.head_dim, rounded, 2));
      v.push_back(RandomValues(random, tokens * c.kv_heads * c.head_dim, rounded));
    }
  }

  AttentionCase shape;
  std::vector<std::vector<float>> q;  // [sequence][token, heads * head_dim]
  std::vector<std::vector<float>> k;  // [sequence][token, kv_heads * head_dim]
  std::vector<std::vector<float>> v;
};

// The rows [begin, end) of one sequence: the tokens at these positions.
struct AttentionRows {
  int32_t sequence;
  int32_t begin;
  int32_t end;
};

// The sequences of a case in a cache of two layers, of which the second is used. Frames stand at shuffled places, NaN
// between them; K that nothing has written is NaN too, V is zero, and so are the scales of both.
class AttentionRun {
 private:
  struct Batch {
    explicit Batch(const std::vector<AttentionRows>& rows) {
      for (const AttentionRows& r : rows)
        for (int32_t position = r.begin; position < r.end; ++position) {
          positions.push_back(position);
          sequences.push_back(r.sequence);
        }
      view = {static_cast<int32_t>(positions.size()), positions.data(), positions.data(), sequences.data()};
    }
    Batch(Batch&&) = delete;
    std::vector<int32_t> positions, sequences;
    RowsView view;
  };

 public:
  static constexpr int32_t kLayers = 2;
  static constexpr int32_t kLayer = 1;

  AttentionRun(Ops& ops, const AttentionData& data) : ops_(ops), data_(data) {
    const AttentionCase& c = data.shape;
    const int64_t bytes = ops.KvBytes(c.dtype, c.kv_heads, c.head_dim, c.frame_tokens);
    frame_bytes_ = (bytes + 511) / 512 * 512 + 256;
    int32_t blocks = 0;
    for (const AttentionSequence& s : c.sequences) {
      table_begin_.push_back(int64_t{blocks} * kLayers);
      blocks += (s.cached + s.rows + c.frame_tokens - 1) / c.frame_tokens;
    }
    std::vector<uint32_t> places(blocks * kLayers * 2);
    std::iota(places.begin(), places.end(), 0u);
    Random random(c.seed + 1);
    random.Shuffle(places);
    table_.assign(places.begin(), places.begin() + blocks * kLayers);
    pool_ = GuardedBytes(places.size() * static_cast<size_t>(frame_bytes_));
    for (const uint32_t frame : table_) std::memset(pool_.data() + frame * frame_bytes_ + bytes / 2, 0, bytes / 2);
    const int64_t scales = KvScaleBytes(c.dtype, c.kv_heads, c.frame_tokens);
    const int64_t scale_bytes = scales > 0 ? scales + 12 : 0;
    scales_ = GuardedBytes(places.size() * static_cast<size_t>(scale_bytes));
    for (const uint32_t frame : table_)
      std::memset(scales_.data() + frame * scale_bytes + scales / 2, 0, static_cast<size_t>(scales / 2));
    kv_ = {pool_.data(), frame_bytes_,  c.frame_tokens,      c.dtype,        kLayers,     c.kv_heads,
           c.head_dim,   table_.data(), table_begin_.data(), scales_.data(), scale_bytes, c.has_bf16_dots};
  }
  AttentionRun(AttentionRun&&) = delete;

  // Writes K and V of these tokens.
  void Append(const std::vector<AttentionRows>& rows) {
    const int64_t cols = int64_t{data_.shape.kv_heads} * data_.shape.head_dim;
    const Batch batch(rows);
    GuardedMatrix k(batch.view.rows, cols), v(batch.view.rows, cols);
    Take(data_.k, batch, cols, k);
    Take(data_.v, batch, cols, v);
    ops_.KvAppend(k.View(), v.View(), batch.view, kv_, kLayer);
  }

  // The attention of some rows, to be run as often as one likes.
  class Step {
   public:
    Step(const AttentionRun& run, const std::vector<AttentionRows>& rows)
        : run_(run), batch_(rows), q_(batch_.view.rows, run.QCols()), out_(batch_.view.rows, run.QCols()) {
      Take(run.data_.q, batch_, run.QCols(), q_);
    }
    Step(Step&&) = delete;

    void Run() {
      const AttentionCase& c = run_.data_.shape;
      run_.ops_.Attention(
          {q_.View(), out_.View(), batch_.view, run_.kv_, kLayer, c.heads, Scale(c), c.window, c.soft_cap});
      OPENLORA_CHECK(run_.ops_.Synchronize().ok());
    }
    std::vector<float> Values() const { return out_.Values(); }  // [rows, heads * head_dim]
    bool IsIntact() const { return q_.IsIntact() && out_.IsIntact(); }

   private:
    const AttentionRun& run_;
    const Batch batch_;
    GuardedMatrix q_, out_;
  };

  // The attention of these rows, [rows, heads * head_dim]; empty if anything beside the output was written.
  std::vector<float> Attend(const std::vector<AttentionRows>& rows) {
    Step step(*this, rows);
    const std::vector<uint8_t> before(pool_.data(), pool_.data() + pool_.size());
    const std::vector<uint8_t> scales_before(scales_.data(), scales_.data() + scales_.size());
    step.Run();
    const bool is_same = std::equal(before.begin(), before.end(), pool_.data()) &&
                         std::equal(scales_before.begin(), scales_before.end(), scales_.data());
    const bool is_intact = pool_.IsIntact() && scales_.IsIntact() && step.IsIntact();
    return is_same && is_intact ? step.Values() : std::vector<float>{};
  }

  // Every token of every sequence, and the rows of the step.
  std::vector<AttentionRows> AllTokens() const {
    std::vector<AttentionRows> all;
    for (size_t s = 0; s < data_.shape.sequences.size(); ++s)
      all.push_back({static_cast<int32_t>(s), 0, data_.shape.sequences[s].cached + data_.shape.sequences[s].rows});
    return all;
  }
  std::vector<AttentionRows> StepRows() const {
    std::vector<AttentionRows> step = AllTokens();
    for (size_t s = 0; s < step.size(); ++s) step[s].begin = data_.shape.sequences[s].cached;
    return step;
  }

  static float Scale(const AttentionCase& c) { return 1 / std::sqrt(static_cast<float>(c.head_dim)); }

 private:
  int64_t QCols() const { return int64_t{data_.shape.heads} * data_.shape.head_dim; }

  static void Take(const std::vector<std::vector<float>>& from, const Batch& batch, int64_t cols, GuardedMatrix& to) {
    for (int32_t row = 0; row < batch.view.rows; ++row)
      std::copy_n(from[batch.sequences[row]].data() + batch.positions[row] * cols, cols, to.Row(row));
  }

  Ops& ops_;
  const AttentionData& data_;
  int64_t frame_bytes_;
  std::vector<uint32_t> table_;
  std::vector<int64_t> table_begin_;
  GuardedBytes pool_;
  GuardedBytes scales_;
  KvView kv_;
};

}  // namespace openlora::cases
