#pragma once

#include <vector>

#include "bench/op_load.h"
#include "memory/tile_layout.h"

namespace openlora {

// Products of the base, or what adapters add to them.
class ProjectLoad final : public CudaOpLoad {
 public:
  ProjectLoad(const CudaOpCase& shape, std::shared_ptr<CudaContext> context) : CudaOpLoad(shape, std::move(context)) {}

 private:
  static constexpr int64_t kFrameBytes = 64 << 10;

  StepLimits Measure() override;
  Status MakeData(int32_t copies) override;
  void Launch(int32_t copy) override;
  Status Compare(double* error, double* error_max) override;

  bool is_base() const { return shape_.kind == CudaOpKind::kBase; }
  Status MakeWeights(int32_t copies);
  Status MakeAdapters(int32_t copies);
  void PackSite(int32_t adapter, const SitePages& site, size_t product, std::vector<uint8_t>* pool);
  double Wanted(int64_t row, size_t product, int64_t out) const;

  uint16_t* x_ = nullptr;   // [rows, in]
  std::vector<float*> ys_;  // [rows, out] each
  uint8_t* weights_ = nullptr;
  std::vector<Weight> list_;  // of one launch
  std::vector<TileLayout> layouts_;
  std::vector<std::vector<uint32_t>> frames_;
  std::vector<SlotPages> slots_;
};

}  // namespace openlora
