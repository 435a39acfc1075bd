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

template <class T>
std::span<const T> SpanOf(const T* data, int64_t size) {
  return {data, static_cast<size_t>(size)};
}

}  // namespace

Status StepArrays::Upload(const BatchView& batch, const AttentionShape& shape) {
  const RowsView& rows = batch.rows;
  rows_ = rows.rows;
  logit_rows_ = static_cast<int32_t>(batch.logit_rows.size());
  plan_.Build(rows, shape);
  staging_.Clear();
  const auto size = [](const auto& list) { return static_cast<int32_t>(list.size()); };
  const std::array counts{rows_, logit_rows_, size(plan_.decode), size(plan_.prefill), size(plan_.merge_row)};
  counts_ = staging_.Add(std::span<const int32_t>(counts));
  row_token_ = staging_.Add(SpanOf(rows.row_token, rows_), rows_max_);
  row_pos_ = staging_.Add(SpanOf(rows.row_pos, rows_), rows_max_);
  row_sequence_ = staging_.Add(SpanOf(rows.row_sequence, rows_), rows_max_);
  const std::vector<uint8_t> none(rows.row_is_long == nullptr ? static_cast<size_t>(rows_) : 0, 0);
  row_is_long_ = staging_.Add(SpanOf(none.empty() ? rows.row_is_long : none.data(), rows_), rows_max_);
  logit_row_ = staging_.Add(batch.logit_rows, rows_max_);
  row_place_ = staging_.Add(std::span<const int32_t>(plan_.row_place), rows_max_);
  merge_row_ = staging_.Add(std::span<const int32_t>(plan_.merge_row), rows_max_);
  table_begin_ = staging_.Add(SpanOf(batch.kv.table_begin, rows.row_sequence[rows_ - 1] + 1), rows_max_);
  std::vector<lora::Slot> slots;
  std::vector<StagedWave> waves, logit_waves;
  OPENLORA_RETURN_IF_ERROR(AddWaves(batch.entries, rows_, batch.pages, &slots, &waves));
  OPENLORA_RETURN_IF_ERROR(AddWaves(batch.logit_entries, logit_rows_, batch.pages, &slots, &logit_waves));
  slots_ = staging_.Add(std::span<const lora::Slot>(slots), std::bit_ceil(slots.size()));
  decode_ = staging_.Add(std::span<const attention::Item>(plan_.decode), std::bit_ceil(plan_.decode.size()));
  prefill_ = staging_.Add(std::span<const attention::Item>(plan_.prefill), std::bit_ceil(plan_.prefill.size()));
  table_ = staging_.Add(SpanOf(batch.kv.table, static_cast<int64_t>(TableSize(batch))));
  OPENLORA_RETURN_IF_ERROR(staging_.Upload());
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
    of_wave.entries = count;
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
                     staging_.At(wave.weight), wave.entries});
  return waves;
}

}  // namespace openlora
