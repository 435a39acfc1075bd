#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/prng.h"
#include "base/thread_pool.h"
#include "ops/cpu/cpu_ops.h"
#include "tensor/dtype.h"
#include "tensor/mapped_file.h"

namespace openlora {
namespace {

// Random123's known answers for philox4x32-10: the first two words of the block.
TEST(PrngTest, PhiloxGivesItsKnownAnswers) {
  EXPECT_EQ(Philox(0, 0), 0xe169c58d6627e8d5u);
  EXPECT_NE(Philox(0, 1), Philox(1, 0));
}

TEST(PrngTest, UniformDrawsFillTheUnitIntervalEvenly) {
  constexpr int kDraws = 100'000, kBins = 10;
  std::vector<int> bins(kBins);
  for (int i = 0; i < kDraws; ++i) {
    const double draw = PhiloxUniform(7, static_cast<uint64_t>(i));
    ASSERT_GE(draw, 0.0);
    ASSERT_LT(draw, 1.0);
    ++bins[static_cast<size_t>(draw * kBins)];
  }
  // Standard deviation of a bin: sqrt(n p (1 - p)) = 95; five of them.
  for (const int count : bins) EXPECT_NEAR(count, kDraws / kBins, 475);
}

TEST(DTypeTest, EveryF16SurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = F16ToFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(value))));
    } else {
      ASSERT_EQ(FloatToF16(value), half) << bits;
    }
    if (!std::isnan(BF16ToFloat(half))) {
      ASSERT_EQ(FloatToBF16(BF16ToFloat(half)), half) << bits;
    }
  }
}

TEST(DTypeTest, RoundsHalfwayCasesToEven) {
  EXPECT_EQ(FloatToF16(1.0f + 0x1.0p-11f), FloatToF16(1.0f));
  EXPECT_EQ(FloatToF16(1.0f + 0x1.8p-10f), FloatToF16(1.0f + 0x1.0p-9f));
  EXPECT_EQ(FloatToF16(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToF16(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToF16(0x1.0p-25f), 0);
  EXPECT_EQ(FloatToF16(0x1.000002p-25f), 1);
  EXPECT_EQ(FloatToBF16(1.0f + 0x1.0p-8f), FloatToBF16(1.0f));
  EXPECT_EQ(FloatToBF16(1.0f + 0x1.8p-7f), FloatToBF16(1.0f + 0x1.0p-6f));
}

TEST(ThreadPoolTest, EveryMemberRunsOnceAndTheyRunTogether) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int run = 0; run < 200; ++run) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(threads));
      TeamBarrier barrier;
      pool.Run([&](int member, int members) {
        EXPECT_EQ(members, threads);
        ++calls[static_cast<size_t>(member)];
        barrier.Arrive();
        barrier.Wait(members);  // returns only if all run at once
      });
      for (const auto& count : calls) EXPECT_EQ(count, 1);
    }
  }
}

// Bytes of address space in use.
rlim_t VirtualBytes() {
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

TEST(ThreadPoolTest, WhereTheSystemStartsTooFewThreadsOnlyTheCallerIsLeft) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "needs a build without sanitizers, whose shadow memory is beyond any limit";
#endif
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = VirtualBytes() + (rlim_t{256} << 20);  // stacks of some tens of threads
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  // qemu-user, for one, passes the limit over.
  void* const beyond = mmap(nullptr, size_t{1} << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (beyond != MAP_FAILED) {
    munmap(beyond, size_t{1} << 30);
    setrlimit(RLIMIT_AS, &before);
    GTEST_SKIP() << "needs a system that holds a process to RLIMIT_AS";
  }
  {
    ThreadPool pool(1000);
    EXPECT_EQ(pool.size(), 1);
    int calls = 0;
    pool.Run([&](int member, int members) { calls += member == 0 && members == 1 ? 1 : 100; });
    EXPECT_EQ(calls, 1);
    std::unique_ptr<Ops> ops;
    EXPECT_STREQ(CreateCpuOps(SimdLevel::kScalar, 1000, &ops).code(), "ERR_THREADS");
  }
  EXPECT_EQ(setrlimit(RLIMIT_AS, &before), 0);
}

TEST(ThreadPoolTest, PiecesCoverEveryItemOnce) {
  for (const int64_t count : {0, 1, 31, 32, 33, 1000}) {
    for (const int members : {1, 2, 3, 7}) {
      int64_t next = 0;
      for (int member = 0; member < members; ++member) {
        const Piece piece = Split(count, 32, member, members);
        EXPECT_EQ(piece.begin, next);
        EXPECT_TRUE(piece.begin % 32 == 0 || piece.begin == count);
        next = piece.end;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(WorkSharesTest, EveryItemIsTakenOnceInHalvesOfWhatIsLeft) {
  for (const int members : {1, 2, 3}) {
    WorkShares shares(members);
    for (const int64_t count : {0, 1, 4, 5, 1000}) {
      shares.Reset(count, 4);
      const int64_t first = Split(count, 4, 0, members).end;
      std::vector<int> taken(static_cast<size_t>(count));
      for (Piece piece = shares.Take(0); !piece.is_empty(); piece = shares.Take(0)) {
        EXPECT_EQ(piece.begin % 4, 0);
        const int64_t half = ((first + 1) / 2 + 3) / 4 * 4;
        EXPECT_TRUE(piece.begin != 0 || first == 0 || piece.end == std::min(first, half));
        for (int64_t i = piece.begin; i < piece.end; ++i) ++taken[static_cast<size_t>(i)];
      }
      EXPECT_EQ(taken, std::vector<int>(static_cast<size_t>(count), 1));
    }
  }
}

TEST(WorkSharesTest, AMemberThatStopsHoldsNobodyUp) {
  constexpr int kMembers = 3;
  constexpr int64_t kCount = 999;
  ThreadPool pool(kMembers);
  WorkShares shares(kMembers);
  for (int run = 0; run < 200; ++run) {
    shares.Reset(kCount, 4);
    std::vector<std::atomic<int>> taken(kCount);
    std::atomic<int64_t> left{kCount};
    pool.Run([&](int member, int) {
      for (Piece piece = shares.Take(member); !piece.is_empty(); piece = shares.Take(member)) {
        for (int64_t i = piece.begin; i < piece.end; ++i) ++taken[static_cast<size_t>(i)];
        left -= piece.end - piece.begin;
        // Stopped until all else is done.
        while (member == run % kMembers && left > 0) std::this_thread::yield();
      }
    });
    for (const auto& count : taken) EXPECT_EQ(count, 1);
  }
}

TEST(FileTest, RefusesWhatIsNotThereAndReadsBeyondTheEnd) {
  const std::string path = (std::filesystem::temp_directory_path() / "openlora-file-test").string();
  std::ofstream(path) << "0123456789";
  File file;
  EXPECT_STREQ(File::Open(path + "-missing", &file).code(), kErrIo);
  EXPECT_STREQ(File::Open(std::filesystem::temp_directory_path().string(), &file).code(), kErrIo);
  ASSERT_TRUE(File::Open(path, &file).ok());
  char bytes[4] = {};
  ASSERT_TRUE(file.ReadAt(6, bytes, 4).ok());
  EXPECT_EQ(std::string(bytes, 4), "6789");
  EXPECT_STREQ(file.ReadAt(7, bytes, 4).code(), kErrIo);
  const FileIdentity before = file.identity();
  std::ofstream(path) << "longer than it was";
  ASSERT_TRUE(File::Open(path, &file).ok());
  EXPECT_FALSE(file.identity() == before);
  MappedFile mapped;
  ASSERT_TRUE(MappedFile::Open(path, &mapped).ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped.data()), static_cast<size_t>(mapped.size())),
            "longer than it was");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace openlora
