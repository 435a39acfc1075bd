#include "memory/eviction_order.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "memory/adapter_residency.h"

namespace openlora {
namespace {

constexpr double kHalfLifeTurnovers = 2;
// A load's fixed part, 0.25 ms at 1 GB/s, as bytes.
constexpr double kLoadBytesFixed = 256 << 10;
// 200 GFLOP/s beside 1 GB/s.
constexpr double kOperationsPerByte = 200;
// Objects over which odds are taken.
constexpr double kOddsWindow = 512;
constexpr double kOddsMin = 1.0 / (1 << 20);

}  // namespace

double AdapterCost(int64_t bytes) {
  const auto held = static_cast<double>(std::max<int64_t>(bytes, 1));
  return std::log2((held + kLoadBytesFixed) / held);
}

double BlockCost(int32_t tokens, double operations, int64_t bytes) {
  return std::log2(std::max(1.0, tokens * operations / kOperationsPerByte) / static_cast<double>(bytes));
}

void ReuseOdds::Count(double found, double lost) {
  found_ += found;
  lost_ = std::max(0.0, lost_ + lost);
  if (found_ + lost_ > kOddsWindow) {
    found_ /= 2;
    lost_ /= 2;
  }
  log2_ = std::log2(std::max(kOddsMin, found_ / (found_ + lost_)));
}

double EvictionOrder::now() const {
  return static_cast<double>(pool_->frames_taken()) / static_cast<double>(std::max<int64_t>(1, pool_->frames_total()));
}

double EvictionOrder::WorthOf(const Evictable& object) const {
  const double odds = object.is_fresh ? odds_[object.is_adapter() ? 0 : 1].log2() : 0;
  return object.heat + object.cost + odds;
}

bool EvictionOrder::GoesBefore(const Evictable& a, const Evictable& b) const {
  const double worth_a = WorthOf(a), worth_b = WorthOf(b);
  return worth_a != worth_b ? worth_a < worth_b : a.number < b.number;
}

void EvictionOrder::Enter(Evictable* object, bool is_known) {
  OPENLORA_CHECK(!object->is_listed);
  if (object->number == 0) object->number = ++numbers_;
  if (is_known && object->is_fresh) OddsOf(*object).Regret();
  object->is_fresh = !is_known;
  object->uses = 0;
}

void EvictionOrder::Use(Evictable* object) {
  const bool was_listed = object->is_listed;
  if (was_listed) Remove(object);
  const double time = now() / kHalfLifeTurnovers;
  if (object->is_adapter() && std::isfinite(object->heat)) {
    const double more = std::max(time, object->heat), less = std::min(time, object->heat);
    object->heat = more + std::log2(1 + std::exp2(less - more));
  } else {
    object->heat = time;
  }
  if (++object->uses == 2 && object->is_fresh) {
    object->is_fresh = false;
    OddsOf(*object).Found();
  }
  if (was_listed) Add(object);
}

void EvictionOrder::Leave(Evictable* object) {
  if (object->is_listed) Remove(object);
  if (object->is_fresh) OddsOf(*object).Lost();
  object->left_at = now();
}

void EvictionOrder::Add(Evictable* object) {
  if (object->is_adapter()) adapter_frames_ += object->adapter->layout.frames;
  object->is_listed = lists_[ListOf(*object)].insert(object).second;
  OPENLORA_CHECK(object->is_listed);
}

void EvictionOrder::Remove(Evictable* object) {
  OPENLORA_CHECK(object->is_listed);
  if (object->is_adapter()) adapter_frames_ -= object->adapter->layout.frames;
  lists_[ListOf(*object)].erase(object);
  object->is_listed = false;
}

}  // namespace openlora
