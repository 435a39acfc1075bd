#include "base/processors.h"

#include <gtest/gtest.h>

#include <climits>
#include <filesystem>
#include <fstream>

namespace openlora {
namespace {

// A folder in place of the system's root.
class ProcessorsTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "openlora-root";
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root_ + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text << "\n";
  }
  void WriteSiblings(int processor, const std::string& list) {
    Write("/sys/devices/system/cpu/cpu" + std::to_string(processor) + "/topology/thread_siblings_list", list);
  }

  std::string root_;
};

TEST_F(ProcessorsTest, HyperthreadsOfOneCoreCountOnce) {
  for (int processor = 0; processor < 8; ++processor)
    WriteSiblings(processor, std::to_string(processor % 4) + "," + std::to_string(processor % 4 + 4));
  EXPECT_EQ(CoresOf({0, 1, 2, 3, 4, 5, 6, 7}, root_), 4);
  EXPECT_EQ(CoresOf({0, 4}, root_), 1);
  EXPECT_EQ(CoresOf({0, 1, 5}, root_), 2);
  EXPECT_EQ(CoresOf({6}, root_), 1);
}

TEST_F(ProcessorsTest, AProcessorOfWhichNothingIsSaidIsACore) {
  WriteSiblings(0, "0-1");
  WriteSiblings(1, "0-1");
  EXPECT_EQ(CoresOf({0, 1, 2, 3}, root_), 3);
  EXPECT_EQ(CoresOf({}, root_), 0);
}

TEST_F(ProcessorsTest, TheTightestQuotaOfTheGroupsCounts) {
  Write("/proc/self/cgroup", "0::/system.slice/app.service");
  EXPECT_EQ(QuotaProcessors(root_), INT_MAX);
  Write("/sys/fs/cgroup/system.slice/app.service/cpu.max", "max 100000");
  EXPECT_EQ(QuotaProcessors(root_), INT_MAX);
  Write("/sys/fs/cgroup/system.slice/cpu.max", "250000 100000");
  EXPECT_EQ(QuotaProcessors(root_), 3);
  Write("/sys/fs/cgroup/system.slice/app.service/cpu.max", "150000 100000");
  EXPECT_EQ(QuotaProcessors(root_), 2);
  Write("/sys/fs/cgroup/cpu.max", "50000 100000");
  EXPECT_EQ(QuotaProcessors(root_), 1);
}

TEST_F(ProcessorsTest, AContainersOwnGroupIsWhatIsMounted) {
  Write("/proc/self/cgroup", "0::/docker/0123abcd");
  Write("/sys/fs/cgroup/cpu.max", "400000 100000");
  EXPECT_EQ(QuotaProcessors(root_), 4);
}

TEST_F(ProcessorsTest, QuotasOfVersion1Count) {
  Write("/proc/self/cgroup", "5:memory:/docker/0123abcd\n4:cpu,cpuacct:/docker/0123abcd");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(QuotaProcessors(root_), INT_MAX);
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000");
  EXPECT_EQ(QuotaProcessors(root_), 2);
}

TEST_F(ProcessorsTest, ThisMachineHasACoreAtLeast) { EXPECT_GE(UsableCores(), 1); }

}  // namespace
}  // namespace openlora
