#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <fstream>
#include <set>

namespace openlora {
namespace {

// Empty where the system doesn't say.
std::vector<int> AllowedProcessors() {
  for (int count = 1024; count <= 1 << 20; count *= 2) {
    cpu_set_t* const set = CPU_ALLOC(count);
    if (set == nullptr) return {};
    const size_t bytes = CPU_ALLOC_SIZE(count);
    std::vector<int> processors;
    const bool is_read = ::sched_getaffinity(0, bytes, set) == 0;
    const bool is_too_small = !is_read && errno == EINVAL;  // this machine may have more processors
    for (int i = 0; is_read && i < count; ++i)
      if (CPU_ISSET_S(i, bytes, set)) processors.push_back(i);
    CPU_FREE(set);
    if (!is_too_small) return processors;
  }
  return {};
}

// cpu.max is `max 100000` or `150000 100000`: microseconds of each period.
double QuotaOfGroup(const std::string& folder) {
  double quota = 0, period = 0;
  if (std::ifstream(folder + "/cpu.max") >> quota >> period && quota > 0 && period > 0) return quota / period;
  const bool is_version_1 = static_cast<bool>(std::ifstream(folder + "/cpu.cfs_quota_us") >> quota) &&
                            static_cast<bool>(std::ifstream(folder + "/cpu.cfs_period_us") >> period);
  return is_version_1 && quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

}  // namespace

int CoresOf(const std::vector<int>& processors, const std::string& root) {
  std::set<std::string> cores;
  for (const int processor : processors) {
    const std::string name = "cpu" + std::to_string(processor);
    std::string siblings;
    std::string path = root;
    path.append("/sys/devices/system/cpu/").append(name).append("/topology/thread_siblings_list");
    std::getline(std::ifstream(path), siblings);
    cores.insert(siblings.empty() ? name : siblings);
  }
  return static_cast<int>(cores.size());
}

int QuotaProcessors(const std::string& root) {
  double least = HUGE_VAL;
  std::ifstream groups(root + "/proc/self/cgroup");
  // `0::/path` of version 2; `4:cpu,cpuacct:/path` of version 1.
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_version_2 = controllers == ",,";
    if (!is_version_2 && controllers.find(",cpu,") == std::string::npos) continue;
    const std::string mount = root + (is_version_2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu");
    // In a container the path may be the host's, and the container's own group what is mounted.
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      least = std::min(least, QuotaOfGroup(mount + path));
      if (path.find('/') == std::string::npos) break;
    }
  }
  return least == HUGE_VAL ? INT_MAX : static_cast<int>(std::min(std::ceil(least), 1e6));
}

int UsableCores() { return std::max(1, std::min(CoresOf(AllowedProcessors(), ""), QuotaProcessors(""))); }

}  // namespace openlora
