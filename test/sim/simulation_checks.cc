#include <algorithm>
#include <cstdio>

#include "sim/simulation.h"

namespace openlora::sim {

void Simulator::CheckState() {
  if (options_.asks_engine) {
    const Status sound = core_.CheckInvariants();
    if (!sound.ok()) Fail("invariants", "%s", sound.message().c_str());
  }
  const FramePool& pool = core_.pool();
  int64_t sum = 0;
  for (int use = 0; use < kFrameUses; ++use) sum += pool.frames(static_cast<FrameUse>(use));
  if (!pool.IsConsistent() || sum != pool.frames_total())
    Fail("frames", "the uses add up to %lld of %lld frames, or the free list is wrong", static_cast<long long>(sum),
         static_cast<long long>(pool.frames_total()));
  CheckOwners();
  CheckStats();
  wait_share_ = std::max(wait_share_, witness_->CheckWatched(steps_));
}

// Of adapters: each has what it needs in its state, nobody has another's frame or slot.
void Simulator::CheckOwners() const {
  std::vector<bool> is_owned(static_cast<size_t>(core_.pool().frames_total()));
  std::map<int32_t, int64_t> slots;
  int64_t loading = 0;
  for (const auto& [handle, adapter] : core_.residency().adapters()) {
    const bool has_frames = adapter->state == AdapterState::kLoading || adapter->state == AdapterState::kResident;
    loading += adapter->state == AdapterState::kLoading ? 1 : 0;
    bool is_sound = adapter->frames.size() == static_cast<size_t>(has_frames ? adapter->frames_needed : 0);
    for (const uint32_t frame : adapter->frames) {
      is_sound &= !is_owned[frame];
      is_owned[frame] = true;
    }
    if (adapter->state == AdapterState::kResident)
      is_sound &= adapter->slot >= 0 && slots.emplace(adapter->slot, handle).second;
    if (!is_sound)
      Fail("frames", "adapter %lld in state %d holds %zu frames of %lld in slot %d, or another's",
           static_cast<long long>(handle), static_cast<int>(adapter->state), adapter->frames.size(),
           static_cast<long long>(adapter->frames_needed), adapter->slot);
  }
  const auto loads = std::count_if(jobs_.begin(), jobs_.end(),
                                   [](const auto& job) { return job.second.asked.task == LoaderTask::kLoad; });
  if (loading != loads)
    Fail("loads", "%lld adapters load, the loader loads %lld", static_cast<long long>(loading),
         static_cast<long long>(loads));
}

void Simulator::CheckStats() {
  const EngineStats stats = core_.Stats();
  const FramePool& pool = core_.pool();
  const bool is_right =
      stats.requests_queued + stats.requests_running == core_.requests() && stats.rows == ops_->rows_computed() &&
      stats.adapter_loads - stats.adapter_evictions == static_cast<uint64_t>(stats.adapters_resident) &&
      stats.bytes_pool == pool.frames_total() * kFrameBytes &&
      stats.bytes_kv + stats.bytes_adapters + stats.bytes_pool_free <= stats.bytes_pool &&
      stats.steps >= last_stats_.steps && stats.tokens_out >= last_stats_.tokens_out &&
      stats.tokens_out >= static_cast<uint64_t>(witness_->counts().tokens);
  last_stats_ = stats;
  if (!is_right)
    Fail("counters", "queued %lld, running %lld of %lld; rows %llu of %llu; loads %llu, evictions %llu, resident %lld",
         static_cast<long long>(stats.requests_queued), static_cast<long long>(stats.requests_running),
         static_cast<long long>(core_.requests()), static_cast<unsigned long long>(stats.rows),
         static_cast<unsigned long long>(ops_->rows_computed()), static_cast<unsigned long long>(stats.adapter_loads),
         static_cast<unsigned long long>(stats.adapter_evictions), static_cast<long long>(stats.adapters_resident));
}

// Nothing runs: what is left are names, and then not even those.
void Simulator::CheckDrained() {
  for (const auto& [handle, adapter] : core_.residency().adapters()) {
    if (adapter->pins != 0 || adapter->references != 0)
      Fail("drained", "adapter %lld is left with %d pins and %d references", static_cast<long long>(handle),
           adapter->pins, adapter->references);
  }
  for (const auto& [handle, generation] : catalog_.generations()) {
    if (!generation->is_hidden) Unregister(generation.get());
  }
  Step();
  Read();
  for (const auto& [handle, generation] : catalog_.generations()) {
    if (!generation->has_ended) Fail("terminal events", "adapter %lld never went", static_cast<long long>(handle));
  }
  const FramePool& pool = core_.pool();
  if (!core_.residency().adapters().empty() || pool.frames(FrameUse::kKv) + pool.frames(FrameUse::kAdapter) != 0)
    Fail("drained", "%zu adapters, %lld KV and %lld adapter frames are left", core_.residency().adapters().size(),
         static_cast<long long>(pool.frames(FrameUse::kKv)), static_cast<long long>(pool.frames(FrameUse::kAdapter)));
  if (last_stats_.tokens_out != static_cast<uint64_t>(witness_->counts().tokens))
    Fail("counters", "%llu tokens were generated, %lld were read",
         static_cast<unsigned long long>(last_stats_.tokens_out), static_cast<long long>(witness_->counts().tokens));
}

// Who holds what.
std::string Simulator::State() const {
  char text[200];
  const FramePool& pool = core_.pool();
  std::snprintf(text, sizeof(text), "frames: %lld free, %lld KV, %lld prefix, %lld of adapters, %lld retiring; pinned:",
                static_cast<long long>(pool.frames_free()), static_cast<long long>(pool.frames(FrameUse::kKv)),
                static_cast<long long>(pool.frames(FrameUse::kPrefix)),
                static_cast<long long>(pool.frames(FrameUse::kAdapter)),
                static_cast<long long>(pool.frames(FrameUse::kRetiring)));
  std::string state = text;
  for (const auto& [handle, adapter] : core_.residency().adapters()) {
    if (adapter->pins == 0) continue;
    std::snprintf(text, sizeof(text), " %lld (%zu frames, %d times)", static_cast<long long>(handle),
                  adapter->frames.size(), adapter->pins);
    state += text;
  }
  return state + "\n";
}

std::string Simulator::Report(const SimFailure& failure) const {
  const auto seed = static_cast<unsigned long long>(options_.seed);
  const auto steps = static_cast<long long>(options_.steps);
  char head[200];
  std::snprintf(head, sizeof(head), "seed %llu, step %lld, %.3f ms: %s: ", seed, static_cast<long long>(steps_),
                NowMs() - 1000, failure.check.c_str());
  char replay[100];
  std::snprintf(replay, sizeof(replay), "replay: openlora_sim --seed %llu --steps %lld --plant %d\n", seed, steps,
                static_cast<int>(options_.plant));
  return head + failure.message + "\n" + Describe(scenario_) + "\n" + State() + trace_.Last() + replay;
}

}  // namespace openlora::sim
