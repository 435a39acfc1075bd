#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "ops/ops.h"

namespace openlora {

enum class RecordKind : uint32_t { kToken, kPrompt, kText };

// What the reader takes at once. `records` are packed as src/native/binding.ts describes; those of a request stand
// before its end.
struct EventBatch {
  std::vector<uint8_t> records;
  std::vector<ControlEvent> events;
};

// Carries what happened from the engine's threads to one reader, which is woken once for all that has gathered since it
// last looked, not once per token.
class Outbox {
 public:
  // `wake` is called from the engine's threads; the reader then calls Take, soon or late.
  explicit Outbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  // Writers gather in Push* and hand over with Flush.
  void PushRecord(RecordKind kind, int64_t request, const SampleResult& result, bool has_logprob,
                  std::string_view text);
  void Push(ControlEvent event);
  void Flush();
  // The same from another thread than the engine's: hands over at once.
  void PushNow(ControlEvent event);

  // Reader. Everything handed over so far.
  EventBatch Take();
  // Grows with each Take: what was handed over under an older epoch has been delivered.
  uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }

 private:
  std::function<void()> wake_;
  EventBatch gathering_;  // engine thread
  std::mutex mutex_;
  EventBatch pending_;
  bool is_woken_ = false;
  std::atomic<uint64_t> epoch_{1};
};

}  // namespace openlora
