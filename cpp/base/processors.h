#pragma once

#include <string>
#include <vector>

namespace openlora {

// Cores that this process may compute on at once: those of the processors of its affinity mask, hyperthreads of one
// core counted once, but no more than its control groups' quota, rounded up. At least 1.
int UsableCores();

// Its parts, from the files under `root` ("" but in tests).
// Distinct cores of the numbered processors; a processor of which the system says nothing is one.
int CoresOf(const std::vector<int>& processors, const std::string& root);
// What the quotas of this process's control group (version 2, or 1) and of those above it let run at once, rounded up;
// INT_MAX without one.
int QuotaProcessors(const std::string& root);

}  // namespace openlora
