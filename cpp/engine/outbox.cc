#include "engine/outbox.h"

#include <bit>
#include <cstring>
#include <iterator>

namespace openlora {
namespace {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

template <typename T>
void Put(std::vector<uint8_t>* bytes, T value) {
  static_assert(sizeof(T) == 4);
  const size_t at = bytes->size();
  bytes->resize(at + 4);
  std::memcpy(bytes->data() + at, &value, 4);
}

void AppendAll(EventBatch* from, EventBatch* to) {
  to->records.insert(to->records.end(), from->records.begin(), from->records.end());
  to->events.insert(to->events.end(), std::make_move_iterator(from->events.begin()),
                    std::make_move_iterator(from->events.end()));
  from->records.clear();
  from->events.clear();
}

}  // namespace

void Outbox::PushRecord(RecordKind kind, int64_t request, const SampleResult& result, bool has_logprob,
                        std::string_view text) {
  const auto top = static_cast<uint32_t>(has_logprob ? result.top_count : 0);
  const auto text_bytes = static_cast<uint32_t>(text.size());
  const uint32_t text_padded = (text_bytes + 3) / 4 * 4;
  std::vector<uint8_t>& records = gathering_.records;
  Put(&records, 32 + top * 8 + text_padded);
  Put(&records, static_cast<uint32_t>(request));
  Put(&records, static_cast<uint32_t>(kind));
  Put(&records, result.token);
  Put(&records, has_logprob ? result.logprob : 0.0f);
  Put(&records, top);
  Put(&records, text_bytes);
  Put(&records, uint32_t{has_logprob});
  for (uint32_t i = 0; i < top; ++i) {
    Put(&records, result.top_token[i]);
    Put(&records, result.top_logprob[i]);
  }
  records.insert(records.end(), text.begin(), text.end());
  records.resize(records.size() + text_padded - text_bytes);
}

void Outbox::Push(ControlEvent event) { gathering_.events.push_back(std::move(event)); }

void Outbox::Flush() {
  if (gathering_.records.empty() && gathering_.events.empty()) return;
  bool wakes = false;
  {
    const std::lock_guard lock(mutex_);
    AppendAll(&gathering_, &pending_);
    wakes = !is_woken_;
    is_woken_ = true;
  }
  if (wakes) wake_();
}

void Outbox::PushNow(ControlEvent event) {
  bool wakes = false;
  {
    const std::lock_guard lock(mutex_);
    pending_.events.push_back(std::move(event));
    wakes = !is_woken_;
    is_woken_ = true;
  }
  if (wakes) wake_();
}

EventBatch Outbox::Take() {
  const std::lock_guard lock(mutex_);
  is_woken_ = false;
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  EventBatch taken = std::move(pending_);
  pending_ = {};
  return taken;
}

}  // namespace openlora
