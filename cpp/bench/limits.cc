#include "bench/limits.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/check.h"
#include "base/clock.h"
#include "base/machine.h"

namespace openlora::bench {
namespace {

constexpr int64_t kBurst = 700'000;  // rounds of a peak's chains: about 2 ms
constexpr int kBursts = 3;           // for each look at the bandwidth

std::atomic<uint64_t> sink;  // what was computed is used

}  // namespace

LimitProbe::LimitProbe(int threads)
    : pool_(threads), buffer_(std::max(2 * LastLevelCacheBytes(), size_t{128} << 20) + (size_t{64} << 20)) {}

Status LimitProbe::Create(int threads, std::unique_ptr<LimitProbe>* probe) {
  std::unique_ptr<LimitProbe> made(new LimitProbe(threads));
  if (made->threads() != threads)
    return Error(kErrThreads, "the system doesn't start %d threads to measure with", threads);
  if (made->buffer_.data() == nullptr) return Error(kErrOutOfMemory, "no memory to measure reading with");
  uint64_t* words = static_cast<uint64_t*>(made->buffer_.data());
  for (size_t i = 0; i < made->buffer_.bytes() / 8; ++i) words[i] = i * 0x9E3779B97F4A7C15u;
  *probe = std::move(made);
  return Ok();
}

double LimitProbe::ReadGbs() {
  const size_t share = buffer_.bytes() / static_cast<size_t>(pool_.size()) / 4096 * 4096;
  const double begin = NowMs();
  pool_.Run([&](int member, int) {
    const uint8_t* data = static_cast<const uint8_t*>(buffer_.data()) + static_cast<size_t>(member) * share;
    sink.fetch_add(ReadStreams(data, share), std::memory_order_relaxed);
  });
  return static_cast<double>(share) * pool_.size() / (NowMs() - begin) * 1e-6;
}

double LimitProbe::Gops(const InstructionPeak& peak) {
  const double begin = NowMs();
  pool_.Run([&](int, int) { sink.fetch_add(peak.run(kBurst), std::memory_order_relaxed); });
  return static_cast<double>(kBurst) * peak.operations * pool_.size() / (NowMs() - begin) * 1e-6;
}

std::vector<LimitResult> MeasureLimits(LimitProbe& probe, int rounds) {
  const std::span<const InstructionPeak> peaks = InstructionPeaks();
  std::vector<double> reads;
  std::vector<std::vector<double>> bursts(peaks.size());
  for (int round = 0; round < rounds; ++round) {
    reads.push_back(probe.ReadGbs());
    for (size_t i = 0; i < peaks.size(); ++i)
      for (int burst = 0; burst < kBursts; ++burst) bursts[i].push_back(probe.Gops(peaks[i]));
  }
  const auto result = [](const char* name, const char* unit, std::vector<double>& values) {
    return LimitResult{name, unit, Quantile(values, 0.5), Quantile(values, 0.1), Quantile(values, 0.9)};
  };
  std::vector<LimitResult> results = {result("read", "GB/s", reads)};
  for (size_t i = 0; i < peaks.size(); ++i) results.push_back(result(peaks[i].name, "GOP/s", bursts[i]));
  return results;
}

double Quantile(std::vector<double>& values, double share) {
  OPENLORA_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
}

}  // namespace openlora::bench
