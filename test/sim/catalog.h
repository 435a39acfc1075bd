#pragma once

#include <map>
#include <memory>
#include <vector>

#include "sim/adapter_content.h"
#include "sim/random.h"
#include "sim/scenario.h"

namespace openlora::sim {

// One registration of a name. `handle`: the engine's.
struct Generation {
  int64_t handle = 0;
  int32_t name = 0;
  std::shared_ptr<const TileContent> content;
  int64_t frames = 0;      // when resident; known once it is ready
  bool is_ready = false;   // its check succeeded
  bool is_hidden = false;  // unregistered, or refused
  bool has_ended = false;  // its retired or failed event has come
};

// The names that clients ask for and the generations behind them: a pure book, the simulator tells the engine.
class Catalog {
 public:
  Catalog(const Scenario& scenario, uint64_t seed, std::vector<SiteShape> shapes);

  // A new generation of `name`, with new content or, sometimes, the same.
  Generation* Add(int32_t name);
  Generation* Find(int64_t handle);
  // The name's newest ready generation from now on; the one before it, for the caller to unregister.
  Generation* Publish(Generation* generation);
  // Null if the name has none.
  Generation* Current(int32_t name) const { return current_[static_cast<size_t>(name)]; }
  void TakeAway(int32_t name) { current_[static_cast<size_t>(name)] = nullptr; }

  // By the scenario's popularity.
  int32_t PickName();
  // One of all there ever were.
  Generation* PickAny();
  const std::map<int64_t, std::unique_ptr<Generation>>& generations() const { return generations_; }
  const std::vector<SiteShape>& shapes() const { return shapes_; }

 private:
  const Scenario& scenario_;
  Random random_;
  std::vector<SiteShape> shapes_;
  std::map<int64_t, std::unique_ptr<Generation>> generations_;
  std::vector<Generation*> current_;  // by name
  std::vector<double> zipf_;          // cumulated, by name
  int32_t next_distinct_ = 0;
};

}  // namespace openlora::sim
