#pragma once

#include <algorithm>
#include <cstdint>

namespace openlora {

// How many rows a step may have so that it takes about `target_ms`, by what the steps before took: whoever comes
// meanwhile waits for the end of one. Chunks of prompts may be cut anywhere, so it changes no answer.
class StepPace {
 public:
  StepPace() = default;
  // 0 ms: always rows_max.
  StepPace(int32_t rows_max, double target_ms)
      : rows_max_(rows_max),
        target_ms_(target_ms),
        rows_(target_ms > 0 ? std::min<double>(rows_max, kRowsFirst) : rows_max) {}

  int32_t rows() const { return static_cast<int32_t>(rows_); }
  // Of a step for which somebody waits who shall not wait long.
  int32_t rows_short() const { return target_ms_ > 0 ? std::max(1, rows() / 2) : rows(); }

  void Took(int32_t rows, double ms) {
    if (target_ms_ <= 0 || ms <= 0 || rows_max_ <= kRowsMin) return;
    const double allowed = rows * target_ms_ / ms;
    if (ms > target_ms_) {
      // By half at the most: it may have been the machine's bad moment. What few rows take is not for the rows.
      if (rows > kRowsMin) rows_ = std::max({kRowsMin, rows_ / 2, std::min(rows_, allowed)});
    } else if (rows >= kFull * rows_) {
      rows_ = std::min({static_cast<double>(rows_max_), allowed, rows_ * kGrowth});
    }
  }

 private:
  static constexpr double kRowsFirst = 64;  // a step's before any was measured
  static constexpr double kRowsMin = 16;
  static constexpr double kFull = 0.75;  // of the rows that it may have: such a step says something about more
  static constexpr double kGrowth = 1.25;

  int32_t rows_max_ = 0;
  double target_ms_ = 0;
  double rows_ = 0;
};

}  // namespace openlora
