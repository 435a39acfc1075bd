#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/file.h"
#include "base/status.h"

namespace openlora {

// A whole file mapped read-only. Only the base's own files and its packed weights are mapped: truncating one while it
// is loaded raises SIGBUS, the one documented exception to "bad input never ends the process".
class MappedFile {
 public:
  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  static Status Open(const std::string& path, MappedFile* file);

  const uint8_t* data() const { return data_; }
  int64_t size() const { return identity_.size; }
  const std::string& path() const { return path_; }
  const FileIdentity& identity() const { return identity_; }

  // Asks the system to read [offset, offset + bytes) ahead, or to take its pages back: a hint in both cases.
  void WillNeed(int64_t offset, int64_t bytes) const;
  void DoneWith(int64_t offset, int64_t bytes) const;
  // Reads [offset, offset + bytes) into the page cache and maps it: no later access waits for it. ERR_IO where the
  // system can't read it.
  Status Populate(int64_t offset, int64_t bytes) const;

 private:
  const uint8_t* data_ = nullptr;
  FileIdentity identity_;
  std::string path_;
};

}  // namespace openlora
