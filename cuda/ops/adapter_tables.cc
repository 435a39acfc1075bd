#include "ops/adapter_tables.h"

#include <algorithm>
#include <bit>

namespace openlora {
namespace {

constexpr size_t kSlabBytes = 1 << 20;
constexpr size_t kBytesMin = 1024;

// Sizes are few, so that what one adapter gave back fits the next: eighths of a power of two.
size_t SizeClass(size_t bytes) {
  const size_t step = std::max(kBytesMin, std::bit_floor(bytes)) / 8;
  return std::max(kBytesMin, (bytes + step - 1) / step * step);
}

size_t AlignUp(size_t bytes) { return (bytes + 15) / 16 * 16; }

static_assert(sizeof(lora::Site) == sizeof(SitePages) && offsetof(lora::Site, a) == offsetof(SitePages, a) &&
              offsetof(lora::Site, b) == offsetof(SitePages, b) &&
              offsetof(lora::Site, scale) == offsetof(SitePages, scale));
static_assert(sizeof(lora::Run) == sizeof(TileRun) && offsetof(lora::Run, offset) == offsetof(TileRun, offset) &&
              offsetof(lora::Run, columns_first) == offsetof(TileRun, columns_first) &&
              offsetof(lora::Run, columns_each) == offsetof(TileRun, columns_each));

}  // namespace

AdapterTables::~AdapterTables() {
  for (void* const slab : slabs_) context_.Free(slab);
}

Status AdapterTables::Take(size_t bytes, void** memory) {
  std::vector<void*>& free = free_[bytes];
  if (!free.empty()) {
    *memory = free.back();
    free.pop_back();
    return Ok();
  }
  if (left_ < bytes) {
    const size_t slab_bytes = std::max(kSlabBytes, bytes);
    void* slab = nullptr;
    OPENLORA_RETURN_IF_ERROR(context_.Allocate("page tables of adapters", slab_bytes, &slab));
    slabs_.push_back(slab);
    next_ = static_cast<uint8_t*>(slab);
    left_ = slab_bytes;
  }
  *memory = next_;
  next_ += bytes;
  left_ -= bytes;
  return Ok();
}

Status AdapterTables::Find(int32_t slot, const SlotPages& pages, int32_t sites, lora::Slot* found) {
  if (tables_.size() <= static_cast<size_t>(slot)) tables_.resize(static_cast<size_t>(slot) + 1);
  Table& table = tables_[static_cast<size_t>(slot)];
  if (table.load != pages.load) {
    if (table.bytes > 0) free_[table.bytes].push_back(const_cast<lora::Site*>(table.slot.sites));
    table = {};
    const size_t site_bytes = AlignUp(static_cast<size_t>(sites) * sizeof(SitePages));
    const size_t run_bytes = AlignUp(pages.run_count * sizeof(TileRun));
    const size_t bytes = SizeClass(site_bytes + run_bytes + pages.frame_count * sizeof(uint32_t));
    void* memory = nullptr;
    OPENLORA_RETURN_IF_ERROR(Take(bytes, &memory));
    auto* const begin = static_cast<uint8_t*>(memory);
    const auto copy = [&](size_t offset, const void* from, size_t size) {
      context_.Copy(begin + offset, from, size);
      return begin + offset;
    };
    const void* const site_table = copy(0, pages.sites, static_cast<size_t>(sites) * sizeof(SitePages));
    const void* const runs = copy(site_bytes, pages.runs, pages.run_count * sizeof(TileRun));
    const void* const frames = copy(site_bytes + run_bytes, pages.frames, pages.frame_count * sizeof(uint32_t));
    table = {pages.load,
             bytes,
             {static_cast<const lora::Site*>(site_table), static_cast<const lora::Run*>(runs),
              static_cast<const uint32_t*>(frames)}};
  }
  *found = table.slot;
  return Ok();
}

}  // namespace openlora
