#pragma once

#include <chrono>

namespace openlora {

// Milliseconds of a monotonic clock; only differences mean anything.
#ifdef OPENLORA_SIM
double NowMs();  // simulated: test/sim
#else
inline double NowMs() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}
#endif

}  // namespace openlora
