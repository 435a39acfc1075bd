#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "cases/sample_cases.h"
#include "native/ops/ops_under_test.h"

namespace openlora {

// Results for rows of logits [rows, vocabulary], which are afterwards as they were.
inline std::vector<SampleResult> Sample(Ops& ops, const std::vector<float>& logits,
                                        const std::vector<SampleRow>& rows) {
  const int64_t count = static_cast<int64_t>(rows.size());
  cases::GuardedMatrix matrix(count, static_cast<int64_t>(logits.size()) / count);
  matrix.CopyFrom(logits.data());
  std::vector<SampleResult> results(rows.size());
  ops.Sample(matrix.View(), rows, results);
  EXPECT_TRUE(ops.Synchronize().ok());
  EXPECT_TRUE(matrix.IsIntact());
  EXPECT_TRUE(AreSameBits(matrix.Values(), logits)) << "a row was changed";
  return results;
}

inline SampleResult SampleOne(Ops& ops, const std::vector<float>& logits, const SampleRow& row) {
  return Sample(ops, logits, {row})[0];
}

}  // namespace openlora
