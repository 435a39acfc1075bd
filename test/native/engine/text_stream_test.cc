#include "engine/text_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace openlora {
namespace {

// What a reader sees, piece by piece joined by '|', when the bytes come one at a time.
std::string Stream(const std::string& bytes, std::vector<std::string> stops = {}) {
  TextStream stream(std::move(stops));
  std::string seen;
  for (const char byte : bytes) {
    std::string released;
    const bool is_stop = stream.Append({&byte, 1}, true, &released);
    if (!released.empty()) seen += released + "|";
    if (is_stop) return seen + "STOP";
  }
  std::string rest;
  stream.Finish(&rest);
  return rest.empty() ? seen : seen + rest + "|";
}

std::string Decode(std::string bytes) {
  std::string text;
  DecodeUtf8(&bytes, true, &text);
  EXPECT_TRUE(bytes.empty());
  return text;
}

TEST(TextStreamTest, NeverCutsACharacter) { EXPECT_EQ(Stream("aé€😀z"), "a|é|€|😀|z|"); }

TEST(TextStreamTest, ReplacesInvalidBytesAsTheWhatwgDecoderDoes) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(Decode("a\x80z"), "a" + r + "z");
  EXPECT_EQ(Decode("\xC0\xAF"), r + r);  // overlong
  EXPECT_EQ(Decode("\xE2\x82"), r);      // one maximal subpart
  EXPECT_EQ(Decode("\xE2\x82z"), r + "z");
  EXPECT_EQ(Decode("\xED\xA0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(Decode("\xF0\x9F\x98"), r);
  EXPECT_EQ(Decode("\xF0\x9F\x98\xF0\x9F\x98\x80"), r + "\xF0\x9F\x98\x80");
  EXPECT_EQ(Decode("\xF4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(Decode("\xFF"), r);
}

TEST(TextStreamTest, AnUnfinishedCharacterAtTheEndIsReplaced) { EXPECT_EQ(Stream("a\xE2\x82"), "a|\xEF\xBF\xBD|"); }

TEST(TextStreamTest, NeverShowsAPartOfAStopString) {
  EXPECT_EQ(Stream("one\n\ntwo", {"\n\n"}), "o|n|e|STOP");
  EXPECT_EQ(Stream("a-b--c", {"--"}), "a|-b|STOP");
  EXPECT_EQ(Stream("ab-", {"--"}), "a|b|-|");  // never became one
}

TEST(TextStreamTest, HoldsThroughRepeatedAndOverlappingPrefixes) {
  EXPECT_EQ(Stream("aaab", {"aab"}), "a|STOP");
  EXPECT_EQ(Stream("ababac", {"abac"}), "ab|STOP");
  EXPECT_EQ(Stream("xabcy", {"abd", "bcz"}), "x|a|bcy|");
}

TEST(TextStreamTest, TheEarliestOfSeveralStopsCounts) {
  TextStream stream({"world", "lo"});
  std::string released;
  EXPECT_TRUE(stream.Append("hello world", true, &released));
  EXPECT_EQ(released, "hel");
}

TEST(TextStreamTest, AStopStringMayEndWithACharacterOfSeveralBytes) { EXPECT_EQ(Stream("a€b", {"€"}), "a|STOP"); }

TEST(TextStreamTest, StopsAreNotLookedForWhenAskedNotTo) {
  TextStream stream({"b"});
  std::string released;
  EXPECT_FALSE(stream.Append("abc", false, &released));
  EXPECT_EQ(released, "abc");
  EXPECT_TRUE(stream.Append("ab", true, &released));
  EXPECT_EQ(released, "abca");
}

}  // namespace
}  // namespace openlora
