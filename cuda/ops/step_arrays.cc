#include "ops/step_arrays.h"

#include <algorithm>
#include <array>
#include <bit>

namespace openlora {
namespace {

// The frames of the batch's sequences: up to the last row of each.
size_t TableSize(const BatchView& batch) {
  const RowsView& rows = batch.rows;
  const int32_t last = rows.rows - 1;
  const int64_t blocks = rows.row_pos[last] / batch.kv.frame_tokens + 1;
  return static_cast<size_t>(batch.kv.table_begin[rows.row_sequence[last]] + blocks * batch.kv.layers);
}

int32_t SizeFor(int32_t count) {
  return count == 0 ? 0 : static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(count)));
}

template <class T>
std::span<const T> SpanOf(const T* data, int64_t size) {
  return {data, static_cast<size_t>(size)};
}

}  // namespace

Status StepArrays::Upload(const BatchView& batch, const AttentionShape& shape) {
  const RowsView& rows = batch.rows;
  const int32_t row_count = rows.rows;
  const auto logit_count = static_cast<int32_t>(batch.logit_rows.size());
  plan_.Build(rows, shape);
  staging_.Clear();
  const auto size = [](const auto& list) { return static_cast<int32_t>(list.size()); };
  const std::array counts{row_count, logit_count, size(plan_.decode), size(plan_.prefill), size(plan_.merge_row)};
  counts_ = staging_.Add(std::span<const int32_t>(counts));
  row_token_ = staging_.Add(SpanOf(rows.row_token, row_count), rows_max_);
  row_pos_ = staging_.Add(SpanOf(rows.row_pos, row_count), rows_max_);
  row_sequence_ = staging_.Add(SpanOf(rows.row_sequence, row_count), rows_max_);
  const std::vector<uint8_t> none(rows.row_is_long == nullptr ? static_cast<size_t>(row_count) : 0, 0);
  row_is_long_ = staging_.Add(SpanOf(none.empty() ? rows.row_is_long : none.data(), row_count), rows_max_);
  logit_row_ = staging_.Add(batch.logit_rows, rows_max_);
  row_place_ = staging_.Add(std::span<const int32_t>(plan_.row_place), rows_max_);
  merge_row_ = staging_.Add(std::span<const int32_t>(plan_.merge_row), rows_max_);
  table_begin_ = staging_.Add(SpanOf(batch.kv.table_begin, rows.row_sequence[row_count - 1] + 1), rows_max_);
  std::vector<lora::Slot> slots;
  std::vector<StagedWave> waves, logit_waves;
  OPENLORA_RETURN_IF_ERROR(AddWaves(batch.entries, row_count, batch.pages, &slots, &waves));
  OPENLORA_RETURN_IF_ERROR(AddWaves(batch.logit_entries, logit_count, batch.pages, &slots, &logit_waves));
  shape_ = {.arrays = nullptr,
            .rows = SizeFor(row_count),
            .logit_rows = SizeFor(logit_count),
            .decode_items = SizeFor(size(plan_.decode)),
            .prefill_items = SizeFor(size(plan_.prefill)),
            .slots = SizeFor(size(slots)),
            .waves = size(waves),
            .logit_waves = size(logit_waves)};
  slots_ = staging_.Add(std::span<const lora::Slot>(slots), static_cast<size_t>(shape_.slots));
  decode_ = staging_.Add(std::span<const attention::Item>(plan_.decode), static_cast<size_t>(shape_.decode_items));
  prefill_ = staging_.Add(std::span<const attention::Item>(plan_.prefill), static_cast<size_t>(shape_.prefill_items));
  table_ = staging_.Add(SpanOf(batch.kv.table, static_cast<int64_t>(TableSize(batch))));
  OPENLORA_RETURN_IF_ERROR(staging_.Upload());
  shape_.arrays = staging_.At(counts_);
  waves_ = OnDevice(waves);
  logit_waves_ = OnDevice(logit_waves);
  return Ok();
}

Status StepArrays::AddWaves(const EntriesView& entries, int32_t rows, const AdapterPages& pages,
                            std::vector<lora::Slot>* slots, std::vector<StagedWave>* staged) {
  for (const LoraWave& wave : WavesOf(entries, rows)) {
    std::vector<int32_t> at;  // of each segment's slot in `slots`
    for (const int32_t slot : wave.segment_slot) {
      at.push_back(static_cast<int32_t>(slots->size()));
      slots->emplace_back();
      OPENLORA_RETURN_IF_ERROR(tables_->Find(slot, pages.slots[slot], sites_, &slots->back()));
    }
    const int32_t count = wave.entry_end - wave.entry_begin;
    StagedWave of_wave;
    of_wave.count = staging_.AddOne(static_cast<int32_t>(at.size()));
    of_wave.start = staging_.Add(std::span<const int32_t>(wave.segment_start), lora::kSegmentsMax + 1);
    of_wave.slot = staging_.Add(std::span<const int32_t>(at), lora::kSegmentsMax);
    of_wave.row = staging_.Add(SpanOf(entries.entry_row + wave.entry_begin, count), rows_max_);
    of_wave.weight = staging_.Add(SpanOf(entries.entry_weight + wave.entry_begin, count), rows_max_);
    staged->push_back(of_wave);
  }
  return Ok();
}

std::vector<LoraOnDevice> StepArrays::OnDevice(const std::vector<StagedWave>& staged) const {
  std::vector<LoraOnDevice> waves;
  for (const StagedWave& wave : staged)
    waves.push_back({staging_.At(wave.count), staging_.At(wave.start), staging_.At(wave.slot), staging_.At(wave.row),
                     staging_.At(wave.weight)});
  return waves;
}

}  // namespace openlora
