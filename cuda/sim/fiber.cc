#include "sim/fiber.h"

#include <sys/mman.h>

#include <cstdlib>
#include <vector>

// The registers that a callee must keep go onto the old stack and come from the new one.
#if defined(__x86_64__)
asm(R"(
.text
.globl OpenloraSwitchFiber
.type OpenloraSwitchFiber,@function
OpenloraSwitchFiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size OpenloraSwitchFiber, .-OpenloraSwitchFiber
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl OpenloraSwitchFiber
.type OpenloraSwitchFiber,%function
OpenloraSwitchFiber:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size OpenloraSwitchFiber, .-OpenloraSwitchFiber
)");
#else
#error "cuda/sim: no fibers for this processor"
#endif

namespace openlora::cuda_sim {
namespace {

constexpr size_t kGuardBytes = 4096;

std::vector<char*>& FreeStacks() {
  static std::vector<char*> stacks;
  return stacks;
}

}  // namespace

char* TakeStack() {
  std::vector<char*>& stacks = FreeStacks();
  if (stacks.empty()) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, kGuardBytes, PROT_NONE) != 0) std::abort();
    return static_cast<char*>(stack);
  }
  char* const stack = stacks.back();
  stacks.pop_back();
  return stack;
}

void GiveStack(char* stack) { FreeStacks().push_back(stack); }

void* PrepareStack(char* stack, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack + kStackBytes);
  auto* const code = reinterpret_cast<void*>(entry);
#if defined(__x86_64__)
  *--top = nullptr;  // the entry's return address: at its begin the stack is 8 short of a multiple of 16
  *--top = code;
  return top - 6;
#else
  top -= 20;
  top[11] = code;  // x30
  return top;
#endif
}

}  // namespace openlora::cuda_sim
