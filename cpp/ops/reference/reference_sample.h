#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace openlora::reference {

// One row of logits [vocabulary]; in double, by sorting the whole vocabulary.
SampleResult SampleOne(const float* logits, int64_t vocabulary, const SampleRow& row);

}  // namespace openlora::reference
