#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace openlora {

// A file that appears at its path whole or not at all: written beside it, under "<path>.tmp-" and six characters that
// nobody can foretell, then renamed over what is there. Its owner alone may read it. It is locked (flock) while it is
// written: what is left of a writer that was killed isn't.
class NewFile {
 public:
  NewFile() = default;
  ~NewFile();  // removes it unless committed
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  // Makes the folder and those above it (mode 0700) where they are missing. Once.
  Status Create(const std::string& path);
  // At the end of what was written.
  Status Write(const void* data, size_t bytes);
  // Anywhere; what is never written before its end reads as zeros.
  Status WriteAt(int64_t offset, const void* data, size_t bytes);
  // Waits until what was written is on the disk.
  Status Sync();
  Status Commit();
  // Puts it at its path without waiting for the disk: for a file whose readers can tell a torn one. Sync may follow.
  Status Publish();
  // Where it stands until it is committed.
  const std::string& temporary_path() const { return temporary_path_; }

 private:
  int descriptor_ = -1;
  std::string path_;
  std::string temporary_path_;  // empty once committed
};

// With those above it, mode 0700, where they are missing.
Status MakePrivateFolder(const std::string& folder);

// Removes from the folder what writers that were killed left of files whose names are ours: a minute ago or longer, and
// locked by nobody.
void RemoveAbandonedFiles(const std::string& folder, const std::function<bool(std::string_view name)>& is_ours);

}  // namespace openlora
