#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"

namespace openlora {

// What is on its way into device memory, in parts that arrive in order. Ops that read of it wait for the part that they
// need, and nothing else does.
class Landing {
 public:
  virtual ~Landing() = default;
  // Whether all of it has arrived; waits for nothing.
  virtual bool IsDone() = 0;
  virtual void Wait() = 0;

  std::vector<int32_t> part_of_site;  // the last part that holds something of a site, -1: none; by who fills it
};

// Copies to a device that go on by themselves beside what it computes, from memory that it reads by itself. For one
// thread; each thread has its own.
class Uploads {
 public:
  virtual ~Uploads() = default;
  // Memory to be filled and copied from, until the next call. Waits while the device still copies from all that there
  // is.
  virtual Status Stage(size_t bytes, uint8_t** memory) = 0;
  virtual void Copy(void* destination, const void* staged, size_t bytes) = 0;
  // What was copied since the last call is the next part.
  virtual void EndPart() = 0;
  // Of all parts.
  virtual std::shared_ptr<Landing> Leave() = 0;
};

// Memory of the machine that computes.
class Device {
 public:
  virtual ~Device() = default;

  // The ops read any memory of the process, a mapped file's too: what is in it needs no Upload.
  virtual bool is_host() const = 0;
  // That a pool may be made of where nobody says how large it is; 0: unknown.
  virtual int64_t FreeBytes() { return 0; }
  // Zeroed, aligned to 4 KiB at least. ERR_OUT_OF_MEMORY when there isn't that much.
  virtual Status Allocate(size_t bytes, void** data) = 0;
  virtual void Free(void* data, size_t bytes) = 0;
  // Copies host memory to device memory; done on return. Any thread may call it.
  virtual Status Upload(void* destination, const void* source, size_t bytes) = 0;
  // Null where Upload is all there is.
  virtual std::unique_ptr<Uploads> BeginUploads() { return nullptr; }
};

}  // namespace openlora
