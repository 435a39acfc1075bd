#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "kernels/lora.h"
#include "ops/batch_view.h"
#include "ops/context.h"

namespace openlora {

// Page tables of resident adapters in device memory, copied when a step first uses an adapter since it was loaded. What
// a slot's earlier adapter had is used again.
class AdapterTables {
 public:
  explicit AdapterTables(CudaContext& context) : context_(context) {}
  ~AdapterTables();
  AdapterTables(const AdapterTables&) = delete;
  AdapterTables& operator=(const AdapterTables&) = delete;

  // `pages` has `sites` sites, and stays until the context is synchronised.
  Status Find(int32_t slot, const SlotPages& pages, int32_t sites, lora::Slot* found);

 private:
  struct Table {
    uint64_t load = 0;
    size_t bytes = 0;
    lora::Slot slot = {};
  };

  Status Take(size_t bytes, void** memory);

  CudaContext& context_;
  std::vector<Table> tables_;                  // by slot
  std::map<size_t, std::vector<void*>> free_;  // by bytes
  std::vector<void*> slabs_;
  uint8_t* next_ = nullptr;  // in the last slab
  size_t left_ = 0;
};

}  // namespace openlora
