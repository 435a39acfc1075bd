#pragma once

#include <cstdint>

namespace openlora {

// Bugs that the simulator's tests plant to see that it finds them (test/sim). Only the simulator's build has them: in
// every other the condition is a constant, and no object file knows of it.
enum class Plant : uint8_t {
  kNone,
  kFreedEarly,           // a sequence's KV frames go back before the step that reads them
  kMissedPin,            // a request that waits for its adapters' loads doesn't pin them
  kPrefixByName,         // prefixes are found by the adapter's name (its path), not its generation
  kBookedTwice,          // a plan is committed twice
  kLostWakeUp,           // a step that gave nobody a token is taken for one that had nothing to do
  kLostLoad,             // the result of a load whose requests have all gone is dropped
  kReservationDeadlock,  // requests keep what they reserved, however long others wait for it
};
inline constexpr int kPlants = 8;

#ifdef OPENLORA_SIM
bool IsPlanted(Plant plant);
#else
constexpr bool IsPlanted(Plant) { return false; }
#endif

}  // namespace openlora
