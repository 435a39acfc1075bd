#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/sha256_blocks.h"

namespace openlora {

// FIPS 180-4. Adapters are hashed when they are registered and when they are packed, off the JS thread. 1.8 GB/s a
// thread by SHA-NI, 0.3 GB/s in plain C++ (AMD EPYC, Zen 4).
class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  // The fastest way, unless one is given.
  Sha256() : Sha256(Sha256Ways().back()) {}
  explicit Sha256(const Sha256Way& way) : blocks_(way.blocks) {}

  void Update(const void* data, size_t bytes);
  Digest Finish();  // once

 private:
  Sha256Blocks* blocks_;
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, kSha256BlockBytes> buffer_{};
  size_t buffered_ = 0;
  uint64_t total_ = 0;
};

std::string ToHex(const Sha256::Digest& digest);

}  // namespace openlora
