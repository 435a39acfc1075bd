#pragma once

#include <cstdlib>
#include <map>
#include <vector>

namespace openlora {

// How much the heavy tests run. scripts/check-steps sets OPENLORA_SMALL under sanitizers and qemu, where an instruction
// costs ten to fifty, and OPENLORA_LONG in check:long.
enum class TestSize { kSmall, kUsual, kLong };

inline TestSize SizeOfTests() {
  if (std::getenv("OPENLORA_SMALL") != nullptr) return TestSize::kSmall;
  return std::getenv("OPENLORA_LONG") != nullptr ? TestSize::kLong : TestSize::kUsual;
}

inline bool IsSmall() { return SizeOfTests() == TestSize::kSmall; }

// The value for the size at hand.
template <typename T>
T BySize(T small, T usual, T longest) {
  return IsSmall() ? small : SizeOfTests() == TestSize::kLong ? longest : usual;
}

// Of the cases with the same kind(case) the middle one: every kind once.
template <typename Case, typename Kind>
std::vector<Case> OneOfEachKind(const std::vector<Case>& list, const Kind& kind) {
  std::map<decltype(kind(list[0])), std::vector<const Case*>> kinds;
  for (const Case& c : list) kinds[kind(c)].push_back(&c);
  std::vector<Case> chosen;
  for (const auto& [key, of_kind] : kinds) chosen.push_back(*of_kind[of_kind.size() / 2]);
  return chosen;
}

}  // namespace openlora
