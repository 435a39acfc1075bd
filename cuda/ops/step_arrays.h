#pragma once

#include <cstdint>
#include <vector>

#include "kernels/lora.h"
#include "ops/adapter_tables.h"
#include "ops/attention_plan.h"
#include "ops/lora_waves.h"
#include "ops/ops.h"
#include "ops/staging.h"

namespace openlora {

// A LoraWave on the device.
struct LoraOnDevice {
  const int32_t* segment_count = nullptr;
  const int32_t* segment_start = nullptr;
  const int32_t* segment_slot = nullptr;  // into StepArrays::slots
  const int32_t* entry_row = nullptr;
  const float* entry_weight = nullptr;
};

// Steps of one shape have the same launches, of the same parameters: what differs stands in device memory. Sizes are
// powers of two that hold what there is, 0 for nothing.
struct StepShape {
  const void* arrays = nullptr;  // where they are
  int32_t rows = 0;
  int32_t logit_rows = 0;
  int32_t decode_items = 0;
  int32_t prefill_items = 0;
  int32_t slots = 0;
  int32_t waves = 0;  // exactly
  int32_t logit_waves = 0;

  auto operator<=>(const StepShape&) const = default;
};

// What the kernels of a step read beside tensors: the batch's arrays, who attends which rows, the waves of its entries
// and the adapters that they name.
class StepArrays {
 public:
  StepArrays(CudaContext& context, AdapterTables* tables) : staging_(context, "arrays of a step"), tables_(tables) {}

  // Rows at most, and sites of the base.
  void Reserve(int32_t rows, int32_t sites) {
    rows_max_ = static_cast<size_t>(rows);
    sites_ = sites;
  }
  Status Upload(const BatchView& batch, const AttentionShape& shape);

  const StepShape& shape() const { return shape_; }
  const std::vector<LoraOnDevice>& waves(bool is_of_logits) const { return is_of_logits ? logit_waves_ : waves_; }

  const int32_t* row_count() const { return staging_.At(counts_); }
  const int32_t* logit_count() const { return staging_.At(counts_) + 1; }
  const int32_t* decode_count() const { return staging_.At(counts_) + 2; }
  const int32_t* prefill_count() const { return staging_.At(counts_) + 3; }
  const int32_t* merge_count() const { return staging_.At(counts_) + 4; }
  const int32_t* row_token() const { return staging_.At(row_token_); }
  const int32_t* row_pos() const { return staging_.At(row_pos_); }
  const int32_t* row_sequence() const { return staging_.At(row_sequence_); }
  const uint8_t* row_is_long() const { return staging_.At(row_is_long_); }  // zeros where the batch has none
  const int32_t* logit_row() const { return staging_.At(logit_row_); }
  const int32_t* row_place() const { return staging_.At(row_place_); }
  const int32_t* merge_row() const { return staging_.At(merge_row_); }
  const attention::Item* decode() const { return staging_.At(decode_); }
  const attention::Item* prefill() const { return staging_.At(prefill_); }
  const int64_t* table_begin() const { return staging_.At(table_begin_); }
  const uint32_t* table() const { return staging_.At(table_); }
  const lora::Slot* slots() const { return staging_.At(slots_); }

 private:
  template <class T>
  using Place = Staging::Place<T>;
  struct StagedWave {
    Place<int32_t> count, start, slot, row;
    Place<float> weight;
  };

  Status AddWaves(const EntriesView& entries, int32_t rows, const AdapterPages& pages, std::vector<lora::Slot>* slots,
                  std::vector<StagedWave>* staged);
  std::vector<LoraOnDevice> OnDevice(const std::vector<StagedWave>& staged) const;

  Staging staging_;
  AdapterTables* tables_;
  size_t rows_max_ = 0;
  int32_t sites_ = 0;
  AttentionPlan plan_;
  StepShape shape_;
  std::vector<LoraOnDevice> waves_;
  std::vector<LoraOnDevice> logit_waves_;
  Place<int32_t> counts_, row_token_, row_pos_, row_sequence_, logit_row_, row_place_, merge_row_;
  Place<uint8_t> row_is_long_;
  Place<attention::Item> decode_, prefill_;
  Place<int64_t> table_begin_;
  Place<uint32_t> table_;
  Place<lora::Slot> slots_;
};

}  // namespace openlora
