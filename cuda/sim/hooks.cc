// What the compiler calls in kernel files: -fsanitize=thread on every load and store,
// -fsanitize=alignment,bounds,shift,… where one of those is violated. The program is linked without the sanitizers.

#include <elf.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "sim/machine_state.h"

extern "C" const char __executable_start[];

namespace openlora::cuda_sim {
namespace {

uintptr_t PcOf(const void* return_address) {
  return reinterpret_cast<uintptr_t>(return_address) - reinterpret_cast<uintptr_t>(__executable_start);
}

void Check(const void* p, size_t bytes, bool is_write, const void* return_address) {
  CheckTouch({.p = p, .bytes = bytes, .is_write = is_write, .pc = PcOf(return_address)});
}

// Every handler's data begins so.
struct UbsanPlace {
  const char* file;
  uint32_t line;
};
void FailAt(const char* what, const void* data) {
  if (!current.thread) return;
  const auto* const place = static_cast<const UbsanPlace*>(data);
  Fail(NameOf(*current.thread) + ": " + what + " at " + place->file + ":" + std::to_string(place->line));
}

}  // namespace

std::string PlaceOf(uintptr_t pc) {
  const auto start = reinterpret_cast<uintptr_t>(__executable_start);
  const uintptr_t base = reinterpret_cast<const Elf64_Ehdr*>(start)->e_type == ET_EXEC ? start : 0;
  char command[128];
  std::snprintf(command, sizeof command, "addr2line -s -e /proc/%d/exe 0x%zx", static_cast<int>(getpid()),
                static_cast<size_t>(base + pc - 1));
  char line[512] = "";
  if (FILE* const pipe = popen(command, "r")) {
    if (!std::fgets(line, sizeof line, pipe)) line[0] = 0;
    pclose(pipe);
  }
  const std::string text = line;
  return text.substr(0, text.find_first_of(" \n"));
}

}  // namespace openlora::cuda_sim

extern "C" {

#define OPENLORA_HOOK(name, bytes, is_write) \
  void name(void* p) { openlora::cuda_sim::Check(p, bytes, is_write, __builtin_return_address(0)); }
#define OPENLORA_HOOKS(bytes)                               \
  OPENLORA_HOOK(__tsan_read##bytes, bytes, false)           \
  OPENLORA_HOOK(__tsan_write##bytes, bytes, true)           \
  OPENLORA_HOOK(__tsan_unaligned_read##bytes, bytes, false) \
  OPENLORA_HOOK(__tsan_unaligned_write##bytes, bytes, true) \
  OPENLORA_HOOK(__tsan_read_write##bytes, bytes, true)      \
  OPENLORA_HOOK(__tsan_unaligned_read_write##bytes, bytes, true)

OPENLORA_HOOKS(1)
OPENLORA_HOOKS(2)
OPENLORA_HOOKS(4)
OPENLORA_HOOKS(8)
OPENLORA_HOOKS(16)

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_read_range(void* p, size_t bytes) {
  openlora::cuda_sim::Check(p, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t bytes) {
  openlora::cuda_sim::Check(p, bytes, true, __builtin_return_address(0));
}
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  openlora::cuda_sim::Check(from, bytes, false, __builtin_return_address(0));
  openlora::cuda_sim::Check(to, bytes, true, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  openlora::cuda_sim::Check(to, bytes, true, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}

#define OPENLORA_UBSAN(name, what) \
  void __ubsan_handle_##name(void* data, ...) { openlora::cuda_sim::FailAt(what, data); }

OPENLORA_UBSAN(type_mismatch_v1, "misaligned access")
OPENLORA_UBSAN(out_of_bounds, "an index out of its array's bounds")
OPENLORA_UBSAN(shift_out_of_bounds, "a shift by too much")
OPENLORA_UBSAN(add_overflow, "signed overflow")
OPENLORA_UBSAN(sub_overflow, "signed overflow")
OPENLORA_UBSAN(mul_overflow, "signed overflow")
OPENLORA_UBSAN(negate_overflow, "signed overflow")
OPENLORA_UBSAN(divrem_overflow, "a division by zero")

}  // extern "C"
