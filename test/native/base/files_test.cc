#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "base/checksum.h"
#include "base/file.h"
#include "base/new_file.h"
#include "base/scratch_file.h"
#include "base/thread_priority.h"
#include "engine/tiny_model.h"

namespace openlora {
namespace {

namespace fs = std::filesystem;

TEST(Checksum, EveryBitAndTheLengthCount) {
  std::set<uint64_t> seen;
  size_t sums = 0;
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{63}, size_t{64}, size_t{65}, size_t{200}}) {
    std::vector<uint8_t> data(bytes, 0);
    seen.insert(Checksum(data.data(), bytes));
    ++sums;
    for (size_t bit = 0; bit < 8 * bytes; ++bit, ++sums) {
      data[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
      seen.insert(Checksum(data.data(), bytes));
      data[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    }
  }
  EXPECT_EQ(seen.size(), sums);
}

TEST(Checksum, BlocksInAnotherOrderShow) {
  std::vector<uint8_t> data(4096);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 7 + i / 256);
  const uint64_t whole = Checksum(data.data(), data.size());
  for (const size_t length : {8, 64, 512})
    for (size_t at = 0; at + 2 * length <= data.size(); at += length) {
      const auto begin = data.begin() + static_cast<std::ptrdiff_t>(at),
                 middle = begin + static_cast<std::ptrdiff_t>(length);
      std::swap_ranges(begin, middle, middle);
      EXPECT_NE(Checksum(data.data(), data.size()), whole);
      std::swap_ranges(begin, middle, middle);
    }
}

TEST(ScratchFile, HasNoNameAndGivesBackWhatWasAppended) {
  const TestFolder folder("scratch");
  ScratchFile file;
  ASSERT_TRUE(file.Create(folder.File("")).ok());
  EXPECT_TRUE(fs::is_empty(folder.File("")));
  std::vector<int64_t> offsets(3);
  const std::vector<std::string> texts = {"first", std::string(100'000, 'x'), "third"};
  for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(file.Append(texts[i].data(), texts[i].size(), &offsets[i]).ok());
  file.Free(offsets[1], static_cast<int64_t>(texts[1].size()));
  for (const size_t i : {2, 0}) {
    std::string read(texts[i].size(), ' ');
    ASSERT_TRUE(file.ReadAt(offsets[i], read.data(), read.size()).ok());
    EXPECT_EQ(read, texts[i]);
  }
  char beyond[10];
  EXPECT_STREQ(file.ReadAt(offsets[2], beyond, sizeof beyond).code(), kErrIo);
  ScratchFile nowhere;
  EXPECT_STREQ(nowhere.Create(folder.File("missing")).code(), kErrIo);
  EXPECT_FALSE(nowhere.is_open());
}

TEST(NewFile, AppearsAtItsPathWhenItIsPublishedAndNotBefore) {
  const TestFolder folder("new");
  const std::string path = folder.File("a/b/file");
  {
    NewFile dropped;
    ASSERT_TRUE(dropped.Create(path).ok());
    ASSERT_TRUE(dropped.WriteAt(0, "x", 1).ok());
  }
  EXPECT_TRUE(fs::is_empty(folder.File("a/b")));
  NewFile file;
  ASSERT_TRUE(file.Create(path).ok());
  ASSERT_TRUE(file.WriteAt(5, "end", 3).ok());
  ASSERT_TRUE(file.WriteAt(0, "be", 2).ok());
  EXPECT_FALSE(fs::exists(path));
  ASSERT_TRUE(file.Publish().ok());
  ASSERT_TRUE(file.Sync().ok());
  File read;
  ASSERT_TRUE(File::Open(path, &read).ok());
  std::string text(8, ' ');
  ASSERT_TRUE(read.ReadAt(0, text.data(), 8).ok());
  EXPECT_EQ(text, std::string("be\0\0\0end", 8));
  read.WillNeed();
  read.DoneWith();
  ASSERT_TRUE(read.ReadAt(0, text.data(), 8).ok());
}

TEST(ThreadPriority, AThreadThatGivesWayToAllStillRuns) {
  int policy = -1;
  std::thread thread([&] {
    MakeThreadIdle();
    policy = ::sched_getscheduler(0);
  });
  thread.join();
  EXPECT_EQ(policy, SCHED_IDLE);
  EXPECT_NE(::sched_getscheduler(0), SCHED_IDLE);
}

}  // namespace
}  // namespace openlora
