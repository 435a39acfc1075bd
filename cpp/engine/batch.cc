#include "engine/batch.h"

#include <algorithm>
#include <map>

namespace openlora {
namespace {

// Rows of one sequence: [begin, end) of the batch, and of its logit rows.
struct Span {
  int32_t begin = 0;
  int32_t end = 0;
};

// Appends a segment for each slot among the adapters that stand at `place` in their requests' lists. A row's segments
// thus follow its request's order, whatever the slots are called: a reload into another slot changes no bit.
void AppendPlace(const std::vector<PlannedRows>& planned, const std::vector<Span>& spans, size_t place,
                 Entries* entries) {
  std::map<int32_t, std::vector<size_t>> by_slot;
  for (size_t i = 0; i < planned.size(); ++i) {
    const Sequence& sequence = *planned[i].sequence;
    if (place < sequence.adapters.size() && spans[i].end > spans[i].begin)
      by_slot[sequence.adapters[place]->slot].push_back(i);
  }
  for (const auto& [slot, members] : by_slot) {
    for (const size_t member : members) {
      for (int32_t row = spans[member].begin; row < spans[member].end; ++row) {
        entries->row.push_back(row);
        entries->weight.push_back(planned[member].sequence->request.adapters[place].weight);
      }
    }
    entries->segment_slot.push_back(slot);
    entries->segment_start.push_back(static_cast<int32_t>(entries->row.size()));
  }
}

void Clear(Entries* entries) {
  entries->row.clear();
  entries->weight.clear();
  entries->segment_slot.clear();
  entries->segment_start.assign(1, 0);
}

}  // namespace

EntriesView Entries::View() const {
  return {static_cast<int32_t>(row.size()),          row.data(),           weight.data(),
          static_cast<int32_t>(segment_slot.size()), segment_start.data(), segment_slot.data()};
}

void Batch::Build(const std::vector<PlannedRows>& planned) {
  BuildRows(planned);
  BuildEntries(planned);
}

void Batch::BuildRows(const std::vector<PlannedRows>& planned) {
  row_token_.clear();
  row_pos_.clear();
  row_sequence_.clear();
  row_is_long_.clear();
  logit_row_.clear();
  logit_use_.clear();
  kv_table_.clear();
  kv_begin_.clear();
  for (size_t i = 0; i < planned.size(); ++i) {
    Sequence* sequence = planned[i].sequence;
    kv_begin_.push_back(static_cast<int64_t>(kv_table_.size()));
    kv_table_.insert(kv_table_.end(), sequence->kv.frames.begin(), sequence->kv.frames.end());
    for (int32_t pos = sequence->computed; pos < sequence->computed + planned[i].rows; ++pos) {
      const bool is_scored = sequence->is_scoring() && pos >= sequence->scored && pos + 1 < sequence->prompt();
      const bool is_last = pos + 1 == sequence->known();
      if (is_scored || is_last) {
        logit_row_.push_back(rows());
        logit_use_.push_back({sequence, is_last ? -1 : pos + 1});
      }
      row_token_.push_back(sequence->tokens[static_cast<size_t>(pos)]);
      row_pos_.push_back(pos);
      row_sequence_.push_back(static_cast<int32_t>(i));
      row_is_long_.push_back(sequence->is_long ? 1 : 0);
    }
  }
}

void Batch::BuildEntries(const std::vector<PlannedRows>& planned) {
  std::vector<Span> rows, logits;
  size_t places = 0;
  Span row, logit;
  for (const PlannedRows& part : planned) {
    row = {row.end, row.end + part.rows};
    logit.begin = logit.end;
    while (logit.end < static_cast<int32_t>(logit_row_.size()) && logit_row_[static_cast<size_t>(logit.end)] < row.end)
      ++logit.end;
    rows.push_back(row);
    logits.push_back(logit);
    places = std::max(places, part.sequence->adapters.size());
  }
  Clear(&entries_);
  Clear(&logit_entries_);
  for (size_t place = 0; place < places; ++place) {
    AppendPlace(planned, rows, place, &entries_);
    AppendPlace(planned, logits, place, &logit_entries_);
  }
}

BatchView Batch::View(KvView kv, const AdapterPages& pages) const {
  kv.table = kv_table_.data();
  kv.table_begin = kv_begin_.data();
  const RowsView rows_view{rows(), row_token_.data(), row_pos_.data(), row_sequence_.data(), row_is_long_.data()};
  return {rows_view, entries_.View(), kv, pages, logit_row_, logit_entries_.View()};
}

void Batch::SampleRows(std::vector<SampleRow>* rows_out) const {
  rows_out->clear();
  for (const LogitRow& use : logit_use_) {
    const Sequence& sequence = *use.sequence;
    const Request& request = sequence.request;
    SampleRow row;
    if (use.prompt_index >= 0) {
      row.target = sequence.tokens[static_cast<size_t>(use.prompt_index)];
      row.logprobs = request.prompt_logprobs;
    } else {
      row.temperature = request.temperature;
      row.top_k = request.top_k;
      row.top_p = request.top_p;
      row.min_p = request.min_p;
      row.seed = request.seed;
      row.draw_index = static_cast<uint64_t>(sequence.output());
      row.logprobs = request.logprobs;
      row.bias = sequence.output() < request.min_tokens ? sequence.early_bias : request.logit_bias;
      row.repetition_penalty = request.repetition_penalty;
      row.presence_penalty = request.presence_penalty;
      row.frequency_penalty = request.frequency_penalty;
      row.seen = sequence.seen.tokens();
    }
    rows_out->push_back(row);
  }
}

}  // namespace openlora
