#include "ops/lora_waves.h"

#include "kernels/lora.h"

namespace openlora {

std::vector<LoraWave> WavesOf(const EntriesView& entries, int32_t rows) {
  std::vector<LoraWave> waves;
  std::vector<size_t> last_wave(static_cast<size_t>(rows), 0);  // of each row; the first wave is 1
  for (int32_t s = 0; s < entries.segments; ++s) {
    const int32_t begin = entries.segment_start[s], end = entries.segment_start[s + 1];
    bool is_full = waves.empty() || waves.back().segment_slot.size() == lora::kSegmentsMax;
    for (int32_t e = begin; e < end; ++e)
      is_full |= last_wave[static_cast<size_t>(entries.entry_row[e])] == waves.size();
    if (is_full) waves.push_back({begin, begin, {0}, {}});
    LoraWave& wave = waves.back();
    for (int32_t e = begin; e < end; ++e) last_wave[static_cast<size_t>(entries.entry_row[e])] = waves.size();
    wave.entry_end = end;
    wave.segment_start.push_back(end - wave.entry_begin);
    wave.segment_slot.push_back(entries.segment_slot[s]);
  }
  return waves;
}

}  // namespace openlora
