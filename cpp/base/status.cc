#include "base/status.h"

#include <cstdarg>
#include <cstdio>

namespace openlora {

Status Error(const char* code, const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return Status(code, text);
}

}  // namespace openlora
