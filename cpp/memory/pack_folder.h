#pragma once

#include <cstdint>
#include <string>

namespace openlora {

// A pack file's name in its folder; anything else there is left alone.
std::string PackName(const std::string& key_hex);

// Removes what writers that were killed left behind.
void RemoveAbandonedPacks(const std::string& folder);
// Bytes of the folder's pack files. If they are more than `bytes_max`, those used longest ago go until nine tenths of
// it are left, so that this needn't be done for each new one. Any number of processes may do it at once: a file that is
// gone is made again, and who has it open reads on.
int64_t TrimPacks(const std::string& folder, int64_t bytes_max);
// The file is used now, if that hasn't been said for ten minutes.
void MarkPackUsed(const std::string& path);

}  // namespace openlora
