#pragma once

#include "ops/ops.h"

namespace openlora::reference {

int64_t KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens);
void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv, int32_t layer);

// out[t, h] = softmax_j(scale · q[t, h]·k[j]) · v[j] over the positions j that row t sees, in double, two passes. With
// bf16 dots (ops/kv_view.h) q is rounded; the weights are not.
void Attention(const AttentionArgs& args);

}  // namespace openlora::reference
