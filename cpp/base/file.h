#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace openlora {

// What tells that a path still leads to the same content.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t modified_ns = 0;
  bool operator==(const FileIdentity&) const = default;
};

// A regular file, read-only. Reads carry their own offset, so threads may share it.
class File {
 public:
  File() = default;
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  static Status Open(const std::string& path, File* file);
  // ERR_IO when the file ends before offset + bytes.
  Status ReadAt(int64_t offset, void* data, size_t bytes) const;

  // Reads what the system holds in memory, without waiting for a disk. False if some of it isn't there, or where the
  // system can't tell.
  bool ReadCachedAt(int64_t offset, void* data, size_t bytes) const;

  // Hints for the whole file: it will be read soon; its pages may leave the page cache, but for those that are not on
  // the disk yet.
  void WillNeed() const;
  void DoneWith() const;
  // Has the system forget what it holds of the file in memory, so that whoever reads next waits for the disk. False
  // where it can't be asked to.
  bool ForgetPages() const;

  const FileIdentity& identity() const { return identity_; }
  int64_t size() const { return identity_.size; }
  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_ = -1;
  FileIdentity identity_;
  std::string path_;
};

}  // namespace openlora
