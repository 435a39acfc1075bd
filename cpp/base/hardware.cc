#include "base/hardware.h"

#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace openlora {

uint64_t HardwareCapabilities() {
#if defined(__linux__)
  return getauxval(AT_HWCAP);
#else
  return 0;
#endif
}

}  // namespace openlora
