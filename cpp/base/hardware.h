#pragma once

#include <cstdint>

namespace openlora {

// The bits in which the system names what the processor has (AT_HWCAP of Linux); 0 where there are none.
uint64_t HardwareCapabilities();

}  // namespace openlora
