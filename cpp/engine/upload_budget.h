#pragma once

#include <atomic>
#include <cstdint>

namespace openlora {

// Bytes that loads may move until the next step, so that they take a bounded part of each step's time from the
// sequences that run. The engine thread sets it, the loader's threads take of it and wait where it is used up.
class UploadBudget {
 public:
  static constexpr int64_t kUnlimited = INT64_MAX;

  void Set(int64_t bytes) {
    left_.store(bytes, std::memory_order_relaxed);
    left_.notify_all();
  }
  // Whoever waits looks again whether it should give up.
  void Poke() {
    int64_t left = left_.load(std::memory_order_relaxed);
    while (left <= 0 && !left_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
    }
    left_.notify_all();
  }
  // Takes the whole amount as soon as any is left: the next ones wait for it. False when `gives_up()`.
  template <typename GivesUp>
  bool Take(int64_t bytes, const GivesUp& gives_up) {
    int64_t left = left_.load(std::memory_order_relaxed);
    while (!gives_up()) {
      if (left == kUnlimited) return true;
      if (left <= 0) {
        left_.wait(left, std::memory_order_relaxed);
        left = left_.load(std::memory_order_relaxed);
      } else if (left_.compare_exchange_weak(left, left - bytes, std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

 private:
  std::atomic<int64_t> left_{kUnlimited};
};

}  // namespace openlora
