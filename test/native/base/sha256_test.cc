#include "base/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/prng.h"

namespace openlora {
namespace {

std::string RandomBytes(uint64_t seed, size_t count) {
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(Philox(seed, i));
  return bytes;
}

template <typename NextPiece>
std::string HashInPieces(const Sha256Way& way, const std::string& text, NextPiece next_piece) {
  Sha256 hash(way);
  for (size_t i = 0, piece = 0; i < text.size(); i += piece) {
    piece = std::min<size_t>(next_piece(), text.size() - i);
    hash.Update(text.data() + i, piece);
  }
  return ToHex(hash.Finish());
}

std::string HashOf(const Sha256Way& way, const std::string& text, size_t piece) {
  return HashInPieces(way, text, [&] { return piece; });
}

// FIPS 180-4 examples, and NIST's million a's.
TEST(Sha256Test, EveryWayGivesTheStandardsExamplesInPiecesOfAnySize) {
  const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  for (const Sha256Way& way : Sha256Ways()) {
    SCOPED_TRACE(way.name);
    for (const size_t piece : {1u, 3u, 63u, 64u, 65u, 1000u, 1u << 20}) {
      EXPECT_EQ(HashOf(way, "", piece), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
      EXPECT_EQ(HashOf(way, "abc", piece), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
      EXPECT_EQ(HashOf(way, two_blocks, piece), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
      EXPECT_EQ(HashOf(way, std::string(1'000'000, 'a'), piece),
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
  }
}

TEST(Sha256Test, EveryWayGivesThePlainDigestOfAnyLengthInPiecesOfRandomSizes) {
  const Sha256Way& plain = Sha256Ways().front();
  uint64_t draws = 0;
  for (size_t length = 0; length <= 300; ++length) {
    const std::string text = RandomBytes(length, length);
    const std::string wanted = HashOf(plain, text, 64);
    for (const Sha256Way& way : Sha256Ways())
      for (const uint64_t sizes : {8, 100, 300})  // none up to one less
        ASSERT_EQ(HashInPieces(way, text, [&] { return Philox(1, draws++) % sizes; }), wanted)
            << way.name << ", " << length << " bytes, pieces below " << sizes;
  }
}

TEST(Sha256Test, EveryWayGivesThePlainDigestOfAMegabyteThatIsAlignedToNothing) {
  const std::string text = RandomBytes(7, (size_t{1} << 20) + 37);
  const auto hash_from = [&](const Sha256Way& way, size_t begin) {
    Sha256 hash(way);
    hash.Update(text.data() + begin, text.size() - begin);
    return ToHex(hash.Finish());
  };
  for (const size_t begin : {0u, 1u, 8u, 31u}) {
    const std::string wanted = hash_from(Sha256Ways().front(), begin);
    for (const Sha256Way& way : Sha256Ways()) EXPECT_EQ(hash_from(way, begin), wanted) << way.name;
  }
}

TEST(Sha256Test, TheProcessorsInstructionsAreTakenWhereTheSystemShowsThem) {
  EXPECT_STREQ(Sha256Ways().front().name, "plain");
#if defined(__x86_64__)
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line) && line.rfind("flags", 0) != 0) continue;
  if (!info) GTEST_SKIP() << "needs /proc/cpuinfo";
  line += ' ';
  bool has_all = true;
  for (const char* flag : {" sha_ni ", " ssse3 ", " sse4_1 "}) has_all &= line.find(flag) != std::string::npos;
  EXPECT_STREQ(Sha256Ways().back().name, has_all ? "sha-ni" : "plain");
#endif
}

}  // namespace
}  // namespace openlora
