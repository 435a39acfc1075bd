#include "engine/adapter_loader.h"

#include <algorithm>
#include <string_view>

#include "base/guarded.h"
#include "base/thread_priority.h"

namespace openlora {
namespace {

// Ranks of the reader's line. Of the packer's: loads, and what is prepared.
constexpr size_t kFromHost = 0, kFromDisk = 1, kToHost = 2;
// Of so many that one thread does, the last is of the highest rank that waits.
constexpr uint64_t kTurns = 8;

}  // namespace

LoaderResult DoLoaderJob(AdapterStore* store, const FramePool& pool, const LoaderJob& job, const Pace& pace,
                         const std::atomic<bool>& is_cancelled, StoreReport* report) {
  LoaderResult result;
  result.task = job.task;
  result.handle = job.handle;
  result.status = Guarded([&] {
    switch (job.task) {
      case LoaderTask::kCheck:
        return store->Check(*job.manifest, is_cancelled, &result.content);
      case LoaderTask::kPrepare:
        return store->Prepare(job.content, pace, report);
      case LoaderTask::kLoad:
        break;
    }
    return store->Load(job.content, job.frames, pool, pace, &result.loaded, report);
  });
  result.has_pack = report->has_pack;
  result.has_built = report->has_built;
  result.bytes_read = report->bytes_read;
  result.warning = report->warning;
  return result;
}

bool AdapterLoader::LoadNow(const LoaderJob& job, LoaderResult* result) {
  StoreReport report;
  report.reads_only = report.is_cached_only = true;
  *result = DoLoaderJob(store_, *pool_, job, [](int64_t) { return true; }, is_stopping_, &report);
  return result->status.ok();
}

void AdapterLoader::Line::Add(WorkPtr work, size_t rank, bool is_first) {
  {
    const std::lock_guard lock(mutex_);
    std::deque<WorkPtr>& queue = queued_[rank];
    queue.insert(is_first ? queue.begin() : queue.end(), std::move(work));
  }
  items_.release();
}

void AdapterLoader::Line::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
  }
  items_.release();
}

bool AdapterLoader::Line::Next(WorkPtr* work) {
  {
    const std::lock_guard lock(mutex_);
    current_.reset();
  }
  items_.acquire();
  const std::lock_guard lock(mutex_);
  work->reset();
  if (is_stopped_) return false;
  const auto has_work = [](const std::deque<WorkPtr>& queue) { return !queue.empty(); };
  const auto first = std::find_if(queued_.begin(), queued_.end(), has_work);
  if (first == queued_.end()) return true;
  const auto last = std::find_if(queued_.rbegin(), queued_.rend(), has_work);
  is_turn_of_last_ = ++taken_ % kTurns == 0;
  std::deque<WorkPtr>& queue = is_turn_of_last_ ? *last : *first;
  *work = current_ = std::move(queue.front());
  queue.pop_front();
  return true;
}

bool AdapterLoader::Line::ShouldGiveWay(size_t rank) const {
  const std::lock_guard lock(mutex_);
  return !is_turn_of_last_ && std::any_of(queued_.begin(), queued_.begin() + static_cast<std::ptrdiff_t>(rank),
                                          [](const std::deque<WorkPtr>& queue) { return !queue.empty(); });
}

void AdapterLoader::Line::Drop(int64_t handle) {
  const std::lock_guard lock(mutex_);
  if (current_ != nullptr && current_->job.handle == handle) current_->is_dropped = true;
  for (const std::deque<WorkPtr>& queue : queued_) {
    for (const WorkPtr& work : queue) {
      if (work->job.handle == handle) work->is_dropped = true;
    }
  }
}

void AdapterLoader::Line::DropQueuedPrepare(int64_t handle) {
  const std::lock_guard lock(mutex_);
  for (const std::deque<WorkPtr>& queue : queued_) {
    for (const WorkPtr& work : queue) {
      if (work->job.handle == handle && work->job.task == LoaderTask::kPrepare) work->is_dropped = true;
    }
  }
}

AdapterLoader::AdapterLoader(AdapterStore* store, const FramePool* pool, std::function<void(LoaderResult)> on_result)
    : store_(store), pool_(pool), on_result_(std::move(on_result)) {
  try {
    threads_[0] = std::thread([this] { Main(&checks_); });
    threads_[1] = std::thread([this] { Main(&reads_); });
    threads_[2] = std::thread([this] { Main(&packs_); });
    threads_[3] = std::thread([this] { MainIdle(); });
  } catch (...) {
    Stop();
    throw;  // std::system_error: the engine's thread has it guarded
  }
}

AdapterLoader::~AdapterLoader() { Stop(); }

void AdapterLoader::Stop() {
  is_stopping_ = true;
  budget_.Set(UploadBudget::kUnlimited);
  for (Line* line : {&checks_, &reads_, &packs_}) line->Stop();
  idle_items_.release();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void AdapterLoader::Start(LoaderJob job) {
  auto work = std::make_shared<Work>();
  work->job = std::move(job);
  const LoaderJob& of = work->job;
  if (of.task == LoaderTask::kCheck) return checks_.Add(std::move(work), 0);
  DropIdle(of.handle);
  if (of.task == LoaderTask::kLoad) {
    // A load does all that a preparation does. One that is under way goes on: the load comes right behind it.
    reads_.DropQueuedPrepare(of.handle);
    packs_.DropQueuedPrepare(of.handle);
    if (!of.content.has_pack) return packs_.Add(std::move(work), 0);
    return reads_.Add(work, of.is_host ? kFromHost : kFromDisk);
  }
  if (of.is_waited) return of.content.has_pack ? reads_.Add(work, kToHost) : packs_.Add(work, 1);
  idle_[of.handle] = work;
  if (idle_.size() > idle_known_max_) {
    std::erase_if(idle_, [](const auto& entry) { return entry.second.expired(); });
    idle_known_max_ = std::max(kIdleKnownMin, 2 * idle_.size());
  }
  idle_work_.Push(std::move(work));
  idle_items_.release();
}

void AdapterLoader::Drop(int64_t handle) {
  reads_.Drop(handle);
  packs_.Drop(handle);
  DropIdle(handle);
  budget_.Poke();
}

void AdapterLoader::DropIdle(int64_t handle) {
  const auto found = idle_.find(handle);
  if (found == idle_.end()) return;
  if (const WorkPtr work = found->second.lock()) work->is_dropped = true;
  idle_.erase(found);
}

void AdapterLoader::DropFromPageCache(const AdapterContent& content) {
  auto work = std::make_shared<Work>();
  work->chore = [this, content] { store_->DropFromPageCache(content); };
  reads_.Add(std::move(work), kToHost);
}

void AdapterLoader::ReadAhead(const Sha256::Digest& key) {
  auto work = std::make_shared<Work>();
  work->chore = [this, key] { store_->ReadAhead(key); };
  reads_.Add(std::move(work), kFromHost);
}

void AdapterLoader::Discard(const AdapterContent& content) {
  auto work = std::make_shared<Work>();
  work->chore = [this, content] { store_->Discard(content); };
  checks_.Add(std::move(work), 1);
}

void AdapterLoader::Main(Line* line) {
  WorkPtr work;
  while (line->Next(&work)) {
    if (line == &packs_) ForwardIdle();
    if (work == nullptr) continue;
    if (work->chore) {
      work->chore();
    } else {
      Do(line, work);
    }
    work.reset();
  }
}

void AdapterLoader::Do(Line* line, const WorkPtr& work) {
  const LoaderJob& job = work->job;
  const bool is_reading_ahead = line == &reads_ && job.task == LoaderTask::kPrepare;
  bool has_given_way = false;
  const Pace pace = [&](int64_t bytes) {
    // What only fills the page cache lets others pass, and finds again what it has read.
    has_given_way = is_reading_ahead && line->ShouldGiveWay(kToHost);
    return !has_given_way && budget_.Take(bytes, [&] { return IsOver(*work); });
  };
  StoreReport report;
  report.reads_only = line == &reads_;
  LoaderResult result;
  if (IsOver(*work) && job.task != LoaderTask::kCheck) {
    result.task = job.task;
    result.handle = job.handle;
    result.status = Status(kErrAborted, "nobody waits for it");
  } else {
    result = DoLoaderJob(store_, *pool_, job, pace, is_stopping_, &report);
  }
  if (report.needs_pack) return packs_.Add(work, job.task == LoaderTask::kLoad ? 0 : 1);
  if (IsAborted(result.status) && has_given_way && !IsOver(*work)) return line->Add(work, kToHost, true);
  // Who dropped a preparation doesn't count on its result, and may have begun another.
  if (job.task != LoaderTask::kPrepare || !IsAborted(result.status)) on_result_(std::move(result));
  store_->Settle(&report);
}

void AdapterLoader::MainIdle() {
  MakeThreadIdle();
  while (!is_stopping_) {
    idle_items_.acquire();
    for (const WorkPtr& work : idle_work_.TakeAll()) {
      const Pace pace = [&](int64_t) { return !IsOver(*work); };
      if (IsOver(*work)) continue;
      StoreReport report;
      LoaderResult result = DoLoaderJob(store_, *pool_, work->job, pace, is_stopping_, &report);
      if (IsAborted(result.status)) continue;
      idle_results_.Push({std::move(result), work});
      packs_.Poke();
      store_->Settle(&report);
    }
  }
}

void AdapterLoader::ForwardIdle() {
  for (Finished& finished : idle_results_.TakeAll()) {
    if (!finished.work->is_dropped) on_result_(std::move(finished.result));
  }
}

}  // namespace openlora
