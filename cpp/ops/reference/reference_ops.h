#pragma once

#include <memory>

#include "ops/ops.h"

namespace openlora {

// Slow and obvious; see README.md.
std::unique_ptr<Ops> CreateReferenceOps();

}  // namespace openlora
