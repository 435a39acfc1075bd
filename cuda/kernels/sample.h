#pragma once

#include "device/kernel.h"

// A token for each row of logits [rows, V]; what a row asks for is said at SampleRow, ops/ops.h. Three launches: Scan
// finds the largest logit of each chunk of a row, Weigh the sum of its exponentials, Finish, a block a row, draws.
//
// The weight of a token, e^((x - max) / temperature), is an integer in units of 2^-44: sums of them are exact, whatever
// their order. So a result depends on neither the grid, the threads of a block, nor the sizes of chunk and list.

namespace openlora::sample {

inline constexpr int kMassBits = 44;        // of the largest logit's weight
inline constexpr int kBins = 32;            // of (max - x) / temperature, 1 wide; those from 31 on weigh nothing
inline constexpr int kTop = 20;             // kTopLogprobsMax
inline constexpr int kThreads = 128;        // of a block of Scan and of Weigh, at most
inline constexpr int kFinishThreads = 512;  // at most
inline constexpr int kVocabularyMax = 1 << 18;
inline constexpr int kChunk = 4096;     // what Params::chunk should be
inline constexpr int kChunkMax = 8192;  // with kThreads; 64 times a block's threads
inline constexpr int kChunksMax = 256;
inline constexpr int kListMax = 2048;
inline constexpr int kListMin = 64;

struct Bias {
  int32_t token;
  float bias;
};
struct Seen {
  int32_t token;
  int32_t count;
};
struct Row {
  int32_t target;
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  int32_t logprobs;
  uint64_t seed;
  uint64_t draw_index;
  float repetition_penalty;
  float frequency_penalty;
  float presence_penalty;
  int32_t bias_begin;  // into Params::bias; a row's lists are its own
  int32_t bias_count;
  int32_t seen_begin;
  int32_t seen_count;
};
struct Result {  // SampleResult
  int32_t token;
  float logprob;
  int32_t top_count;
  int32_t top_token[kTop];
  float top_logprob[kTop];
};

struct Bin {
  uint64_t mass;
  uint64_t count;
};
struct Mass {
  uint64_t all;
  uint64_t kept;  // by min_p
};

// A row is looked at in up to two ways: as the logits are, at temperature 1, to report logprobs; adjusted and at the
// row's temperature, to draw.
inline constexpr int kRaw = 0;
inline constexpr int kDrawn = 1;
inline constexpr int kViews = 2;

struct Params {
  float* logits;       // [rows, V], rows aligned to 16 bytes; Weigh changes rows, Finish restores them
  int64_t stride;      // floats, a multiple of 4
  int32_t vocabulary;  // V
  int32_t chunk;       // logits of a work item: a multiple of 4
  int32_t list_max;    // tokens sorted at once: a power of two, kListMin to kListMax
  int32_t rows_max;    // what the scratch below has room for
  const int32_t* row_count;
  const Row* rows;
  const Bias* bias;
  const Seen* seen;
  float* saved_bias;  // as long as bias
  float* saved_seen;
  uint64_t* best;   // [kViews][rows_max][CeilDiv(V, chunk)]: the place of a chunk's most likely token
  Bin* bins;        // [kViews][rows_max][CeilDiv(V, chunk)][kBins]
  Mass* masses;     // [kViews][rows_max][CeilDiv(V, chunk)]
  Result* results;  // [rows]
};

inline constexpr int kScanSharedBytes = 256;
inline constexpr int kWeighSharedBytes = 35'072;
inline constexpr int kFinishSharedBytes = 37'888;

}  // namespace openlora::sample

DEV_KERNEL(sample, Scan, Params)
DEV_KERNEL(sample, Weigh, Params)
