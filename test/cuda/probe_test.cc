// Every word of dev::, by the kernels of kernels/probe.cuh. What is expected is written from the PTX manual, apart from
// the simulator; a GPU must give the same bits.

#include "kernels/probe.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numeric>

#include "cuda/sim_buffer.h"

namespace openlora {
namespace {

class CudaProbeTest : public testing::TestWithParam<uint64_t> {
 protected:
  std::vector<float> Floats(size_t size) const {
    std::vector<float> values(size);
    for (size_t i = 0; i < size; ++i) values[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50);
    return values;
  }

  TestMachine machine_{{.seed = GetParam()}};
};

TEST_P(CudaProbeTest, IndicesAreThoseOfTheThread) {
  SimBuffer<int> out(machine_, "out", size_t{3 * 64 * 6});
  ASSERT_EQ(RunKernel(machine_, probe::Index, {.blocks = 3, .threads = 64}, {out.data()}), "");
  for (int thread = 0; thread < 3 * 64; ++thread) {
    const std::vector<int> wanted = {thread % 64, thread / 64, 64, 3, thread % 32, thread % 64 / 32};
    const int* const got = out.data() + thread * 6;
    EXPECT_EQ(std::vector<int>(got, got + 6), wanted) << thread;
  }
}

TEST_P(CudaProbeTest, LanesExchangeValuesAndVote) {
  const std::vector<float> in = Floats(256);
  SimBuffer<float> input(machine_, "in", in), out(machine_, "out", size_t{256 * 4});
  SimBuffer<uint32_t> votes(machine_, "votes", size_t{8});
  ASSERT_EQ(RunKernel(machine_, probe::Lanes, {.blocks = 2, .threads = 128}, {input.data(), out.data(), votes.data()}),
            "");
  for (size_t warp = 0; warp < 8; ++warp) {
    const float* const x = in.data() + warp * 32;
    uint32_t wanted_votes = 0;
    for (size_t lane = 0; lane < 32; ++lane) {
      const float* const got = out.data() + (warp * 32 + lane) * 4;
      EXPECT_EQ(got[0], x[3]);
      EXPECT_EQ(got[1], x[lane ^ 5]);
      EXPECT_EQ(got[2], lane < 25 ? x[lane + 7] : x[lane]);
      EXPECT_EQ(got[3], std::accumulate(x, x + 32, 0.0f));  // integers: exact in any order
      wanted_votes |= static_cast<uint32_t>(x[lane] > 0) << lane;
    }
    EXPECT_EQ(votes[warp], wanted_votes);
  }
}

// PTX ISA 8.8, 9.7.15.5.15 (ldmatrix), its figure for m8n8: thread t holds elements 2(t%4) and 2(t%4)+1 of row t/4.
TEST_P(CudaProbeTest, LdmatrixGivesEachLaneItsPairOfARow) {
  std::vector<uint16_t> in(256);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint16_t>(1000 + i);
  SimBuffer<uint16_t> input(machine_, "in", in);
  SimBuffer<uint32_t> out(machine_, "out", size_t{320});
  const dev::Shape shape{.blocks = 1, .threads = 32, .shared_bytes = probe::kMatrixSharedBytes};
  ASSERT_EQ(RunKernel(machine_, probe::Matrix, shape, {input.data(), out.data()}), "");
  // Lane 0, 1, 5 and 31 written out: row 0 begins with 1000, row 1 with 1008, matrix 1 with 1064.
  const auto pair = [](uint32_t low, uint32_t high) { return low | high << 16; };
  const auto at = [&](uint32_t lane, uint32_t i) { return out[lane * 10 + i]; };
  EXPECT_EQ(at(0, 0), pair(1000, 1001));
  EXPECT_EQ(at(1, 0), pair(1002, 1003));
  EXPECT_EQ(at(5, 0), pair(1010, 1011));
  EXPECT_EQ(at(31, 3), pair(1254, 1255));
  EXPECT_EQ(at(0, 4), pair(1000, 1008));
  EXPECT_EQ(at(1, 4), pair(1016, 1024));
  EXPECT_EQ(at(5, 5), pair(1081, 1089));
  EXPECT_EQ(at(31, 7), pair(1247, 1255));
  EXPECT_EQ(at(7, 9), pair(1078, 1079));
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t m = 0; m < 4; ++m) {
      const uint32_t matrix = 1000 + m * 64, row = lane / 4, column = lane % 4 * 2;
      EXPECT_EQ(at(lane, m), pair(matrix + row * 8 + column, matrix + row * 8 + column + 1));
      EXPECT_EQ(at(lane, 4 + m), pair(matrix + column * 8 + row, matrix + (column + 1) * 8 + row));
      if (m < 2) {
        EXPECT_EQ(at(lane, 8 + m), at(lane, m));
      }
    }
}

uint32_t F16Bits(float value) {  // of small integers
  if (value == 0) return 0;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return (bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 127 + 15) << 10 | (bits >> 13 & 1023);
}

// PTX ISA 8.8, "Matrix Fragments for mma.m16n8k16": of thread t, g = t/4 and p = t%4: a = (g, 2p..), (g+8, 2p..),
// (g, 2p+8..), (g+8, 2p+8..); b = (2p.., g), (2p+8.., g); c = (g, 2p), (g, 2p+1), (g+8, 2p), (g+8, 2p+1).
TEST_P(CudaProbeTest, MmaMultipliesTheFragmentsOfThePtxManual) {
  for (const bool is_f16 : {false, true}) {
    float a[16][16], b[16][8], c[16][8];
    for (int i = 0; i < 256; ++i) a[i / 16][i % 16] = static_cast<float>(i * 7 % 11 - 5);
    for (int i = 0; i < 128; ++i) b[i / 8][i % 8] = static_cast<float>(i * 5 % 13 - 6);
    for (int i = 0; i < 128; ++i) c[i / 8][i % 8] = static_cast<float>(i);
    const auto half = [&](float v) { return is_f16 ? F16Bits(v) : std::bit_cast<uint32_t>(v) >> 16; };
    const auto pair = [&](float low, float high) { return half(low) | half(high) << 16; };
    std::vector<uint32_t> of_a, of_b;
    std::vector<float> of_c;
    for (int t = 0; t < 32; ++t) {
      const int g = t / 4, p = t % 4 * 2;
      for (const auto& [row, k] : {std::pair{g, p}, {g + 8, p}, {g, p + 8}, {g + 8, p + 8}})
        of_a.push_back(pair(a[row][k], a[row][k + 1]));
      for (const int k : {p, p + 8}) of_b.push_back(pair(b[k][g], b[k + 1][g]));
      for (const int row : {g, g + 8})
        for (const int column : {p, p + 1}) of_c.push_back(c[row][column]);
    }
    SimBuffer<uint32_t> a_buffer(machine_, "a", of_a), b_buffer(machine_, "b", of_b);
    SimBuffer<float> c_buffer(machine_, "c", of_c), out(machine_, "out", size_t{128});
    ASSERT_EQ(
        RunKernel(machine_, probe::Mma, {}, {a_buffer.data(), b_buffer.data(), c_buffer.data(), out.data(), is_f16}),
        "");
    for (int t = 0; t < 32; ++t)
      for (int i = 0; i < 4; ++i) {
        const int row = t / 4 + i / 2 * 8, column = t % 4 * 2 + i % 2;
        float wanted = c[row][column];
        for (int k = 0; k < 16; ++k) wanted += a[row][k] * b[k][column];
        EXPECT_EQ(out[static_cast<size_t>(t * 4 + i)], wanted) << "lane " << t << " element " << i;
      }
  }
}

TEST_P(CudaProbeTest, MmaRateComputesAsManySumsAsItSays) {
  SimBuffer<float> out(machine_, "out", size_t{2 * 64});
  ASSERT_EQ(RunKernel(machine_, probe::MmaRate, {.blocks = 2, .threads = 64}, {out.data(), 3, 2}), "");
  constexpr int kChains = probe::kMmaChains;
  for (const float sum : out.values()) ASSERT_EQ(sum, 4 * (kChains * 16 * 3 + 2 * kChains * (kChains - 1) / 2));
}

TEST_P(CudaProbeTest, AsyncCopiesLandAndFillWithZeros) {
  constexpr int kSteps = 11;
  const std::vector<float> in = Floats(size_t{kSteps} * probe::kCopyThreads * 4);
  SimBuffer<float> input(machine_, "in", in), out(machine_, "out", in.size());
  const dev::Shape shape{.blocks = 1, .threads = probe::kCopyThreads, .shared_bytes = probe::kCopySharedBytes};
  ASSERT_EQ(RunKernel(machine_, probe::Copy, shape, {input.data(), out.data(), kSteps}), "");
  for (int step = 0; step < kSteps; ++step)
    for (int thread = 0; thread < probe::kCopyThreads; ++thread)
      for (int i = 0; i < 4; ++i) {
        const int from = (step * probe::kCopyThreads + probe::kCopyThreads - 1 - thread) * 4 + i;
        const float wanted = i < step % 5 ? in[static_cast<size_t>(from)] : 0.0f;
        EXPECT_EQ(out[static_cast<size_t>((step * probe::kCopyThreads + thread) * 4 + i)], wanted);
      }
}

TEST_P(CudaProbeTest, NamedBarriersOrderTwoHalvesOfABlock) {
  constexpr int kSteps = 10;
  const std::vector<float> in = Floats(size_t{kSteps} * 64);
  SimBuffer<float> input(machine_, "in", in), out(machine_, "out", in.size());
  const dev::Shape shape{.blocks = 1, .threads = 128, .shared_bytes = probe::kNamedSharedBytes};
  ASSERT_EQ(RunKernel(machine_, probe::Named, shape, {input.data(), out.data(), kSteps}), "");
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(out[i], in[i / 64 * 64 + 63 - i % 64]);
}

TEST_P(CudaProbeTest, BulkCopiesCompleteTheirBarriers) {
  constexpr size_t kSteps = 11;
  const std::vector<float> in = Floats(kSteps * probe::kBulkFloats);
  SimBuffer<float> input(machine_, "in", in), out(machine_, "out", size_t{64});
  const dev::Shape shape{.blocks = 1, .threads = 64, .shared_bytes = probe::kBulkSharedBytes};
  ASSERT_EQ(RunKernel(machine_, probe::Bulk, shape, {input.data(), out.data(), kSteps}), "");
  for (size_t thread = 0; thread < 64; ++thread) {
    float wanted = 0;
    for (size_t step = 0; step < kSteps; ++step)
      wanted += in[step * probe::kBulkFloats + thread * 7 % probe::kBulkFloats];
    EXPECT_EQ(out[thread], wanted);
  }
}

TEST_P(CudaProbeTest, ACounterAndABarrierOfTheGridShareWorkOut) {
  constexpr uint32_t kItems = 40;
  SimBuffer<uint32_t> next(machine_, "next", size_t{1}), arrived(machine_, "arrived", size_t{1});
  SimBuffer<uint32_t> done(machine_, "done", size_t{kItems}), out(machine_, "out", size_t{6 * 64});
  next.Zero();
  arrived.Zero();
  const dev::Shape shape{.blocks = 6, .threads = 64, .shared_bytes = 128, .is_cooperative = true};
  ASSERT_EQ(RunKernel(machine_, probe::Grid, shape, {next.data(), arrived.data(), done.data(), out.data(), kItems}),
            "");
  uint32_t wanted = 0;
  for (uint32_t i = 0; i < kItems; ++i) wanted += i * i;
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], wanted);
}

TEST_P(CudaProbeTest, AReleasedFlagOrdersWhatWasWrittenBeforeIt) {
  SimBuffer<uint32_t> flag(machine_, "flag", size_t{1}), data(machine_, "data", size_t{32}),
      out(machine_, "out", size_t{32});
  flag.Zero();
  ASSERT_EQ(RunKernel(machine_, probe::Flag, {.blocks = 2, .threads = 32, .is_cooperative = true},
                      {flag.data(), data.data(), out.data()}),
            "");
  for (uint32_t lane = 0; lane < 32; ++lane) EXPECT_EQ(out[lane], (31 - lane) * 3);
}

TEST_P(CudaProbeTest, ArithmeticRoundsAsItSays) {
  const std::vector<float> in = {1.0f, 1.00390625f, 1.01171875f, -2.5f, 3.14159274f, 1e-3f, 65504.0f, -0.75f};
  std::vector<float> all;
  for (int i = 0; i < 4; ++i) all.insert(all.end(), in.begin(), in.end());
  SimBuffer<float> input(machine_, "in", all), out(machine_, "out", size_t{96});
  SimBuffer<uint32_t> packed(machine_, "packed", size_t{32}), halves(machine_, "halves", size_t{32});
  SimBuffer<float> unpacked(machine_, "unpacked", size_t{32});
  ASSERT_EQ(
      RunKernel(machine_, probe::Math, {}, {input.data(), packed.data(), out.data(), halves.data(), unpacked.data()}),
      "");
  // Ties go to even: 1.00390625 = 1 + 2⁻⁸ down to 1, 1.01171875 = 1 + 3·2⁻⁸ up to 1.015625.
  EXPECT_EQ(packed[0], 0x3f803f80u);
  EXPECT_EQ(packed[1], 0x3f823f80u);
  EXPECT_EQ(packed[3], 0x4049c020u);
  for (size_t i = 0; i < in.size(); ++i) {
    const double x = in[i];
    if (x < 100) {
      EXPECT_NEAR(out[i * 3], std::exp2(x), std::exp2(x) * 0x1p-21);
    }
    EXPECT_NEAR(out[i * 3 + 1], 1 / std::sqrt(std::abs(x)), 0x1p-21 / std::sqrt(std::abs(x)));
    EXPECT_EQ(out[i * 3 + 2], std::fma(in[i], in[i], 1.0f));
  }
}

// IEEE 754 binary16: ties to even, subnormals kept, infinity from 65520 on.
TEST_P(CudaProbeTest, HalvesRoundToNearestEven) {
  const std::vector<std::pair<float, uint32_t>> cases = {
      {1.0f, 0x3c00},
      {-2.5f, 0xc100},
      {0x1.002p0f, 0x3c00},
      {0x1.006p0f, 0x3c02},
      {0x1.002002p0f, 0x3c01},
      {65504.0f, 0x7bff},
      {65519.996f, 0x7bff},
      {65520.0f, 0x7c00},
      {-1e30f, 0xfc00},
      {INFINITY, 0x7c00},
      {0.0f, 0},
      {-0.0f, 0x8000},
      {0x1p-14f, 0x0400},
      {0x1.ff8p-15f, 0x03ff},
      {0x1.ffcp-15f, 0x0400},
      {-0x1p-24f, 0x8001},
      {0x1p-25f, 0},
      {0x1.8p-24f, 2},
      {0x1.000002p-25f, 1},
      {0x1p-149f, 0},
      {0x1.5p-20f, 0x0015},
      {0x1.ffcp-1f, 0x3bff},
      {-0x1.554p-2f, 0xb555},
      {0x1.ffffffp-1f, 0x3c00},
      {NAN, 0x7fff},
      {3.140625f, 0x4248},
      {0x1.004p-14f, 0x0401},
      {0x1.002p-14f, 0x0400},
      {1000.25f, 0x63d0},
      {1000.75f, 0x63d2},
      {-0x1.8p-25f, 0x8001},
      {32768.0f, 0x7800},
  };
  std::vector<float> in;
  for (const auto& [value, bits] : cases) in.push_back(value);
  ASSERT_EQ(in.size(), 32u);
  SimBuffer<float> input(machine_, "in", in), out(machine_, "out", size_t{96}), unpacked(machine_, "", size_t{32});
  SimBuffer<uint32_t> packed(machine_, "packed", size_t{32}), halves(machine_, "halves", size_t{32});
  ASSERT_EQ(
      RunKernel(machine_, probe::Math, {}, {input.data(), packed.data(), out.data(), halves.data(), unpacked.data()}),
      "");
  for (size_t i = 0; i < cases.size(); ++i) {
    const uint32_t bits = cases[i].second, size = bits & 0x7fff, sign = bits >> 15;
    EXPECT_EQ(halves[i], bits | cases[(i + 1) % 32].second << 16) << cases[i].first;
    const double value =
        size < 0x400 ? std::ldexp(size, -24) : std::ldexp(0x400 + (size & 0x3ff), int(size >> 10) - 25);
    if (size > 0x7c00) {
      EXPECT_TRUE(std::isnan(unpacked[i]));
    } else {
      EXPECT_EQ(unpacked[i], size == 0x7c00 ? (sign ? -INFINITY : INFINITY) : (sign ? -value : value)) << bits;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, CudaProbeTest, testing::Range(uint64_t{1}, uint64_t{9}));

}  // namespace
}  // namespace openlora
