#include "engine/text_stream.h"

#include <algorithm>
#include <cstdint>

namespace openlora {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Character {
  size_t length = 0;  // bytes that it takes, or that the invalid part takes
  bool is_valid = false;
  bool is_unfinished = false;  // a valid beginning, and the bytes end
};

// The first character of `bytes`, by table 3-7 of the Unicode standard (well-formed UTF-8 byte sequences).
Character FirstCharacter(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint8_t low = 0x80, high = 0xBF;  // of the second byte
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {i, false, true};
    if (at(i) < low || at(i) > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true, false};
}

// Length of the longest end of `text` that is a proper prefix of `stop`.
size_t PrefixHeld(const std::string& text, const std::string& stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.compare(text.size() - length, length, stop, 0, length) == 0) return length;
  }
  return 0;
}

}  // namespace

void DecodeUtf8(std::string* raw, bool is_end, std::string* text) {
  size_t done = 0;
  while (done < raw->size()) {
    const std::string_view rest = std::string_view(*raw).substr(done);
    const Character character = FirstCharacter(rest);
    if (character.is_unfinished && !is_end) break;
    text->append(character.is_valid ? rest.substr(0, character.length) : kReplacement);
    done += character.length;
  }
  raw->erase(0, done);
}

bool TextStream::Append(std::string_view bytes, bool has_stops, std::string* released) {
  raw_ += bytes;
  DecodeUtf8(&raw_, false, &held_);
  size_t stop_at = std::string::npos, keep = 0;
  if (has_stops) {
    for (const std::string& stop : stops_) {
      stop_at = std::min(stop_at, held_.find(stop));
      keep = std::max(keep, PrefixHeld(held_, stop));
    }
  }
  if (stop_at != std::string::npos) {
    released->append(held_, 0, stop_at);
    held_.clear();
    raw_.clear();
    return true;
  }
  released->append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

void TextStream::Finish(std::string* released) {
  DecodeUtf8(&raw_, true, &held_);
  released->append(held_);
  held_.clear();
}

}  // namespace openlora
