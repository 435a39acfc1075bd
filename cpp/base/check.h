#pragma once

namespace openlora {

// Ends the process. Only for states that no input can reach: a broken invariant of our own.
[[noreturn]] void CheckFailed(const char* expression, const char* file, int line);

}  // namespace openlora

// Kept in release builds.
#define OPENLORA_CHECK(expression)                              \
  do {                                                          \
    if (!(expression)) [[unlikely]]                             \
      ::openlora::CheckFailed(#expression, __FILE__, __LINE__); \
  } while (false)
