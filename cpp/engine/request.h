#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "ops/ops.h"

namespace openlora {

struct AdapterUse {
  int64_t handle = 0;
  float weight = 1;
};

// What submit copies out of JavaScript. Ids are the caller's, > 0, never used twice.
struct Request {
  int64_t id = 0;
  std::vector<int32_t> tokens;
  std::vector<AdapterUse> adapters;  // in the request's order
  int32_t max_tokens = 0;
  int32_t min_tokens = 0;
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;  // of the prompt's tokens and the output's
  float presence_penalty = 0;    // of the output's
  float frequency_penalty = 0;
  std::vector<TokenBias> logit_bias;
  uint64_t seed = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_tokens;
  std::vector<int32_t> eos_tokens;
  int32_t logprobs = -1;
  int32_t prompt_logprobs = -1;
  std::string tenant;      // whose it is; empty: nobody's. Service is shared among tenants
  std::string cache_salt;  // who may share its prefix; empty: its tenant's
  int32_t priority = 0;    // of its tenant's requests, larger goes first
  double deadline_ms = 0;  // from submission; 0: none
  double submitted_ms = 0;

  bool has_penalties() const { return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0; }
};

enum class FinishReason : uint8_t { kEos, kStop, kLength, kCancelled };
enum class Tier : uint8_t { kRegistered, kHost, kLoading, kResident };
inline constexpr int kTiers = 4;
// What is asked for ahead of requests: an adapter in the host tier; in frames; in frames, and never evicted.
enum class HoldKind : uint8_t { kHost, kDevice, kPin };

inline constexpr char kErrInvalidRequest[] = "ERR_INVALID_REQUEST";
inline constexpr char kErrTokenRange[] = "ERR_TOKEN_RANGE";
inline constexpr char kErrContextLength[] = "ERR_CONTEXT_LENGTH";
inline constexpr char kErrOverloaded[] = "ERR_OVERLOADED";
inline constexpr char kErrAdapterNotFound[] = "ERR_ADAPTER_NOT_FOUND";
inline constexpr char kErrDeadline[] = "ERR_DEADLINE";
inline constexpr char kErrNotFinite[] = "ERR_LOGITS_NOT_FINITE";
inline constexpr char kErrEngineStalled[] = "ERR_ENGINE_STALLED";
inline constexpr char kErrClosed[] = "ERR_CLOSED";
inline constexpr char kErrLimits[] = "ERR_LIMITS";
inline constexpr char kErrAdapterPinned[] = "ERR_ADAPTER_PIN_LIMIT";
inline constexpr char kErrHostMemory[] = "ERR_ADAPTER_HOST_LIMIT";
inline constexpr char kWarnAdapterCache[] = "WARN_ADAPTER_CACHE";

// What happened, besides tokens. One EndEvent or FailedEvent for each submitted request.
enum class LoadPhase : int32_t { kWeights, kPack, kCache };
struct ProgressEvent {
  LoadPhase phase = LoadPhase::kWeights;
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
};
struct OpenedEvent {
  std::string digest;
  std::string simd;
  int32_t threads = 0;
  int64_t weight_bytes = 0;
  int64_t pool_bytes = 0;
  int64_t frame_bytes = 0;
  int32_t max_context = 0;
  bool is_from_cache = false;  // the weights
  std::string cache_warning;   // empty: the cache, if there is one, was read or written
};
struct OpenFailedEvent {
  Status status;
};
struct AdapterReadyEvent {
  int64_t handle = 0;
  std::string generation;
  int64_t bytes = 0;
};
struct AdapterFailedEvent {
  int64_t handle = 0;
  Status status;
};
struct AdapterRetiredEvent {
  int64_t handle = 0;
};
// The answer to Hold.
struct AdapterHeldEvent {
  int64_t ticket = 0;
  Status status;
};
// What is no error, and somebody should see.
struct WarningEvent {
  Status status;
};
struct EndEvent {
  int64_t request = 0;
  FinishReason reason = FinishReason::kLength;
  int32_t input = 0;
  int32_t output = 0;
  int32_t cached_input = 0;
  double queued_ms = 0;
  double adapter_load_ms = 0;
  double ttft_ms = 0;
  double tpot_ms = 0;
  struct AdapterTier {
    int64_t handle = 0;
    Tier tier = Tier::kRegistered;
  };
  std::vector<AdapterTier> adapters;
};
struct FailedEvent {
  int64_t request = 0;
  Status status;
};
struct ClosedEvent {
  Status status;  // why, if nobody asked for it
};

using ControlEvent =
    std::variant<ProgressEvent, OpenedEvent, OpenFailedEvent, AdapterReadyEvent, AdapterFailedEvent,
                 AdapterRetiredEvent, AdapterHeldEvent, WarningEvent, EndEvent, FailedEvent, ClosedEvent>;

struct EngineStats {
  uint64_t steps = 0;
  uint64_t tokens_in = 0;
  uint64_t tokens_out = 0;
  uint64_t rows = 0;
  uint64_t weight_bytes_read = 0;
  uint64_t lora_bytes_read = 0;
  uint64_t lora_ops = 0;
  uint64_t page_table_reads = 0;
  uint64_t preemptions = 0;
  uint64_t prefix_tokens_looked_up = 0;  // of prompts
  uint64_t prefix_tokens_found = 0;      // of these
  GraphCounters graphs;
  uint64_t adapter_loads = 0;
  uint64_t adapter_evictions = 0;
  uint64_t adapter_packs = 0;                   // pack files made
  uint64_t adapter_bytes_read = 0;              // of packs and sources
  std::array<uint64_t, kTiers> adapter_hits{};  // adapters of accepted requests, by the tier they were found in
  int64_t requests_queued = 0;
  int64_t requests_running = 0;
  int64_t adapters_resident = 0;
  int64_t adapters_host = 0;
  int64_t bytes_base = 0;
  int64_t bytes_kv = 0;      // that sequences hold, each frame once
  int64_t bytes_prefix = 0;  // that nobody holds at present
  int64_t bytes_adapters = 0;
  int64_t bytes_host_adapters = 0;
  int64_t bytes_pinned = 0;
  int64_t bytes_workspace = 0;
  int64_t bytes_pool_free = 0;
  int64_t bytes_pool = 0;
};

}  // namespace openlora
