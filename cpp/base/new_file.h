#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace openlora {

// A file that appears at its path whole or not at all: written beside it, under "<path>.tmp-" and six characters that
// nobody can foretell, then renamed over what is there. Its owner alone may read it.
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
  // Waits until what was written is on the disk.
  Status Sync();
  Status Commit();

 private:
  int descriptor_ = -1;
  std::string path_;
  std::string temporary_path_;  // empty once committed
};

// Removes from the folder what writers that were killed left of files whose names are ours, a day ago or longer.
void RemoveAbandonedFiles(const std::string& folder, const std::function<bool(std::string_view name)>& is_ours);

}  // namespace openlora
