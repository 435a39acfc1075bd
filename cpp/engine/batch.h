#pragma once

#include <cstdint>
#include <vector>

#include "engine/sequence.h"
#include "model/decoder_forward.h"

namespace openlora {

// Entries under construction; see EntriesView.
struct Entries {
  std::vector<int32_t> row;
  std::vector<float> weight;
  std::vector<int32_t> segment_start;
  std::vector<int32_t> segment_slot;

  EntriesView View() const;
};

// What a row of logits is for.
struct LogitRow {
  Sequence* sequence = nullptr;
  int32_t prompt_index = -1;  // >= 0: the logprob of this prompt token; -1: the next token is drawn
};

// The rows, entries and tables of one step, in arrays that are kept from step to step.
class Batch {
 public:
  // Lays out the rows of a committed plan.
  void Build(const std::vector<PlannedRows>& planned);

  int32_t rows() const { return static_cast<int32_t>(row_token_.size()); }
  const std::vector<LogitRow>& logit_rows() const { return logit_use_; }
  // `kv` without its tables, which come from here.
  BatchView View(KvView kv, const AdapterPages& pages) const;
  // One for each logit row; spans point into the sequences.
  void SampleRows(std::vector<SampleRow>* rows) const;

 private:
  void BuildRows(const std::vector<PlannedRows>& planned);
  void BuildEntries(const std::vector<PlannedRows>& planned);

  std::vector<int32_t> row_token_, row_pos_, row_sequence_;
  std::vector<uint8_t> row_is_long_;
  std::vector<int32_t> logit_row_;   // rows whose logits are wanted
  std::vector<LogitRow> logit_use_;  // the same, by use
  std::vector<uint32_t> kv_table_;
  std::vector<int64_t> kv_begin_;
  Entries entries_;
  Entries logit_entries_;
};

}  // namespace openlora
