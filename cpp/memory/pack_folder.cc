#include "memory/pack_folder.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string_view>
#include <vector>

#include "base/new_file.h"

namespace openlora {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExtension = ".adapter";
constexpr size_t kNameDigits = 32;
constexpr std::chrono::minutes kUseStep{10};

bool IsPackName(std::string_view name) {
  return name.size() == kNameDigits + kExtension.size() && name.ends_with(kExtension) &&
         name.find_first_not_of("0123456789abcdef") == kNameDigits;
}

struct Pack {
  fs::path path;
  fs::file_time_type used;
  int64_t bytes = 0;
};

std::vector<Pack> ListPacks(const std::string& folder) {
  std::vector<Pack> packs;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (!IsPackName(entry->path().filename().string())) continue;
    std::error_code gone;  // meanwhile, by another process
    if (entry->symlink_status(gone).type() != fs::file_type::regular) continue;
    const auto bytes = static_cast<int64_t>(entry->file_size(gone));
    const fs::file_time_type used = entry->last_write_time(gone);
    if (!gone) packs.push_back({entry->path(), used, bytes});
  }
  return packs;
}

}  // namespace

std::string PackName(const std::string& key_hex) { return key_hex.substr(0, kNameDigits) + std::string(kExtension); }

void RemoveAbandonedPacks(const std::string& folder) {
  RemoveAbandonedFiles(folder, [](std::string_view name) { return IsPackName(name) || name == "scratch"; });
}

int64_t TrimPacks(const std::string& folder, int64_t bytes_max) {
  std::vector<Pack> packs = ListPacks(folder);
  int64_t bytes = 0;
  for (const Pack& pack : packs) bytes += pack.bytes;
  if (bytes <= bytes_max) return bytes;
  std::sort(packs.begin(), packs.end(), [](const Pack& a, const Pack& b) { return a.used < b.used; });
  for (const Pack& pack : packs) {
    if (bytes <= bytes_max / 10 * 9) break;
    std::error_code failed;
    fs::remove(pack.path, failed);
    if (!failed) bytes -= pack.bytes;
  }
  return bytes;
}

void MarkPackUsed(const std::string& path) {
  std::error_code failed;
  const auto now = fs::file_time_type::clock::now();
  const fs::file_time_type used = fs::last_write_time(path, failed);
  if (!failed && now - used > kUseStep) fs::last_write_time(path, now, failed);
}

}  // namespace openlora
