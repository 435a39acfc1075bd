#pragma once

#include <cstddef>
#include <string>

namespace openlora {

// Bytes; 32 MiB where the system doesn't say.
size_t LastLevelCacheBytes();

// As the system calls it; "unknown" where it doesn't.
std::string CpuName();

}  // namespace openlora
