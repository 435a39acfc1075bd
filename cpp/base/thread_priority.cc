#include "base/thread_priority.h"

#include <pthread.h>
#include <sched.h>

namespace openlora {

void MakeThreadIdle() {
  const sched_param none{};
  // What a system refuses leaves the thread as it was: slower for others, not wrong.
  (void)::pthread_setschedparam(::pthread_self(), SCHED_IDLE, &none);
}

}  // namespace openlora
