#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace openlora {

// A fixed team of threads that runs one function at a time on all of its members together. The caller is
// member 0, so a pool of one has no threads of its own. All members of a run are running at once (none is
// queued behind another), so a body may wait for its team mates with TeamBarrier.
class ThreadPool {
 public:
  // Of fewer members, only the caller, where the system doesn't start that many threads.
  explicit ThreadPool(int thread_count);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return thread_count_; }

  // Calls body(member, size()) on every member and returns when all have. One caller at a time.
  template <typename Body>
  void Run(const Body& body) {
    RunErased(
        [](const void* context, int member, int members) { (*static_cast<const Body*>(context))(member, members); },
        &body);
  }

 private:
  using Function = void (*)(const void* context, int member, int members);
  void RunErased(Function function, const void* context);
  void WorkerMain(int member);
  void JoinAll();

  int thread_count_;
  Function function_ = nullptr;
  const void* context_ = nullptr;
  std::atomic<uint32_t> generation_{0};  // a change starts a run
  std::atomic<int32_t> running_{0};      // members that haven't finished it
  std::atomic<bool> is_stopping_{false};
  std::vector<std::thread> workers_;
};

// Waits until all members of a run have arrived; usable once per object and run (Reset between runs).
class TeamBarrier {
 public:
  void Reset() { arrived_.store(0, std::memory_order_relaxed); }
  void Arrive() { arrived_.fetch_add(1, std::memory_order_acq_rel); }
  void Wait(int members) const;

 private:
  std::atomic<int32_t> arrived_{0};
};

// The half-open piece [begin, end) of `count` items that member `member` of `members` takes, in steps of `grain`.
struct Piece {
  int64_t begin;
  int64_t end;
  bool is_empty() const { return begin >= end; }
};
inline Piece Split(int64_t count, int64_t grain, int member, int members) {
  const int64_t grains = (count + grain - 1) / grain;
  const int64_t begin = grains * member / members * grain;
  const int64_t end = grains * (member + 1) / members * grain;
  return {begin < count ? begin : count, end < count ? end : count};
}

// [0, count) shared out among a team. A member takes its share piece by piece, each half of what is left of it, and
// then from its team mates' shares: one whose core is slow, or was taken by somebody else, doesn't hold the others up.
class WorkShares {
 public:
  explicit WorkShares(int members) : members_(members), shares_(new Share[static_cast<size_t>(members)]) {}

  // Between runs. Pieces begin at multiples of `grain`. A run of fewer members (one) takes all shares.
  void Reset(int64_t count, int64_t grain);
  // Empty when nothing is left.
  Piece Take(int member);

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  int members_;
  int64_t grain_ = 1;
  std::unique_ptr<Share[]> shares_;
};

}  // namespace openlora
