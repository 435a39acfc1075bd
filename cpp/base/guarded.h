#pragma once

#include <exception>
#include <new>
#include <system_error>

#include "base/status.h"

namespace openlora {

// The status of body(). Nothing of ours throws; the standard library may, when memory or threads are short.
template <typename Body>
Status Guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Status(kErrOutOfMemory, "the host's memory is exhausted");
  } catch (const std::system_error& error) {
    return Status(kErrThreads, std::string("the system starts no more threads: ") + error.what());
  } catch (const std::exception& exception) {
    return Status(kErrInternal, exception.what());
  }
}

}  // namespace openlora
