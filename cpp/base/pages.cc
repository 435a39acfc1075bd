#include "base/pages.h"

#include <sys/mman.h>

#include <cstdint>

namespace openlora {
namespace {

constexpr size_t kSmallPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

size_t MappedBytes(size_t bytes) { return RoundUp(bytes, bytes >= kHugePage ? kHugePage : kSmallPage); }

void* Map(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

}  // namespace

void* AllocatePages(size_t bytes) {
  if (bytes == 0 || bytes > SIZE_MAX / 2) return nullptr;
  const size_t mapped = MappedBytes(bytes);
  if (bytes < kHugePage) return Map(mapped);
  // One huge page more than needed, and the ragged ends given back.
  char* const raw = static_cast<char*>(Map(mapped + kHugePage));
  if (raw == nullptr) return nullptr;
  const size_t skip = RoundUp(reinterpret_cast<uintptr_t>(raw), kHugePage) - reinterpret_cast<uintptr_t>(raw);
  if (skip != 0) munmap(raw, skip);
  if (skip != kHugePage) munmap(raw + skip + mapped, kHugePage - skip);
#if defined(MADV_HUGEPAGE)
  (void)madvise(raw + skip, mapped, MADV_HUGEPAGE);  // advice: without it only slower
#endif
  return raw + skip;
}

void FreePages(void* data, size_t bytes) {
  if (data != nullptr) munmap(data, MappedBytes(bytes));
}

}  // namespace openlora
