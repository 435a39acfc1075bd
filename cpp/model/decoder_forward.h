#pragma once

#include <atomic>
#include <cstdint>

#include "model/model_config.h"
#include "model/model_weights.h"
#include "ops/ops.h"

namespace openlora {

// Activations of a step of up to T rows in the memory of the ops' device; f32 where nothing else is said.
struct DecoderBuffers {
  TensorView x;                   // [T, H] the residual stream
  TensorView normed;              // [T, H] Ops::input_dtype()
  TensorView added;               // [T, H] on its way to x; in the memory of `normed` if that is f32
  TensorView qkv;                 // [T, (heads + 2 kv_heads) * head_dim]
  TensorView context;             // [T, heads * head_dim] Ops::input_dtype()
  TensorView gate_up;             // [T, 2 * intermediate]
  TensorView cos_sin[kRopesMax];  // [T, rotary_dim]
  TensorView last;                // [logit rows, H]
  TensorView logits;              // [logit rows, V]
};

// Bytes that buffers for `rows` rows and `logit_rows` rows of logits need, and the views over such memory.
int64_t DecoderBufferBytes(const ModelConfig& config, DType input, int32_t rows, int32_t logit_rows);
DecoderBuffers MakeDecoderBuffers(const ModelConfig& config, DType input, int32_t rows, int32_t logit_rows,
                                  void* memory);
// What the ops of such steps are asked for at most, at `context` positions, in everything but dtypes.
StepLimits LimitsOf(const ModelConfig& config, int32_t rows, int32_t logit_rows, int32_t context);

// Computes the batch: KV of all rows is appended, buffers.logits holds a row for each of logit_rows. Returns early,
// with unusable results, when `is_aborted` is set.
void DecoderForward(const ModelConfig& config, const ModelWeights& weights, const BatchView& batch,
                    const DecoderBuffers& buffers, Ops* ops, const std::atomic<bool>& is_aborted);

}  // namespace openlora
