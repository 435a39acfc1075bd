#include "base/thread_pool.h"

#include <algorithm>
#include <exception>

#include "base/check.h"

namespace openlora {
namespace {

// About 20–50 µs on current machines: longer than the gap between two ops of a step, short beside a sleep's cost.
constexpr int kSpins = 2000;

inline void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename T, typename Done>
void SpinThenWait(const std::atomic<T>& value, const Done& done) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (done(value.load(std::memory_order_acquire))) return;
    Relax();
  }
  for (T seen = value.load(std::memory_order_acquire); !done(seen); seen = value.load(std::memory_order_acquire))
    value.wait(seen, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int thread_count) : thread_count_(thread_count) {
  OPENLORA_CHECK(thread_count >= 1);
  try {
    for (int member = 1; member < thread_count; ++member) workers_.emplace_back([this, member] { WorkerMain(member); });
  } catch (const std::exception&) {  // std::system_error, std::bad_alloc
    JoinAll();
    thread_count_ = 1;
  }
}

ThreadPool::~ThreadPool() { JoinAll(); }

void ThreadPool::JoinAll() {
  is_stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::RunErased(Function function, const void* context) {
  if (thread_count_ == 1) return function(context, 0, 1);
  function_ = function;
  context_ = context;
  running_.store(thread_count_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  function(context, 0, thread_count_);
  SpinThenWait(running_, [](int32_t running) { return running == 0; });
}

void ThreadPool::WorkerMain(int member) {
  uint32_t seen = 0;
  for (;;) {
    SpinThenWait(generation_, [seen](uint32_t generation) { return generation != seen; });
    ++seen;
    if (is_stopping_.load(std::memory_order_relaxed)) return;
    function_(context_, member, thread_count_);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_all();
  }
}

void TeamBarrier::Wait(int members) const {
  for (int spin = 0; arrived_.load(std::memory_order_acquire) < members; ++spin) {
    if (spin < kSpins) {
      Relax();
    } else {
      std::this_thread::yield();  // a team mate's core was taken by somebody else
    }
  }
}

void WorkShares::Reset(int64_t count, int64_t grain) {
  grain_ = grain;
  for (int member = 0; member < members_; ++member) {
    const Piece share = Split(count, grain, member, members_);
    shares_[static_cast<size_t>(member)].next.store(share.begin, std::memory_order_relaxed);
    shares_[static_cast<size_t>(member)].end = share.end;
  }
}

Piece WorkShares::Take(int member) {
  for (int i = 0; i < members_; ++i) {
    Share& share = shares_[static_cast<size_t>((member + i) % members_)];
    int64_t begin = share.next.load(std::memory_order_relaxed);
    while (begin < share.end) {
      const int64_t half = (share.end - begin + 1) / 2;
      const int64_t end = std::min(share.end, begin + (half + grain_ - 1) / grain_ * grain_);
      if (share.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) return {begin, end};
    }
  }
  return {0, 0};
}

}  // namespace openlora
