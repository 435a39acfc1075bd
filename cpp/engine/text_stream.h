#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace openlora {

// Turns the bytes of generated tokens into text that may be shown: whole UTF-8 characters, and nothing that could still
// become a stop string. Invalid bytes become U+FFFD, one for each maximal subpart, as the WHATWG decoder does.
class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stops = {}) : stops_(std::move(stops)) {}

  // Appends a token's bytes and moves what may be shown to `released`. True when a stop string is complete: the text
  // before it is released, the rest is dropped. Stop strings are looked for only if `has_stops`; text that is
  // released without being looked at can no longer be part of one.
  bool Append(std::string_view bytes, bool has_stops, std::string* released);
  // The end of the answer: releases what was held back; an unfinished character becomes U+FFFD.
  void Finish(std::string* released);

 private:
  std::string raw_;   // the beginning of a character, at most 3 bytes
  std::string held_;  // whole characters: a proper prefix of a stop string
  std::vector<std::string> stops_;
};

// Moves the whole characters at the front of `raw` to `text`. An unfinished one stays, unless `is_end`.
void DecodeUtf8(std::string* raw, bool is_end, std::string* text);

}  // namespace openlora
