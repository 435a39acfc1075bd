#include "sim/catalog.h"

#include <algorithm>

#include "sim/digest.h"

namespace openlora::sim {

Catalog::Catalog(const Scenario& scenario, uint64_t seed, std::vector<SiteShape> shapes)
    : scenario_(scenario), random_(seed, 2), shapes_(std::move(shapes)) {
  current_.resize(static_cast<size_t>(scenario.names));
  double sum = 0;
  for (int32_t name = 0; name < scenario.names; ++name) zipf_.push_back(sum += 1.0 / (name + 1));
}

Generation* Catalog::Add(int32_t name) {
  auto added = std::make_unique<Generation>();
  added->handle = static_cast<int64_t>(generations_.size()) + 1;
  added->name = name;
  const Generation* before = Current(name);
  added->content = before != nullptr && random_.Chance(scenario_.same_content)
                       ? before->content
                       : std::make_shared<TileContent>(MakeContent(random_.Next(), scenario_.rank_max, shapes_));
  return (generations_[added->handle] = std::move(added)).get();
}

Generation* Catalog::Find(int64_t handle) {
  const auto found = generations_.find(handle);
  return found == generations_.end() ? nullptr : found->second.get();
}

Generation* Catalog::Publish(Generation* generation) {
  Generation*& current = current_[static_cast<size_t>(generation->name)];
  return std::exchange(current, generation);
}

int32_t Catalog::PickName() {
  switch (scenario_.popularity) {
    case Popularity::kIdentical:
      return 0;
    case Popularity::kDistinct:
      return next_distinct_++ % scenario_.names;
    case Popularity::kUniform:
      return random_.Range(0, scenario_.names - 1);
    case Popularity::kZipf:
      return static_cast<int32_t>(std::upper_bound(zipf_.begin(), zipf_.end() - 1, random_.Uniform() * zipf_.back()) -
                                  zipf_.begin());
    case Popularity::kSkewed:
      return random_.Chance(0.9) ? 0 : random_.Range(0, scenario_.names - 1);
  }
  return 0;
}

Generation* Catalog::PickAny() {
  return Find(random_.Range(1, static_cast<int32_t>(std::max<size_t>(1, generations_.size()))));
}

}  // namespace openlora::sim
