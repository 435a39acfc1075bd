#pragma once

#include <vector>

#include "bench/op_load.h"

namespace openlora {

// Attention over KV of which every copy is a layer.
class AttentionLoad final : public CudaOpLoad {
 public:
  AttentionLoad(const CudaOpCase& shape, std::shared_ptr<CudaContext> context)
      : CudaOpLoad(shape, std::move(context)) {}

 private:
  static constexpr int32_t kFrameTokens = 16;

  StepLimits Measure() override;
  Status MakeData(int32_t copies) override;
  void Launch(int32_t copy) override;
  Status Compare(double* error, double* error_max) override;

  int64_t q_cols() const { return int64_t{shape_.heads} * shape_.head_dim; }
  int32_t sequences() const { return shape_.is_prefill ? 1 : shape_.rows; }
  int32_t length() const { return shape_.context + (shape_.is_prefill ? shape_.rows : 1); }
  float scale() const;
  // Element `column` of K or V of a token.
  float Held(bool is_k, int64_t sequence, int64_t position, int64_t head, int64_t column) const;
  std::vector<uint16_t> Frame(int32_t sequence, int32_t block) const;
  // Of a head of a row.
  std::vector<double> Wanted(int64_t row, int64_t head) const;

  float* q_ = nullptr;       // [rows, heads * head_dim]
  uint16_t* out_ = nullptr;  // likewise
};

}  // namespace openlora
