// What the simulator's build has in place of parts of cpp/base: time, planted bugs, and checks that end a run rather
// than the process.

#include "base/check.h"
#include "base/clock.h"
#include "base/plant.h"
#include "sim/simulator.h"
#include "sim/trace.h"

namespace openlora {
namespace {

thread_local double now_ms = 0;
thread_local Plant planted = Plant::kNone;

}  // namespace

double NowMs() { return now_ms; }
bool IsPlanted(Plant plant) { return planted == plant; }
void CheckFailed(const char* expression, const char* file, int line) {
  sim::Fail("engine's check", "%s:%d: %s", file, line, expression);
}

namespace sim {

void SetNowMs(double ms) { now_ms = ms; }
void SetPlanted(Plant plant) { planted = plant; }

}  // namespace sim
}  // namespace openlora
