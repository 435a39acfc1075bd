#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/sample_kernels.h"

// What the op code (compiled once, portable) and the kernels (compiled once per level) say to each other: plain structs
// of pointers and sizes. Included by level files, so nothing here may have a body that a linker could share.

namespace openlora {

inline constexpr int kDTypes = 3;       // a table of kernels is indexed by DType: f32, f16, bf16
inline constexpr int kTileDTypes = 4;   // of adapters int8 as well
inline constexpr int kActivations = 2;  // likewise by Activation: silu, gelu_tanh

// Base weights. Packed [out/32] panels, 64-byte aligned: f32 and f16 [K][32]; bf16 [K/2][32][2] (odd K: zero-padded);
// int8 [K/128] (zero-padded before the rotation) of { [32][32][4] bytes w + 128: fours of k, outputs; [32] f16 scales
// }; int4 [K/32] of { [4][32][4] bytes: indices of the fours of k 2j (low halves) and 2j + 1; [32] f16 scales }.
// Whoever changes any of it raises kPackedLayout (layout.h).
inline constexpr int kPanel = 32;                                  // outputs
inline constexpr int64_t kInt8GroupBytes = kPanel * (128 + 2);     // of a panel's weights, with their scales
inline constexpr int64_t kInt4GroupBytes = kPanel * (32 / 2 + 2);  // likewise
inline constexpr int kTileRows = 8;  // rows that share a weight while it is in a register, at most
inline constexpr int kBlockK = 128;  // columns of a panel that stay in L1 while many rows pass (16 KB as f32)

inline constexpr int kScaleColumns = 32;   // of an int8 tile that share a scale in each rank
inline constexpr int kBF16DotGroupK = 64;  // columns of x that are rounded together

struct PanelsArgs {
  const float* x = nullptr;  // [rows, in]
  int64_t x_stride = 0;      // elements
  // For weights that have their own x, in place of it: [rows, groups] of QuantisedFormat::group_bytes.
  const uint8_t* x_quantised = nullptr;
  int64_t x_stride_groups = 0;
  int32_t rows = 0;
  int64_t in = 0;
  const void* weights = nullptr;  // the matrix's first byte
  int64_t panel_bytes = 0;
  int64_t out = 0;
  const float* bias = nullptr;  // [out] or null
  float* y = nullptr;           // [rows, out]
  int64_t y_stride = 0;
  bool accumulates = false;  // y += …
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  float* scratch = nullptr;  // PanelScratchFloats(rows), of this thread
};

// Partial sums [rows][32] and a block of weights unpacked to f32.
static constexpr int64_t PanelScratchFloats(int64_t rows) { return (rows + kBlockK + 1) * kPanel; }

// Columns of a LoRA tile: whole groups of 32 (f32: of 16) but for a run's last ones. In a list they stand in the order
// in which they are read.
struct TileSpan {
  const uint8_t* data = nullptr;   // of the first of the columns
  const uint8_t* ahead = nullptr;  // while they are read, as many bytes are prefetched from here
  int64_t columns = 0;
};

// One chunk of columns of eight (or fewer) ranks of one adapter, for all entries of its segment.
// A tile: f32 and f16 [K/2][ranks][2]; bf16 [K/4][ranks]{k, k+2, k+1, k+3}; K is padded with zeros to a multiple of 4.
// int8 [K/32] of { [ranks] bf16 scales; [16][ranks][2] }, the last group as wide as it is.
struct ShrinkArgs {
  const float* x = nullptr;  // [T, in], column 0 of the matrix
  int64_t x_stride = 0;
  const int32_t* entry_row = nullptr;  // [entries]
  int32_t entries = 0;
  const TileSpan* spans = nullptr;  // [those that make up `columns`]
  int32_t ranks = 0;                // <= 8
  int64_t column_begin = 0;
  int32_t columns = 0;       // of this chunk
  float* partial = nullptr;  // out: [entries][8]
};

// All ranks of one adapter onto panels [panel_begin, panel_end) of one site, for all entries of its segment.
// B tile: f32 and f16 [columns/32][ranks][32]; bf16 [columns/32] of { [ranks/2][32][2], then [32] of an odd last rank
// }; int8 [columns/32] of { [ranks] bf16 scales; [ranks][32] }. The last panel is as wide as it is (`columns` % 32 in
// place of 32).
struct ExpandArgs {
  const float* coefficients = nullptr;  // [entries][rank_stride]: entry weight times h
  int64_t rank_stride = 0;
  const int32_t* entry_row = nullptr;
  int32_t entries = 0;
  const TileSpan* spans = nullptr;  // [eights][those that make up the panels]
  int32_t rank = 0;
  int64_t out = 0;
  float* y = nullptr;  // [T, out]
  int64_t y_stride = 0;
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
};

inline constexpr int kQuantisedFormats = 2;                 // int8, int4
inline constexpr int kOwnXFormats = kQuantisedFormats + 1;  // and bf16 by bf16

// How x is made ready for weights of one format, and multiplied.
struct QuantisedFormat {
  int64_t group_bytes;  // of a group of a row's activations
  // Groups [begin, end) of a row x [in]; `groups` is where group 0 stands.
  void (*quantise)(const float* x, int64_t in, int64_t begin, int64_t end, uint8_t* groups);
  void (*panels)(const PanelsArgs& args);
};

// Quantised base weights (ops/int8_format.h, ops/int4_format.h).
struct QuantisedKernels {
  QuantisedFormat formats[kQuantisedFormats];
  // int8: x [count], count <= 128, padded with zeros and rotated
  void (*rotate)(const float* x, int32_t count, float* rotated);
  // The other way: rotated [128] into x [count].
  void (*rotate_back)(const float* rotated, int32_t count, float* x);
  // int4: the scale of w [32], before it is rounded to f16; largest = max |w|, finite and at least kInt4Least.
  float (*int4_scale)(const float* w, float largest);
  // index [32] of w [32] at a scale that isn't 0
  void (*int4_assign)(const float* w, float scale, uint8_t* index);
};

struct KernelTable {
  const char* level;
  void (*panels[kDTypes])(const PanelsArgs& args);
  QuantisedKernels quantised;
  QuantisedFormat bf16_dot;  // weights as in panels[bf16]; see ops/bf16_dot.h
  void (*shrink[kTileDTypes])(const ShrinkArgs& args);
  void (*expand[kTileDTypes])(const ExpandArgs& args);
  // coefficients[e][r] = (weight[e] * scale) * Σ_chunk partial[chunk][e][r] over ascending chunks, 8 ranks each.
  void (*sum_chunks)(const float* partial, int64_t chunks, int64_t entries, const float* weight, float scale,
                     float* coefficients, int64_t stride);
  // out = x / sqrt(mean(x²) + eps) * gain over dim
  void (*rms_norm)(const float* x, const float* gain, int64_t dim, float eps, float* out);
  // x[0, half) and x[half, 2 half) rotated by cos_sin = half cosines, then half sines
  void (*rope)(float* x, const float* cos_sin, int64_t half);
  // out = activation(gate) * up, by Activation; out may be gate
  void (*gated_activation[kActivations])(const float* gate, const float* up, int64_t count, float* out);
  // out += scale * x
  void (*add_scaled)(const float* x, float scale, float* out, int64_t count);
  // x = cap * tanh(x / cap)
  void (*soft_cap)(float* x, float cap, int64_t count);
  // x *= scale
  void (*scale)(float* x, float scale, int64_t count);

  AttentionKernels attention;
  AttentionDotKernels attention_dots;
  SampleKernels sample;
};

extern const KernelTable kKernelsScalar;
extern const KernelTable kKernelsAvx2;
extern const KernelTable kKernelsAvx512;
extern const KernelTable kKernelsNeon;
// Levels that differ from the one below in these alone.
extern const QuantisedKernels kQuantisedAvx512Vnni;
extern const QuantisedKernels kQuantisedNeonDotprod;
// By vdpbf16ps: beside avx512-vnni's, where that instruction is faster than FMAs.
extern const QuantisedFormat kBF16DotAvx512;
extern const AttentionDotKernels kAttentionDotsAvx512;

}  // namespace openlora
