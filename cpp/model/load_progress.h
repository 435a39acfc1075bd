#pragma once

#include <cstdint>
#include <functional>

namespace openlora {

struct LoadProgress {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
};
using OnLoadProgress = std::function<void(LoadProgress)>;

}  // namespace openlora
