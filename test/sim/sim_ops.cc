#include "sim/sim_ops.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "sim/digest.h"
#include "sim/trace.h"

namespace openlora::sim {
namespace {

uint64_t Get(const TensorView& view, int64_t row) {
  uint64_t digest;
  std::memcpy(&digest, view.f32(row), sizeof(digest));
  return digest;
}

void Put(const TensorView& view, int64_t row, uint64_t digest) { std::memcpy(view.f32(row), &digest, sizeof(digest)); }

KvSlot* SlotOf(const KvView& kv, int32_t sequence, int32_t position, int32_t layer) {
  uint8_t* frame = kv.Frame(sequence, position / kv.frame_tokens, layer);
  return reinterpret_cast<KvSlot*>(frame + position % kv.frame_tokens * kSlotBytes);
}

}  // namespace

Status SimDevice::Allocate(size_t bytes, void** data) {
  const size_t padded = (bytes + 4095) / 4096 * 4096;
  *data = std::aligned_alloc(4096, padded);
  if (*data == nullptr) return Status(kErrOutOfMemory, "the simulator's machine has no more memory");
  std::memset(*data, 0, padded);
  return Ok();
}

void SimDevice::Free(void* data, size_t) { std::free(data); }

Status SimDevice::Upload(void* destination, const void* source, size_t bytes) {
  std::memcpy(destination, source, bytes);
  return Ok();
}

int64_t SimOps::PackedBytes(WeightFormat, int64_t, int64_t) const { return 64; }
void SimOps::Pack(const SourceView&, WeightFormat, int64_t, int64_t, void*) {}
// The simulator's loader writes tiles itself.
void SimOps::PackTileA(const float*, int64_t, int32_t, int32_t, DType, void*) const {}
void SimOps::PackTileB(const float*, int64_t, int32_t, int32_t, DType, void*) const {}
int64_t SimOps::KvBytes(DType, int32_t, int32_t, int32_t tokens) const { return tokens * kSlotBytes; }

void SimOps::Embed(const EmbedArgs& args) {
  rows_computed_ += static_cast<uint64_t>(args.rows);
  y_.clear();
  for (int32_t row = 0; row < args.rows; ++row) y_.push_back(Embedded(args.tokens[row]));
  if (args.entries != nullptr) Adapt(*args.entries, *args.pages, args.site, {args.table->out, args.table->in});
  for (int32_t row = 0; row < args.rows; ++row) Put(args.out, row, y_[static_cast<size_t>(row)]);
}

void SimOps::RmsNorm(const TensorView& x, const float*, int64_t, float, const TensorView& out) {
  for (int64_t row = 0; row < x.rows; ++row) Put(out, row, Normed(Get(x, row)));
}

void SimOps::Project(const ProjectArgs& args) {
  if (args.gate != nullptr) GatedActivation(args.gate->activation, args.x, args.gate->up);
  for (const Product& product : args.products) {
    y_.clear();
    for (int64_t row = 0; row < args.x.rows; ++row) y_.push_back(Multiplied(Get(args.x, row), product.site));
    if (args.entries != nullptr)
      Adapt(*args.entries, *args.pages, product.site, {product.weight->in, product.weight->out});
    for (int64_t row = 0; row < args.x.rows; ++row) {
      const uint64_t y = y_[static_cast<size_t>(row)];
      Put(product.out, row, product.accumulates ? Mix(Get(product.out, row), y) : y);
    }
  }
}

void SimOps::Adapt(const EntriesView& entries, const AdapterPages& pages, int32_t site, SiteShape shape) {
  for (int32_t segment = 0; segment < entries.segments; ++segment) {
    const int32_t slot = entries.segment_slot[segment];
    ++counters_.page_table_reads;
    if (slot < 0 || pages.slots[slot].sites == nullptr)
      Fail("memory", "a row names slot %d, in which no adapter is", slot);
    if (pages.slots[slot].sites[site].rank == 0) continue;
    ++counters_.lora_ops;
    const uint64_t delta = DeltaOf(pages, slot, site, shape);
    for (int32_t e = entries.segment_start[segment]; e < entries.segment_start[segment + 1]; ++e) {
      uint64_t& y = y_[static_cast<size_t>(entries.entry_row[e])];
      y = Adapted(y, delta, entries.entry_weight[e]);
    }
  }
}

uint64_t SimOps::DeltaOf(const AdapterPages& pages, int32_t slot, int32_t site, SiteShape shape) {
  const SlotPages& slot_pages = pages.slots[slot];
  const SitePages& site_pages = slot_pages.sites[site];
  uint64_t delta = DeltaSeed(site_pages.rank, site_pages.scale);
  for (int matrix = 0; matrix < 2; ++matrix) {
    const uint32_t first = matrix == 0 ? site_pages.a : site_pages.b;
    const auto read = [&](uint32_t run, int32_t ranks, int64_t column) {
      const TilePlace place = TileAt(slot_pages.runs[first + run], column);
      const uint8_t* const frame = pages.pool + int64_t{slot_pages.frames[place.frame]} * pages.frame_bytes;
      uint64_t value;
      std::memcpy(&value, frame + TileUnitOffset(place, ranks, matrix, column), sizeof(value));
      delta = Mix(delta, value);
      counters_.lora_bytes_read += static_cast<uint64_t>(TileUnitBytes(ranks, matrix));
    };
    ForEachTileUnit(site_pages.rank, matrix == 0 ? shape.in : shape.out, matrix, read);
  }
  return delta;
}

void SimOps::RopeTable(const RowsView& rows, const RopeFrequencies&, const TensorView& cos_sin) {
  for (int32_t row = 0; row < rows.rows; ++row)
    Put(cos_sin, row, Rotation(rows.row_pos[row], rows.row_is_long != nullptr && rows.row_is_long[row] != 0));
}

void SimOps::Rope(const TensorView& x, int32_t, int32_t, const TensorView& cos_sin) {
  for (int64_t row = 0; row < x.rows; ++row) Put(x, row, Mix(Get(x, row), Get(cos_sin, row)));
}

void SimOps::KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv, int32_t layer) {
  for (int32_t row = 0; row < rows.rows; ++row) {
    const int32_t position = rows.row_pos[row];
    *SlotOf(kv, rows.row_sequence[row], position, layer) = {Mix(Get(k, row), Get(v, row)), position, layer};
  }
}

uint64_t SimOps::Attended(const KvView& kv, int32_t sequence, int32_t position, int32_t layer) {
  const KvSlot slot = *SlotOf(kv, sequence, position, layer);
  if (slot.position != position || slot.layer != layer)
    Fail("memory", "the slot of position %d in layer %d holds position %d of layer %d, frame %u", position, layer,
         slot.position, slot.layer, kv.FrameIndex(sequence, position / kv.frame_tokens, layer));
  return slot.digest;
}

void SimOps::Attention(const AttentionArgs& args) {
  const RowsView& rows = args.rows;
  uint64_t digest = kAttentionSeed;
  int32_t next = 0;
  for (int32_t row = 0; row < rows.rows; ++row) {
    const int32_t sequence = rows.row_sequence[row], position = rows.row_pos[row];
    const bool goes_on = row > 0 && rows.row_sequence[row - 1] == sequence && next <= position;
    if (!goes_on) {
      digest = kAttentionSeed;
      next = 0;
    }
    for (; next <= position; ++next) digest = Mix(digest, Attended(args.kv, sequence, next, args.layer));
    Put(args.out, row, Mix(Get(args.q, row), digest));
  }
}

void SimOps::GatedActivation(Activation, const TensorView& gate, const TensorView& up) {
  for (int64_t row = 0; row < gate.rows; ++row) Put(gate, row, Mix(Get(gate, row), Get(up, row)));
}

void SimOps::AddScaled(const TensorView& x, float, const TensorView& out) {
  for (int64_t row = 0; row < x.rows; ++row) Put(out, row, Mix(Get(out, row), Get(x, row)));
}

void SimOps::SoftCap(const TensorView&, float) {}

void SimOps::GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) {
  for (size_t i = 0; i < rows.size(); ++i) Put(out, static_cast<int64_t>(i), Get(x, rows[i]));
}

void SimOps::Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t digest = Get(logits, static_cast<int64_t>(i));
    SampleResult& result = results[i];
    result.token = rows[i].target >= 0 ? rows[i].target : Drawn(digest, rows[i], static_cast<int32_t>(logits.cols));
    result.logprob = LogprobOf(digest, result.token);
    result.top_count = std::max(0, rows[i].logprobs);
    for (int32_t top = 0; top < result.top_count; ++top) {
      result.top_token[top] = top;
      result.top_logprob[top] = LogprobOf(digest, top);
    }
  }
}

}  // namespace openlora::sim
