#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace openlora {

// The fastest way to do one kind of arithmetic on this machine's CPU: independent chains of one instruction, all in
// registers. For the bench: what kernels are compared with.
struct InstructionPeak {
  const char* name;                 // "f32 fma", "bf16 dot", "int8 dot"
  double operations;                // of one round of the chains; a multiply and an add are two
  uint64_t (*run)(int64_t rounds);  // what was computed, so that nothing is left out
};

// Those that this CPU has; f32 fma first, always there.
std::span<const InstructionPeak> InstructionPeaks();

// The one of this name; f32 fma where the CPU has no such instruction.
const InstructionPeak& PeakOf(const char* name);

// Reads `bytes` (a multiple of 512) at `data`, 64-byte aligned, as four streams side by side, as the kernels do.
uint64_t ReadStreams(const uint8_t* data, size_t bytes);

}  // namespace openlora
