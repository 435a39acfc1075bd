#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "ops/ops.h"

namespace openlora::sim {

// The arithmetic of the simulated model: a row of activations is one 64-bit digest, and every op mixes what it reads
// into it, in order. SimOps computes with what stands in the pool's frames, the oracle (oracle.h) with what should:
// a wrong frame, tile, weight or position anywhere changes every token from there on.

constexpr uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

inline constexpr uint64_t kAttentionSeed = 0xA77E;

constexpr uint64_t Embedded(int32_t token) { return Mix(0xE3BED, static_cast<uint64_t>(token)); }
constexpr uint64_t Multiplied(uint64_t x, int32_t site) { return Mix(x, 0x517E00 + static_cast<uint64_t>(site)); }
constexpr uint64_t Adapted(uint64_t y, uint64_t delta, float weight) {
  return Mix(y, Mix(delta, std::bit_cast<uint32_t>(weight)));
}
constexpr uint64_t Rotation(int32_t position, bool is_long) {
  return Mix(0x207A7E, static_cast<uint64_t>(position) * 2 + (is_long ? 1 : 0));
}
constexpr uint64_t Normed(uint64_t x) { return Mix(x, 0x2023); }

// What one unit of an adapter's content holds. `matrix`: 0 is A, 1 is B; `run`: an eight of ranks.
constexpr uint64_t TileUnit(uint64_t content, int32_t site, int matrix, uint32_t run, int64_t column) {
  return Mix(Mix(content, static_cast<uint64_t>(site) * 2 + static_cast<uint64_t>(matrix)),
             uint64_t{run} << 32 | static_cast<uint64_t>(column));
}
// ΔW of one site, into which its tile units are mixed: those of A, then those of B.
constexpr uint64_t DeltaSeed(int32_t rank, float scale) {
  return Mix(static_cast<uint64_t>(rank), std::bit_cast<uint32_t>(scale));
}

// Calls each(run, ranks, column) for the units of one matrix: what a run has of the columns at which tiles may be cut.
template <typename Each>
constexpr void ForEachTileUnit(int32_t rank, int64_t columns, int matrix, const Each& each) {
  for (uint32_t run = 0; static_cast<int32_t>(run) * kTileRanks < rank; ++run) {
    const int32_t left = rank - static_cast<int32_t>(run) * kTileRanks, ranks = left < kTileRanks ? left : kTileRanks;
    for (int64_t c = 0; c < columns; c += TileStep(DType::kF32, matrix == 0)) each(run, ranks, c);
  }
}
// Bytes of a unit, and where in its frame it stands.
constexpr int64_t TileUnitBytes(int32_t ranks, int matrix) {
  return TileBytes(DType::kF32, ranks, TileStep(DType::kF32, matrix == 0));
}
constexpr int64_t TileUnitOffset(const TilePlace& place, int32_t ranks, int matrix, int64_t column) {
  return place.offset +
         (column - place.column_begin) / TileStep(DType::kF32, matrix == 0) * TileUnitBytes(ranks, matrix);
}

// The token that a row of logits gives.
inline int32_t Drawn(uint64_t logits, const SampleRow& row, int32_t vocabulary) {
  uint64_t digest = Mix(logits, std::bit_cast<uint32_t>(row.temperature));
  if (row.temperature > 0) digest = Mix(Mix(digest, row.seed), row.draw_index);
  if (row.repetition_penalty != 1 || row.presence_penalty != 0) {
    for (const SeenToken& seen : row.seen)
      digest = Mix(digest, static_cast<uint64_t>(seen.token) * 4096 + static_cast<uint64_t>(seen.count));
  }
  auto token = static_cast<int32_t>(digest % static_cast<uint64_t>(vocabulary));
  const auto is_forbidden = [&] {
    for (const TokenBias& bias : row.bias) {
      if (bias.token == token && bias.bias < 0) return true;
    }
    return false;
  };
  while (is_forbidden()) token = (token + 1) % vocabulary;
  return token;
}

inline float LogprobOf(uint64_t logits, int32_t token) {
  return -static_cast<float>(Mix(logits, static_cast<uint64_t>(token)) >> 40) * 0x1p-20f;
}

}  // namespace openlora::sim
