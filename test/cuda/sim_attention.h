#pragma once

#include <algorithm>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cases/attention_run.h"
#include "cuda/sim_buffer.h"
#include "kernels/attention.h"
#include "ops/attention_kernels.h"

namespace openlora {

// How rows are attended.
struct AttentionWay {
  bool is_prefill = false;  // that kernel
  bool is_split = true;     // partial results and a merge
  int tile_pairs = 0;       // 0: as many as the kernel takes
  int blocks = 3;           // fewer than there are items: each takes several
};
inline constexpr AttentionWay kDecode{}, kPrefill{.is_prefill = true, .is_split = false};

// The sequences of a case in the paged cache of a machine: frames of the second of two layers at shuffled places, all
// others nobody's, and fresh, which is NaN.
class SimAttention {
 public:
  static constexpr int32_t kLayers = 2, kLayer = 1;

  SimAttention(TestMachine& machine, const cases::AttentionData& data)
      : machine_(machine), data_(data), c_(data.shape), kernels_(AttentionKernelsFor(c_.head_dim, is_f16())) {
    frame_bytes_ = (int64_t{4} * c_.frame_tokens * c_.kv_heads * c_.head_dim + 255) / 256 * 256;
    std::vector<int64_t> begins;
    int32_t blocks = 0;
    for (const cases::AttentionSequence& s : c_.sequences) {
      begins.push_back(int64_t{blocks} * kLayers);
      blocks += (s.cached + s.rows + c_.frame_tokens - 1) / c_.frame_tokens;
    }
    std::vector<uint32_t> places(static_cast<size_t>(blocks) * kLayers + 3);
    std::iota(places.begin(), places.end(), 0u);
    cases::Random random(c_.seed + 1);
    random.Shuffle(places);
    const std::vector<uint32_t> table(places.begin(), places.end() - 3);
    pool_ = std::make_unique<SimBuffer<uint8_t>>(machine, "pool", places.size() * static_cast<size_t>(frame_bytes_));
    for (size_t i = 0; i < places.size(); ++i)
      if (i >= table.size() || i % kLayers != kLayer)
        machine.SetForbidden(pool_->data() + places[i] * frame_bytes_, static_cast<size_t>(frame_bytes_), true);
    table_ = std::make_unique<SimBuffer<uint32_t>>(machine, "page table", table);
    begins_ = std::make_unique<SimBuffer<int64_t>>(machine, "page table begins", begins);
  }

  // Writes K and V of these tokens.
  std::string Append(const std::vector<cases::AttentionRows>& rows, int blocks = 2) {
    const Batch batch(machine_, rows);
    const int64_t cols = int64_t{c_.kv_heads} * c_.head_dim, stride = cols + 4;
    const SimBuffer<float> k(machine_, "k", Take(data_.k, batch, cols, stride)),
        v(machine_, "v", Take(data_.v, batch, cols, stride));
    machine_.SetReadOnly(pool_->data(), false);
    const attention::AppendParams params{k.data(),           v.data(),         stride,           stride,
                                         batch.count.data(), batch.pos.data(), batch.seq.data(), Cache()};
    return RunKernel(machine_, kernels_.append, {blocks, attention::kThreads, 0}, params);
  }

  // The attention of some rows, [rows, heads * head_dim] in 16 bits, into `out`.
  std::string Attend(const std::vector<cases::AttentionRows>& rows, const AttentionWay& way,
                     std::vector<uint16_t>* out) {
    const Batch batch(machine_, rows);
    const int64_t cols = int64_t{c_.heads} * c_.head_dim, stride = cols + 2;
    const auto count = static_cast<size_t>(batch.rows);
    const SimBuffer<float> q(machine_, "q", Take(data_.q, batch, cols, stride));
    const SimBuffer<uint16_t> result(machine_, "out", count * static_cast<size_t>(stride));
    std::vector<int32_t> place, all(count);
    const int32_t places = Places(batch, &place);
    std::iota(all.begin(), all.end(), 0);
    const std::vector<attention::Item> list = Items(batch, way);
    const SimBuffer<attention::Item> items(machine_, "items", list);
    const SimBuffer<int32_t> item_count(machine_, "item count", std::vector{static_cast<int32_t>(list.size())});
    const SimBuffer<int32_t> row_place(machine_, "row places", place), merge_row(machine_, "merge rows", all);
    const size_t of_heads = static_cast<size_t>(places) * static_cast<size_t>(c_.heads);
    const SimBuffer<float> sums(machine_, "partial sums", of_heads * 2),
        o(machine_, "partial out", of_heads * static_cast<size_t>(c_.head_dim));
    machine_.SetReadOnly(pool_->data(), true);
    const attention::Params params{.q = q.data(),
                                   .out = result.data(),
                                   .q_stride = stride,
                                   .out_stride = stride,
                                   .row_pos = batch.pos.data(),
                                   .row_sequence = batch.seq.data(),
                                   .cache = Cache(),
                                   .heads = c_.heads,
                                   .scale = cases::AttentionRun::Scale(c_),
                                   .window = c_.window,
                                   .soft_cap = c_.soft_cap,
                                   .item_count = item_count.data(),
                                   .items = items.data(),
                                   .row_place = row_place.data(),
                                   .merge_count = batch.count.data(),
                                   .merge_row = merge_row.data(),
                                   .partial_sums = sums.data(),
                                   .partial_out = o.data()};
    const int warps = way.is_prefill ? kernels_.prefill_warps : attention::kDecodeWarps;
    const int bytes = way.is_prefill ? kernels_.prefill_shared_bytes : kernels_.decode_shared_bytes;
    const dev::Stream stream{&machine_, 0};
    dev::Launch(way.is_prefill ? kernels_.prefill : kernels_.decode, {way.blocks, warps * 32, bytes}, stream, params);
    if (way.is_split) dev::Launch(kernels_.merge, {way.blocks, attention::kThreads, 0}, stream, params);
    machine_.SynchronizeStream(0);
    out->clear();
    for (size_t row = 0; row < count; ++row) {
      const uint16_t* const from = result.data() + row * static_cast<size_t>(stride);
      if (from[cols] != 0xffff || from[cols + 1] != 0xffff) return "written beyond the end of a row";
      out->insert(out->end(), from, from + cols);
    }
    return machine_.violation();
  }

  bool is_f16() const { return c_.dtype == DType::kF16; }
  // Of K or V of a token, as it stands in the cache.
  const uint16_t* Row(bool is_value, int32_t sequence, int32_t position, int32_t kv_head) const {
    const int64_t block = position / c_.frame_tokens, token = position % c_.frame_tokens;
    const uint32_t frame =
        (*table_)[static_cast<size_t>((*begins_)[static_cast<size_t>(sequence)] + block * kLayers + kLayer)];
    const int64_t row = (int64_t{is_value ? c_.kv_heads : 0} + kv_head) * c_.frame_tokens + token;
    return reinterpret_cast<const uint16_t*>(pool_->data() + frame * frame_bytes_) + row * c_.head_dim;
  }

 private:
  struct Batch {
    Batch(TestMachine& machine, const std::vector<cases::AttentionRows>& list)
        : rows(Count(list)),
          count(machine, "row count", std::vector{rows}),
          pos(machine, "row positions", Each(list, true)),
          seq(machine, "row sequences", Each(list, false)) {}
    static int32_t Count(const std::vector<cases::AttentionRows>& list) {
      int32_t total = 0;
      for (const cases::AttentionRows& r : list) total += r.end - r.begin;
      return total;
    }
    static std::vector<int32_t> Each(const std::vector<cases::AttentionRows>& list, bool is_position) {
      std::vector<int32_t> each;
      for (const cases::AttentionRows& r : list)
        for (int32_t position = r.begin; position < r.end; ++position)
          each.push_back(is_position ? position : r.sequence);
      return each;
    }
    int32_t rows;
    SimBuffer<int32_t> count, pos, seq;
  };

  // NaN beyond the end of a row.
  static std::vector<float> Take(const std::vector<std::vector<float>>& from, const Batch& batch, int64_t cols,
                                 int64_t stride) {
    std::vector<float> values(static_cast<size_t>(batch.rows * stride), std::nanf(""));
    for (size_t row = 0; row < static_cast<size_t>(batch.rows); ++row)
      std::copy_n(from[static_cast<size_t>(batch.seq[row])].data() + batch.pos[row] * cols, cols,
                  values.data() + row * static_cast<size_t>(stride));
    return values;
  }

  int32_t FirstSplit(int32_t position) const {
    return (c_.window > 0 ? std::max(0, position + 1 - c_.window) : 0) / attention::kSplit;
  }
  // Places of the splits that each row sees, row after row; returns how many there are.
  int32_t Places(const Batch& batch, std::vector<int32_t>* row_place) const {
    int32_t places = 0;
    for (size_t row = 0; row < static_cast<size_t>(batch.rows); ++row) {
      const int32_t first = FirstSplit(batch.pos[row]);
      row_place->push_back(places - first);
      places += batch.pos[row] / attention::kSplit + 1 - first;
    }
    return places;
  }
  std::vector<attention::Item> Items(const Batch& batch, const AttentionWay& way) const {
    const int32_t group = c_.heads / c_.kv_heads;
    const int32_t room = (way.is_prefill ? kernels_.prefill_warps : 1) * attention::kTileRows;
    const int32_t size = way.tile_pairs > 0 ? way.tile_pairs : room;
    std::vector<attention::Item> items;
    for (int32_t row = 0, end = 0; row < batch.rows; row = end) {
      const int32_t sequence = batch.seq[static_cast<size_t>(row)];
      while (end < batch.rows && batch.seq[static_cast<size_t>(end)] == sequence) ++end;
      for (int32_t pair = 0; pair < (end - row) * group; pair += size) {
        const int32_t pairs = std::min(size, (end - row) * group - pair);
        if (!way.is_split) {
          items.push_back({row, pair, pairs, attention::kAllSplits});
          continue;
        }
        // One more than the tile sees: a list may serve layers with a window and layers without.
        const int32_t last = batch.pos[static_cast<size_t>(row + (pair + pairs - 1) / group)];
        for (int32_t split = 0; split <= last / attention::kSplit + 1; ++split)
          items.push_back({row, pair, pairs, split});
      }
    }
    return items;
  }

  attention::Cache Cache() const {
    int32_t log2 = 0;
    while (1 << log2 < c_.frame_tokens) ++log2;
    return {pool_->data(), frame_bytes_, table_->data(), begins_->data(), log2,
            kLayers,       kLayer,       c_.kv_heads,    c_.head_dim};
  }

  TestMachine& machine_;
  const cases::AttentionData& data_;
  const cases::AttentionCase& c_;
  AttentionKernels kernels_;
  int64_t frame_bytes_;
  std::unique_ptr<SimBuffer<uint8_t>> pool_;
  std::unique_ptr<SimBuffer<uint32_t>> table_;
  std::unique_ptr<SimBuffer<int64_t>> begins_;
};

}  // namespace openlora
