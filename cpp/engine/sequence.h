#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/seen_tokens.h"
#include "engine/text_stream.h"
#include "memory/adapter_residency.h"
#include "memory/kv_cache.h"
#include "ops/ops.h"

namespace openlora {

struct Flow;
struct Tenant;

// By whose turn a sequence was planned (FairQueue): that of its flow, and so of its tenant; of its tenant, of which it
// is the oldest; as the oldest of all.
enum class TurnOf { kNobody, kOldest, kTenant, kFlow };

// A request that the engine has accepted, until its end. It catches its computed tokens up to its known tokens; there
// is no prefill phase and no decode phase.
struct Sequence {
  Request request;
  uint64_t arrival = 0;            // order of acceptance
  std::vector<int32_t> tokens;     // known: the prompt and what was generated
  int32_t computed = 0;            // tokens whose KV is stored
  int32_t scored = 0;              // prompt tokens whose logprob was reported, when asked for
  std::vector<Adapter*> adapters;  // in the request's order; referenced until the end
  KvTable kv;
  std::string prefix_realm;  // all that its KV depends on beside its tokens, and who may share it
  bool was_looked_up = false;
  int32_t cached_input = 0;  // tokens of the prompt whose KV was found before the first token of the answer
  TextStream text;
  std::vector<TokenBias> early_bias;  // until min_tokens: the request's, and EOS and stop tokens forbidden
  SeenTokens seen;                    // empty for a request without penalties

  Flow* flow = nullptr;              // whose service it counts as: FairQueue
  int32_t charged = 0;               // tokens that were counted; those computed again after a preemption are not
  bool is_admitted = false;          // has rows in steps
  TurnOf turn_of = TurnOf::kNobody;  // when it was last planned while it waited
  double turn = 0;                   // what its tenant had had when it was admitted
  double cost = 0;                   // what its tenant was charged for it since
  int32_t steps_passed = 0;          // since it last had rows
  bool has_pins = false;             // its adapters' frames are reserved for it
  int32_t take_backs = 0;            // of its reservation, by others
  bool was_preempted = false;
  int32_t gives_way_from = 0;  // known tokens from which it may be preempted for a tenant that holds less
  bool is_paused = false;
  bool is_cancelled = false;
  bool is_long = false;  // has more tokens than ModelConfig::rope_switch: its KV is of the long frequencies

  // Undelivered records: counted since the outbox was last emptied (Outbox::epoch).
  uint64_t delivery_epoch = 0;
  int32_t undelivered = 0;

  std::vector<Tier> tiers;  // of adapters, when accepted
  double admitted_ms = 0;
  double adapters_ready_ms = 0;
  double first_token_ms = 0;

  int32_t known() const { return static_cast<int32_t>(tokens.size()); }
  int32_t prompt() const { return static_cast<int32_t>(request.tokens.size()); }
  int32_t output() const { return known() - prompt(); }
  // Its next row goes on with an answer: all else is computed. Else it is at its prompt, or what it lost of it.
  bool is_continuing() const { return known() - computed == 1; }
  // Prompt logprobs are wanted and some are missing: those of positions [scored, prompt() - 1) are still to come.
  bool is_scoring() const { return request.prompt_logprobs >= 0 && scored < prompt() - 1; }
};

// Rows of one sequence in one step: tokens [computed, computed + rows), computed as it is once the hit is booked.
struct PlannedRows {
  Sequence* sequence = nullptr;
  int32_t rows = 0;
  PrefixHit hit;  // blocks to share from now on; no tail: those that it has
};

}  // namespace openlora
