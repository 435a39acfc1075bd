#include "base/sha256.h"

#include <algorithm>
#include <cstring>

namespace openlora {
namespace {

constexpr size_t kLengthAt = kSha256BlockBytes - 8;  // the last block ends with the number of bits

}  // namespace

void Sha256::Update(const void* data, size_t bytes) {
  if (bytes == 0) return;
  const uint8_t* next = static_cast<const uint8_t*>(data);
  total_ += bytes;
  if (buffered_ > 0) {
    const size_t taken = std::min(bytes, kSha256BlockBytes - buffered_);
    std::memcpy(buffer_.data() + buffered_, next, taken);
    buffered_ += taken;
    if (buffered_ < kSha256BlockBytes) return;
    blocks_(state_.data(), buffer_.data(), 1);
    next += taken;
    bytes -= taken;
  }
  const size_t blocks = bytes / kSha256BlockBytes;
  if (blocks > 0) blocks_(state_.data(), next, blocks);
  buffered_ = bytes % kSha256BlockBytes;
  std::memcpy(buffer_.data(), next + blocks * kSha256BlockBytes, buffered_);
}

Sha256::Digest Sha256::Finish() {
  constexpr uint8_t kPadding[kSha256BlockBytes] = {0x80};
  const uint64_t bits = total_ * 8;
  Update(kPadding, kLengthAt - buffered_ + (buffered_ < kLengthAt ? 0 : kSha256BlockBytes));
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  Update(length, 8);
  Digest digest;
  for (size_t i = 0; i < 32; ++i) digest[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  return digest;
}

std::string ToHex(const Sha256::Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace openlora
