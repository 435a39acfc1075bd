#pragma once

#include <string>
#include <vector>

namespace openlora {

// Kernels that can be chosen, worst first.
enum class SimdLevel { kAuto, kScalar, kNeon, kNeonDotprod, kAvx2, kAvx512, kAvx512Vnni };
inline constexpr int kSimdLevels = 7;

const char* NameOf(SimdLevel level);

// The levels that this build contains and this machine (CPU and operating system) can run, best last; never empty.
const std::vector<SimdLevel>& AvailableSimdLevels();

// vdpbf16ps, and twice as fast as FMAs: on AMD. Intel's runs at half their speed (Sapphire Rapids).
bool HasFastBF16Dot();

// What the CPU offers and the operating system has enabled, of the features that matter here: "avx2", "f16c",
// "avx512-vnni", …; for people.
std::vector<std::string> CpuFeatureNames();

}  // namespace openlora
