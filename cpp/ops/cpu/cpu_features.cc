#include "ops/cpu/cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include "base/hardware.h"
#endif

namespace openlora {
namespace {

struct Feature {
  const char* name;
  bool has;
};

#if defined(__x86_64__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers Cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // all 0 where there is no such leaf
  return r;
}

// XCR0: which register states the operating system saves. Only where OSXSAVE says that it may be asked.
uint64_t EnabledStates() {
  if ((Cpuid(1, 0).ecx >> 27 & 1) == 0) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

struct X86 {
  X86() {
    const Registers one = Cpuid(1, 0), seven = Cpuid(7, 0), seven_one = seven.eax >= 1 ? Cpuid(7, 1) : Registers{};
    const uint64_t states = EnabledStates();
    const auto bit = [](uint32_t word, int index) { return (word >> index & 1) != 0; };
    const bool has_ymm = (states & 0x6) == 0x6;
    const bool has_zmm = (states & 0xe6) == 0xe6;
    const bool has_tiles = (states & 0x60000) == 0x60000;
    avx2 = has_ymm && bit(seven.ebx, 5);
    fma = has_ymm && bit(one.ecx, 12);
    f16c = has_ymm && bit(one.ecx, 29);
    avx512f = has_zmm && bit(seven.ebx, 16);
    avx512dq = has_zmm && bit(seven.ebx, 17);
    avx512bw = has_zmm && bit(seven.ebx, 30);
    avx512vl = has_zmm && bit(seven.ebx, 31);
    avx512_vnni = has_zmm && bit(seven.ecx, 11);
    avx512_fp16 = has_zmm && bit(seven.edx, 23);
    avx512_bf16 = has_zmm && bit(seven_one.eax, 5);
    avx_vnni = has_ymm && bit(seven_one.eax, 4);
    amx_int8 = has_tiles && bit(seven.edx, 25);
    amx_bf16 = has_tiles && bit(seven.edx, 22);
    const Registers zero = Cpuid(0, 0);
    is_amd = zero.ebx == 0x68747541 && zero.edx == 0x69746e65 && zero.ecx == 0x444d4163;  // AuthenticAMD
  }
  bool avx2, fma, f16c, avx512f, avx512dq, avx512bw, avx512vl, avx512_vnni, avx512_fp16, avx512_bf16, avx_vnni,
      amx_int8, amx_bf16, is_amd;

  bool RunsAvx2() const { return avx2 && fma && f16c; }
  bool RunsAvx512() const { return RunsAvx2() && avx512f && avx512dq && avx512bw && avx512vl; }
  bool RunsAvx512Vnni() const { return RunsAvx512() && avx512_vnni; }
};

const X86& Cpu() {
  static const X86 cpu;
  return cpu;
}

std::vector<Feature> Features() {
  const X86& cpu = Cpu();
  return {{"avx2", cpu.avx2},
          {"fma", cpu.fma},
          {"f16c", cpu.f16c},
          {"avx512f", cpu.avx512f},
          {"avx512dq", cpu.avx512dq},
          {"avx512bw", cpu.avx512bw},
          {"avx512vl", cpu.avx512vl},
          {"avx512-vnni", cpu.avx512_vnni},
          {"avx512-bf16", cpu.avx512_bf16},
          {"avx512-fp16", cpu.avx512_fp16},
          {"avx-vnni", cpu.avx_vnni},
          {"amx-int8", cpu.amx_int8},
          {"amx-bf16", cpu.amx_bf16}};
}

#elif defined(__aarch64__)

// sdot and udot.
bool HasDotprod() {
#if defined(__APPLE__)
  return true;  // every Apple processor that runs macOS
#else
  return (HardwareCapabilities() >> 20 & 1) != 0;  // HWCAP_ASIMDDP
#endif
}

std::vector<Feature> Features() { return {{"neon", true}, {"dotprod", HasDotprod()}}; }

#else

std::vector<Feature> Features() { return {}; }

#endif

std::vector<SimdLevel> FindLevels() {
  std::vector<SimdLevel> levels;
#if defined(OPENLORA_HAS_SCALAR)
  levels.push_back(SimdLevel::kScalar);
#endif
#if defined(OPENLORA_HAS_NEON)
  levels.push_back(SimdLevel::kNeon);
#endif
#if defined(OPENLORA_HAS_NEON_DOTPROD)
  if (HasDotprod()) levels.push_back(SimdLevel::kNeonDotprod);
#endif
#if defined(OPENLORA_HAS_AVX2)
  if (Cpu().RunsAvx2()) levels.push_back(SimdLevel::kAvx2);
#endif
#if defined(OPENLORA_HAS_AVX512)
  if (Cpu().RunsAvx512()) levels.push_back(SimdLevel::kAvx512);
#endif
#if defined(OPENLORA_HAS_AVX512VNNI)
  if (Cpu().RunsAvx512Vnni()) levels.push_back(SimdLevel::kAvx512Vnni);
#endif
  return levels;
}

}  // namespace

const char* NameOf(SimdLevel level) {
  switch (level) {
    case SimdLevel::kAuto:
      return "auto";
    case SimdLevel::kScalar:
      return "scalar";
    case SimdLevel::kNeon:
      return "neon";
    case SimdLevel::kNeonDotprod:
      return "neon-dotprod";
    case SimdLevel::kAvx2:
      return "avx2";
    case SimdLevel::kAvx512:
      return "avx512";
    case SimdLevel::kAvx512Vnni:
      return "avx512-vnni";
  }
  return "?";
}

bool HasFastBF16Dot() {
#if defined(__x86_64__)
  return Cpu().is_amd && Cpu().avx512_bf16;
#else
  return false;
#endif
}

const std::vector<SimdLevel>& AvailableSimdLevels() {
  static const std::vector<SimdLevel> levels = FindLevels();
  return levels;
}

std::vector<std::string> CpuFeatureNames() {
  std::vector<std::string> names;
  for (const Feature& feature : Features())
    if (feature.has) names.emplace_back(feature.name);
  return names;
}

}  // namespace openlora
