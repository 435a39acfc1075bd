#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace openlora {

// The outcome of a call. A code is a string literal ("ERR_…", listed in docs/errors.md) that reaches
// the user unchanged; the message says what, what was got, and what was wanted.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(const char* code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == nullptr; }
  const char* code() const { return code_ == nullptr ? "" : code_; }
  const std::string& message() const { return message_; }

 private:
  const char* code_ = nullptr;
  std::string message_;
};

inline Status Ok() { return {}; }

// printf-style, for messages with numbers in them.
[[gnu::format(printf, 2, 3)]] Status Error(const char* code, const char* format, ...);

inline constexpr char kErrOutOfMemory[] = "ERR_OUT_OF_MEMORY";
inline constexpr char kErrIo[] = "ERR_IO";
inline constexpr char kErrInternal[] = "ERR_INTERNAL";
inline constexpr char kErrAborted[] = "ERR_ABORTED";
inline constexpr char kErrThreads[] = "ERR_THREADS";

inline bool IsAborted(const Status& status) { return status.code() == std::string_view(kErrAborted); }

#define OPENLORA_RETURN_IF_ERROR(expression)   \
  do {                                         \
    ::openlora::Status status_ = (expression); \
    if (!status_.ok()) return status_;         \
  } while (false)

}  // namespace openlora
