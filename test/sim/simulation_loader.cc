#include <cstring>

#include "sim/simulation.h"

// The loader as the engine sees it: jobs take their time, in any order, fail or are dropped.

namespace openlora::sim {

void Simulator::Start(LoaderJob asked) {
  const int64_t id = next_job_++;
  const Generation& generation = *catalog_.Find(asked.handle);
  Job job;
  job.fails = random_.Chance(asked.task == LoaderTask::kCheck ? scenario_.check_fails : scenario_.load_fails);
  double ms = Some(scenario_.check_ms);
  if (asked.task != LoaderTask::kCheck) {
    std::erase_if(jobs_, [&](const auto& other) {
      return other.second.asked.handle == asked.handle && other.second.asked.task == LoaderTask::kPrepare;
    });
    const double slow = random_.Chance(0.1) ? kSlowestLoad : 1;
    ms = static_cast<double>(generation.frames) * scenario_.load_ms * slow * random_.Uniform();
  }
  if (asked.task == LoaderTask::kLoad)
    job.layout = PlanTiles(ManifestOf(*generation.content, "name"), catalog_.shapes(), core_.residency().format());
  trace_.Note(steps_, asked.task == LoaderTask::kLoad ? "load: job, handle" : "check or prepare: job, handle", id,
              asked.handle);
  job.asked = std::move(asked);
  jobs_[id] = std::move(job);
  Schedule(ms / 2, Kind::kHalfDone, id);
  Schedule(ms, Kind::kDone, id);
}

bool Simulator::LoadNow(const LoaderJob& job, LoaderResult* result) {
  const bool is_cached = random_.Chance(0.7);
  trace_.Note(steps_, is_cached ? "loaded at once: handle" : "not in the page cache: handle", job.handle);
  const TileContent& content = *catalog_.Find(job.handle)->content;
  TileLayout layout = PlanTiles(ManifestOf(content, "name"), catalog_.shapes(), core_.residency().format());
  FillFrames(content, layout, job.frames, core_.pool(), catalog_.shapes(), 0);
  if (!is_cached) return false;
  FillFrames(content, layout, job.frames, core_.pool(), catalog_.shapes(), 1);
  result->task = LoaderTask::kLoad;
  result->handle = job.handle;
  result->has_pack = true;
  result->loaded.layout = std::move(layout);
  return true;
}

void Simulator::Drop(int64_t handle) {
  trace_.Note(steps_, "drop jobs of handle", handle);
  std::erase_if(jobs_, [handle](const auto& job) {
    return job.second.asked.handle == handle && job.second.asked.task == LoaderTask::kPrepare;
  });
  for (auto& [id, job] : jobs_) {
    if (job.asked.handle != handle || job.asked.task != LoaderTask::kLoad) continue;
    job.is_dropped = true;
    Schedule(Some(1), Kind::kDone, id);
  }
}

bool Simulator::HalfDo(int64_t id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.asked.task != LoaderTask::kLoad) return false;
  const Job& job = found->second;
  FillFrames(*catalog_.Find(job.asked.handle)->content, job.layout, job.asked.frames, core_.pool(), catalog_.shapes(),
             0);
  return false;
}

bool Simulator::EndJob(int64_t id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return false;  // dropped, or ended before its time
  Job job = std::move(found->second);
  jobs_.erase(found);
  LoaderResult result;
  result.task = job.asked.task;
  result.handle = job.asked.handle;
  if (job.is_dropped) {
    result.status = Status(kErrAborted, "nobody waits for it");
  } else if (job.fails) {
    const bool is_check = result.task == LoaderTask::kCheck;
    if (result.task == LoaderTask::kLoad) witness_->NoteFailedLoad(result.handle);
    result.status = Status(is_check ? kErrAdapterShape : kErrAdapterChanged, "as the simulator wants it");
  }
  if (result.task == LoaderTask::kCheck) {
    EndCheck(std::move(result), *job.asked.manifest);
    return true;
  }
  result.has_pack = result.status.ok();
  if (result.task == LoaderTask::kLoad && result.status.ok()) {
    FillFrames(*catalog_.Find(result.handle)->content, job.layout, job.asked.frames, core_.pool(), catalog_.shapes(),
               1);
    result.loaded.layout = std::move(job.layout);
  }
  core_.FinishLoader(std::move(result));
  return true;
}

void Simulator::EndCheck(LoaderResult result, const AdapterManifest& manifest) {
  Generation* const generation = catalog_.Find(result.handle);
  if (!result.status.ok()) {
    generation->is_hidden = true;
    return core_.FinishLoader(std::move(result));
  }
  const TileLayout layout = PlanTiles(manifest, catalog_.shapes(), core_.residency().format());
  std::memcpy(result.content.generation.data(), &generation->content->digest, sizeof(uint64_t));
  // The simulator is the store, so what stands here as the pack's key is its own affair: the name, for kPrefixByName.
  std::memcpy(result.content.key.data(), &generation->name, sizeof(int32_t));
  result.content.frames = generation->frames = layout.frames;
  result.content.bytes = layout.bytes;
  result.content.pack_bytes = layout.frames * kFrameBytes;
  generation->is_ready = true;
  core_.FinishLoader(std::move(result));
  if (generation->is_hidden) return;
  Generation* const current = catalog_.Current(generation->name);
  const bool is_late = current != nullptr && current->handle > generation->handle;
  Generation* const superseded = is_late ? generation : catalog_.Publish(generation);
  if (superseded != nullptr) Unregister(superseded);
}

}  // namespace openlora::sim
