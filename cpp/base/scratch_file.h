#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/status.h"

namespace openlora {

// A file without a name, of this process alone: it is gone when the process is, however that ends. Appends from one
// thread at a time; reads and frees from any.
class ScratchFile {
 public:
  ScratchFile() = default;
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  // In the folder, which is there. Once.
  Status Create(const std::string& folder);
  bool is_open() const { return descriptor_ >= 0; }
  // ERR_IO leaves what was there; *offset is where `data` stands from now on.
  Status Append(const void* data, size_t bytes, int64_t* offset);
  Status ReadAt(int64_t offset, void* data, size_t bytes) const;
  // Gives the disk its blocks back, where the file system can.
  void Free(int64_t offset, int64_t bytes);

 private:
  std::string folder_;
  int descriptor_ = -1;
  int64_t end_ = 0;
};

}  // namespace openlora
