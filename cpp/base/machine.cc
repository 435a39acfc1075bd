#include "base/machine.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace openlora {

// What the first processor's index of caches says: glibc multiplies on some AMD machines.
size_t LastLevelCacheBytes() {
  size_t bytes = 0;
  for (int index = 0;; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    size_t kibibytes;
    if (!(file >> kibibytes)) break;
    bytes = std::max(bytes, kibibytes << 10);
  }
  return bytes > 0 ? bytes : size_t{32} << 20;
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace openlora
