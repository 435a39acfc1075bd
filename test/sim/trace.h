#pragma once

#include <array>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>

#include "base/clock.h"
#include "sim/digest.h"

namespace openlora::sim {

// What a run was ended by: the check that failed, by name, and what it saw.
struct SimFailure {
  std::string check;
  std::string message;
};

[[noreturn, gnu::format(printf, 2, 3)]] inline void Fail(const char* check, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  throw SimFailure{check, text};
}

// Everything that happens, in order: a digest of all of it, and the last events in words.
class Trace {
 public:
  void Note(int64_t step, const char* what, int64_t a = 0, int64_t b = 0) {
    for (const char* c = what; *c != 0; ++c) digest_ = Mix(digest_, static_cast<uint64_t>(*c));
    digest_ = Mix(Mix(Mix(digest_, static_cast<uint64_t>(step)), static_cast<uint64_t>(a)), static_cast<uint64_t>(b));
    last_[count_++ % last_.size()] = {step, NowMs(), what, a, b};
  }
  uint64_t digest() const { return digest_; }
  std::string Last() const {
    std::string text;
    for (size_t i = count_ < last_.size() ? 0 : count_ - last_.size(); i < count_; ++i) {
      const Event& event = last_[i % last_.size()];
      char line[160];
      std::snprintf(line, sizeof(line), "  step %lld, %.3f ms: %s %lld %lld\n", static_cast<long long>(event.step),
                    event.ms, event.what, static_cast<long long>(event.a), static_cast<long long>(event.b));
      text += line;
    }
    return text;
  }

 private:
  struct Event {
    int64_t step = 0;
    double ms = 0;
    const char* what = "";
    int64_t a = 0;
    int64_t b = 0;
  };
  std::array<Event, 40> last_{};
  size_t count_ = 0;
  uint64_t digest_ = 0;
};

}  // namespace openlora::sim
