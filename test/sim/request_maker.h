#pragma once

#include <vector>

#include "engine/request.h"
#include "sim/catalog.h"
#include "sim/random.h"
#include "sim/scenario.h"

namespace openlora::sim {

// Makes the requests of a scenario, one after another.
class RequestMaker {
 public:
  RequestMaker(const Scenario& scenario, uint64_t seed);

  // The next request, of names' current generations. A name that has none is asked for by its newest handle, which the
  // engine must refuse.
  Request Make(Catalog* catalog);
  // Until the next arrival.
  double NextIntervalMs();

 private:
  std::vector<int32_t> MakePrompt(int32_t tenant);
  void AddAdapters(Catalog* catalog, Request* request);
  void AddExtras(Request* request);

  const Scenario& scenario_;
  Random random_;
  int64_t next_id_ = 1;
  int32_t burst_left_ = 0;
  int32_t flooding_tenant_ = -1;
};

}  // namespace openlora::sim
