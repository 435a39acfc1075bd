#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "sim/device_sim.h"
#include "sim/machine_state.h"

namespace openlora::cuda_sim {

Clock& ClockOf(Thread& thread) {
  if (thread.clock_epoch != thread.block->epoch) {
    thread.clock.assign(thread.block->threads.size() + 1, 0);
    thread.clock[thread.index] = 1;
    thread.clock_epoch = thread.block->epoch;
  }
  return thread.clock;
}

void MergeClock(Clock& into, Thread& thread) {
  const Clock& clock = ClockOf(thread);
  into.resize(clock.size(), 0);
  for (size_t i = 0; i < clock.size(); ++i) into[i] = std::max(into[i], clock[i]);
}

void AcquireClock(Thread& thread, const Clock& from) {
  Clock& clock = ClockOf(thread);
  for (size_t i = 0; i < from.size(); ++i) clock[i] = std::max(clock[i], from[i]);
  ++clock[thread.index];
}

void CompleteBlockBarrier(Block& block) {
  Barrier& barrier = block.barriers[0];
  if (barrier.waiting.empty() || static_cast<int>(barrier.waiting.size()) < block.live) return;
  ++block.epoch;  // all before it is ordered before all after: clocks and cells begin anew
  for (Thread* thread : barrier.waiting) MakeRunnable(*thread);
  barrier.waiting.clear();
}

namespace {

struct ShuffleIn {
  uint32_t value;
  int lane;
  dev::Lanes from;
};
struct MmaIn {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
};
struct MatrixIn {
  const void* row;
  int matrices;
  const Site* site;
};

float HalfOf(uint32_t bits, bool is_f16) {
  if (!is_f16) return std::bit_cast<float>(bits << 16);
  const uint32_t sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  const float value = exponent != 0 ? std::ldexp(static_cast<float>(fraction + 1024), static_cast<int>(exponent) - 25)
                                    : std::ldexp(static_cast<float>(fraction), -24);
  return sign != 0 ? -value : value;
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": lane l holds of a (rows l/4 and l/4 + 8) the
// columns 2(l%4), +1, and both + 8; of b the same k of column l/4; of d the rows of a, columns 2(l%4), +1.
void Multiply(const Thread* warp, bool is_f16) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& in = *static_cast<const MmaIn*>(warp[lane].in);
    const int row = lane / 4, k = lane % 4 * 2;
    for (int i = 0; i < 4; ++i)
      for (int h = 0; h < 2; ++h) a[row + i % 2 * 8][k + i / 2 * 8 + h] = HalfOf(in.a[i] >> 16 * h & 0xffff, is_f16);
    for (int i = 0; i < 2; ++i)
      for (int h = 0; h < 2; ++h) b[k + i * 8 + h][row] = HalfOf(in.b[i] >> 16 * h & 0xffff, is_f16);
  }
  float d[16][8] = {};
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kWarp; ++lane) {
    float* const out = static_cast<const MmaIn*>(warp[lane].in)->d;
    for (int i = 0; i < 4; ++i) out[i] += d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
  ++current.machine->counts.mmas;
}

// A lane reads the elements that it gets, whoever gave the address of their row.
void LoadMatrices(Thread* warp, bool is_trans) {
  const int matrices = static_cast<const MatrixIn*>(warp[0].in)->matrices;
  for (int m = 0; m < matrices; ++m) {
    const auto row_of = [&](int row) { return static_cast<const MatrixIn*>(warp[m * 8 + row].in)->row; };
    int banks[8] = {};
    for (int row = 0; row < 8; ++row) ++banks[reinterpret_cast<uintptr_t>(row_of(row)) / 16 % 8];
    ++current.machine->counts.matrix_phases;
    current.machine->counts.matrix_replays += static_cast<uint64_t>(*std::max_element(banks, banks + 8)) - 1;
    for (int lane = 0; lane < kWarp; ++lane) {
      uint32_t pair = 0;
      for (int h = 0; h < 2; ++h) {
        const int first = lane / 4, second = lane % 4 * 2 + h;
        const auto* const row = static_cast<const uint16_t*>(row_of(is_trans ? second : first));
        const uint16_t* const half = row + (is_trans ? first : second);
        const auto& in = *static_cast<const MatrixIn*>(warp[lane].in);
        CheckTouch({.p = half, .bytes = 2, .is_write = false, .site = in.site, .by = &warp[lane]});
        pair |= static_cast<uint32_t>(*half) << 16 * h;
      }
      static_cast<uint32_t*>(warp[lane].out)[m] = pair;
    }
  }
}

void Shuffle(const Thread* warp) {
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto& in = *static_cast<const ShuffleIn*>(warp[lane].in);
    int from = in.lane & 31;
    if (in.from == dev::Lanes::kXor) from = (lane ^ in.lane) & 31;
    if (in.from == dev::Lanes::kDown) from = lane + in.lane < kWarp ? lane + in.lane : lane;
    *static_cast<uint32_t*>(warp[lane].out) = static_cast<const ShuffleIn*>(warp[from].in)->value;
  }
}

void Vote(const Thread* warp) {
  uint32_t votes = 0;
  for (int lane = 0; lane < kWarp; ++lane)
    votes |= static_cast<uint32_t>(*static_cast<const bool*>(warp[lane].in)) << lane;
  for (int lane = 0; lane < kWarp; ++lane) *static_cast<uint32_t*>(warp[lane].out) = votes;
}

// The only collective that orders memory.
void Synchronize(Thread* warp, uint32_t mask) {
  Clock joined;
  for (int lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1) MergeClock(joined, warp[lane]);
  for (int lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1) AcquireClock(warp[lane], joined);
}

// By the last lane to arrive, for all.
void Resolve(Thread* warp, Collective collective, uint32_t mask) {
  ++current.machine->counts.collectives;
  switch (collective) {
    case Collective::kSync:
      Synchronize(warp, mask);
      break;
    case Collective::kShuffle:
      Shuffle(warp);
      break;
    case Collective::kBallot:
      Vote(warp);
      break;
    case Collective::kMatrix:
      LoadMatrices(warp, false);
      break;
    case Collective::kMatrixTrans:
      LoadMatrices(warp, true);
      break;
    case Collective::kMmaBF16:
      Multiply(warp, false);
      break;
    case Collective::kMmaF16:
      Multiply(warp, true);
      break;
  }
  for (int lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1) && &warp[lane] != current.thread) MakeRunnable(warp[lane]);
}

// Whether `other`, a lane of the same warp, has arrived where the current thread is.
bool HasArrived(const Thread& other, const Site& site) {
  if (other.state == State::kRunnable) return false;
  const Thread& thread = *current.thread;
  const bool is_same = other.state == State::kInWarp && other.collective == thread.collective &&
                       other.mask == thread.mask && other.site.line() == site.line();
  if (is_same) return true;
  const std::string lane = "lane " + std::to_string(other.index % kWarp);
  if (other.state == State::kInWarp)
    Fail("divergent collective: " + NameOf(thread) + " at " + PlaceOf(site) + ", " + lane + " at " +
         PlaceOf(other.site));
  Fail(NameOf(thread) + " waits in a collective at " + PlaceOf(site) + " for " + lane +
       (other.state == State::kDone ? ", which has exited" : ", which waits at " + PlaceOf(other.site)));
}

void Join(Collective collective, uint32_t mask, const void* in, void* out, const Site& site) {
  Thread& thread = *current.thread;
  std::vector<Thread>& threads = thread.block->threads;
  const size_t first = thread.index / kWarp * kWarp;
  if (first + kWarp > threads.size()) Fail("a collective in a warp of fewer than 32 threads at " + PlaceOf(site));
  if (!(mask >> thread.index % kWarp & 1)) Fail(NameOf(thread) + " is not in its own mask at " + PlaceOf(site));
  thread.collective = collective;
  thread.mask = mask;
  thread.in = in;
  thread.out = out;
  Thread* const warp = &threads[first];
  bool is_last = true;
  for (int lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1) && &warp[lane] != &thread && !HasArrived(warp[lane], site)) is_last = false;
  if (!is_last) return Suspend(State::kInWarp, site);
  Resolve(warp, collective, mask);
}

void NamedBarrier(int id, int threads, bool waits, const Site& site) {
  if (id < 1 || id >= kBarriers || threads < kWarp || threads % kWarp != 0)
    Fail("named barrier " + std::to_string(id) + " of " + std::to_string(threads) + " threads at " + PlaceOf(site));
  Thread& thread = *current.thread;
  Barrier& barrier = thread.block->barriers[static_cast<size_t>(id)];
  if (barrier.arrived > 0 && barrier.expected != threads)
    Fail("a named barrier of two counts at " + PlaceOf(site) + " and " + PlaceOf(barrier.site));
  barrier.expected = threads;
  barrier.site = site;
  ++barrier.arrived;
  MergeClock(barrier.clock, thread);
  ++ClockOf(thread)[thread.index];
  if (waits) barrier.waiting.push_back(&thread);
  if (barrier.arrived < barrier.expected) {
    if (waits) Suspend(State::kAtBarrier, site);
    return;
  }
  const Barrier complete = std::exchange(barrier, {});
  for (Thread* waiting : complete.waiting) {
    AcquireClock(*waiting, complete.clock);
    if (waiting != &thread) MakeRunnable(*waiting);
  }
}

void LoadMatrix(Collective collective, int matrices, uint32_t* r, const void* row, const Site& site) {
  const Thread& thread = *current.thread;
  const MatrixIn in{row, matrices, &site};
  if (thread.index % kWarp < matrices * 8) {  // the other lanes' addresses are not read
    const size_t offset = reinterpret_cast<uintptr_t>(row) - reinterpret_cast<uintptr_t>(thread.block->shared);
    if (offset + 16 > thread.block->shared_bytes || offset > thread.block->shared_bytes)
      Fail(NameOf(thread) + ": ldmatrix of other than shared memory at " + PlaceOf(site));
    if (offset % 16 != 0) Fail(NameOf(thread) + ": ldmatrix of a row not aligned to 16 bytes at " + PlaceOf(site));
  }
  Join(collective, ~0u, &in, r, site);
}

void Mma(Collective collective, float* d, const uint32_t* a, uint32_t b0, uint32_t b1, const Site& site) {
  const MmaIn in{d, a, {b0, b1}};
  Join(collective, ~0u, &in, nullptr, site);
}

}  // namespace
}  // namespace openlora::cuda_sim

namespace openlora::dev {

using cuda_sim::Collective;
using cuda_sim::current;

void SyncBlock(Site site) {
  cuda_sim::Thread& thread = *current.thread;
  cuda_sim::Barrier& barrier = thread.block->barriers[0];
  if (!barrier.waiting.empty() && barrier.site.line() != site.line())
    cuda_sim::Fail("divergent barrier: " + cuda_sim::NameOf(thread) + " at " + cuda_sim::PlaceOf(site) +
                   ", another thread at " + cuda_sim::PlaceOf(barrier.site));
  barrier.site = site;
  barrier.waiting.push_back(&thread);
  thread.state = cuda_sim::State::kAtBarrier;
  cuda_sim::CompleteBlockBarrier(*thread.block);
  cuda_sim::Suspend(thread.state, site);
}
void SyncWarp(uint32_t mask, Site site) { cuda_sim::Join(Collective::kSync, mask, nullptr, nullptr, site); }
void SyncNamed(int id, int threads, Site site) { cuda_sim::NamedBarrier(id, threads, true, site); }
void ArriveNamed(int id, int threads, Site site) { cuda_sim::NamedBarrier(id, threads, false, site); }

uint32_t ShuffleBits(uint32_t value, int lane, Lanes from, Site site) {
  const cuda_sim::ShuffleIn in{value, lane, from};
  uint32_t out = 0;
  cuda_sim::Join(Collective::kShuffle, ~0u, &in, &out, site);
  return out;
}
uint32_t Ballot(bool is_true, Site site) {
  uint32_t votes = 0;
  cuda_sim::Join(Collective::kBallot, ~0u, &is_true, &votes, site);
  return votes;
}

void LoadMatrix4(uint32_t (&r)[4], const void* row, Site site) {
  cuda_sim::LoadMatrix(Collective::kMatrix, 4, r, row, site);
}
void LoadMatrix4Trans(uint32_t (&r)[4], const void* row, Site site) {
  cuda_sim::LoadMatrix(Collective::kMatrixTrans, 4, r, row, site);
}
void LoadMatrix2(uint32_t (&r)[2], const void* row, Site site) {
  cuda_sim::LoadMatrix(Collective::kMatrix, 2, r, row, site);
}
void MmaBF16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site) {
  cuda_sim::Mma(Collective::kMmaBF16, d, a, b0, b1, site);
}
void MmaF16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site) {
  cuda_sim::Mma(Collective::kMmaF16, d, a, b0, b1, site);
}

}  // namespace openlora::dev
