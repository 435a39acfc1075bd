#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/fuzz_input.h"

namespace openlora::fuzz {

// A regular file that has a path and no disk.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    FUZZ_CHECK(descriptor_ >= 0, "memfd_create");
    path_ = "/proc/self/fd/" + std::to_string(descriptor_);
  }
  explicit MemoryFile(const std::vector<uint8_t>& content) : MemoryFile() { Write(content); }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::vector<uint8_t>& content) {
    const auto bytes = static_cast<ssize_t>(content.size());
    FUZZ_CHECK(::ftruncate(descriptor_, bytes) == 0, "ftruncate");
    FUZZ_CHECK(::pwrite(descriptor_, content.data(), content.size(), 0) == bytes, "pwrite");
  }

 private:
  int descriptor_;
  std::string path_;
};

// `bytes` bytes that are finite numbers in every dtype, wherever a number begins: exponents stay small.
inline std::vector<uint8_t> FiniteBytes(size_t bytes, uint32_t seed) {
  std::vector<uint8_t> content(bytes);
  for (uint8_t& byte : content) {
    seed = seed * 1664525u + 1013904223u;
    byte = static_cast<uint8_t>(seed >> 24 & 0x3F);
  }
  return content;
}

}  // namespace openlora::fuzz
