// Tokens' bytes and stop strings into TextStream, against a model that keeps the whole answer and looks at all of it
// anew for every token.

#include <algorithm>
#include <array>

#include "engine/text_stream.h"
#include "fuzz/fuzz_input.h"

namespace openlora::fuzz {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// Beginnings of well-formed characters: made by encoding every scalar value, not by a table of byte ranges.
class Beginnings {
 public:
  Beginnings() {
    for (uint32_t value = 0; value < 0x110000; ++value) {
      if (value >= 0xD800 && value < 0xE000) continue;
      uint8_t bytes[4];
      const int length = Encode(value, bytes);
      for (int cut = 1; cut < length; ++cut) (cut == 1 ? one_ : cut == 2 ? two_ : three_)[Key(bytes, cut)] = true;
    }
  }
  // Whether the first `length` of `bytes` begin a longer character.
  bool Has(const uint8_t* bytes, int length) const {
    return (length == 1 ? one_ : length == 2 ? two_ : three_)[Key(bytes, length)];
  }
  // Whether `bytes` are one whole character.
  static bool IsWhole(const uint8_t* bytes, int length) {
    static constexpr uint8_t kLeadMask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t value = bytes[0] & kLeadMask[length];
    for (int i = 1; i < length; ++i) value = value << 6 | (bytes[i] & 0x3Fu);
    uint8_t again[4];
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return false;
    return Encode(value, again) == length && std::equal(bytes, bytes + length, again);
  }

 private:
  static size_t Key(const uint8_t* bytes, int length) {
    size_t key = 0;
    for (int i = 0; i < length; ++i) key = key << 8 | bytes[i];
    return key;
  }
  static int Encode(uint32_t value, uint8_t* bytes) {
    const int length = value < 0x80 ? 1 : value < 0x800 ? 2 : value < 0x10000 ? 3 : 4;
    static constexpr uint8_t kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = length - 1; i > 0; --i, value >>= 6) bytes[i] = static_cast<uint8_t>(0x80 | (value & 0x3F));
    bytes[0] = static_cast<uint8_t>(kLead[length] | value);
    return length;
  }
  std::vector<bool> one_ = std::vector<bool>(1 << 8), two_ = std::vector<bool>(1 << 16),
                    three_ = std::vector<bool>(1 << 24);
};

// All of `bytes` as text; an unfinished character at their end is left out unless `is_end`.
std::string Decode(const std::string& bytes, bool is_end) {
  static const Beginnings beginnings;
  std::string text;
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  for (size_t at = 0; at < bytes.size();) {
    const int left = static_cast<int>(std::min<size_t>(4, bytes.size() - at));
    int whole = 0, part = 0;
    for (int length = 1; length <= left && whole == 0; ++length) {
      if (Beginnings::IsWhole(data + at, length)) whole = length;
    }
    for (int length = 1; length <= std::min(left, 3); ++length) {
      if (beginnings.Has(data + at, length)) part = length;
    }
    if (whole > 0) {
      text.append(bytes, at, static_cast<size_t>(whole));
      at += static_cast<size_t>(whole);
    } else if (part > 0 && at + static_cast<size_t>(part) == bytes.size() && !is_end) {
      break;
    } else {
      text += kReplacement;
      at += static_cast<size_t>(std::max(1, part));
    }
  }
  return text;
}

// What may be shown of an answer so far.
class Model {
 public:
  explicit Model(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  bool Append(std::string_view bytes, bool has_stops) {
    bytes_ += bytes;
    const std::string text = Decode(bytes_, false);
    if (!has_stops) {
      begin_ = text.size();
      shown_ = text;
      return false;
    }
    size_t stop_at = std::string::npos, end = text.size();
    for (size_t at = begin_; at < text.size(); ++at) {
      for (const std::string& stop : stops_) {
        if (text.compare(at, stop.size(), stop) == 0 && stop_at == std::string::npos) stop_at = at;
        const std::string rest = text.substr(at);
        if (rest.size() < stop.size() && stop.compare(0, rest.size(), rest) == 0) end = std::min(end, at);
      }
    }
    shown_ = text.substr(0, stop_at == std::string::npos ? end : stop_at);
    return stop_at != std::string::npos;
  }
  void Finish() { shown_ = Decode(bytes_, true); }
  const std::string& shown() const { return shown_; }

 private:
  std::vector<std::string> stops_;
  std::string bytes_;
  std::string shown_;
  size_t begin_ = 0;  // stop strings are looked for in text from here on
};

void CheckShown(const std::string& released, const Model& model, const char* where) {
  FUZZ_CHECK(released == model.shown(), "after %s %zu bytes were released, the model shows %zu", where, released.size(),
             model.shown().size());
}

void Run(FuzzInput input) {
  std::vector<std::string> stops;
  for (int count = input.Range(0, 3); count > 0; --count) {
    std::string stop = input.Text(12);
    if (!stop.empty()) stops.push_back(std::move(stop));
  }
  const uint8_t tokens_without_stops = input.OneIn(2) ? input.Byte() % 8 : 0;
  TextStream stream(stops);
  Model model(stops);
  std::string released;
  for (int token = 0; token < 64 && !input.is_empty(); ++token) {
    // A piece of a stop string now and then: random bytes seldom meet one.
    std::string bytes;
    if (!stops.empty() && input.OneIn(3)) {
      const std::string& stop = stops[input.Byte() % stops.size()];
      const size_t from = input.Byte() % stop.size();
      bytes = stop.substr(from, 1 + input.Byte() % stop.size());
    } else {
      bytes = input.Text(9);
    }
    const bool has_stops = token >= tokens_without_stops;
    const bool has_stopped = stream.Append(bytes, has_stops, &released);
    FUZZ_CHECK(has_stopped == model.Append(bytes, has_stops), "token %d of %zu bytes", token, bytes.size());
    CheckShown(released, model, "a token");
    if (has_stopped) return;
  }
  stream.Finish(&released);
  model.Finish();
  CheckShown(released, model, "the end");
}

}  // namespace
}  // namespace openlora::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  openlora::fuzz::Run({data, size});
  return 0;
}
