// One folder of packs, several processes, some of them killed.

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "base/prng.h"
#include "memory/store_fixture.h"

namespace openlora {
namespace {

namespace fs = std::filesystem;

class AdapterStoreProcessTest : public StoreFixture {
 protected:
  static constexpr int kAdapters = 6;

  void SetUp() override {
    StoreFixture::SetUp();
    const auto plain = Open({});
    for (int i = 0; i < kAdapters; ++i) {
      manifests_.push_back(TinyAdapter(folder_, "a" + std::to_string(i), 8 + i, 0, static_cast<uint64_t>(i)));
      wanted_.push_back(Load(plain.get(), Check(plain.get(), manifests_.back())).tiles);
    }
  }
  template <typename Body>
  static pid_t Fork(const Body& body) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body());
    return child;
  }
  static int Wait(pid_t child) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  }
  // Loads all, `rounds` times, and removes some packs on the way; the number of the first check that failed.
  int UseFolder(uint64_t seed, int rounds) {
    const auto store = Open(Options());
    std::vector<AdapterContent> contents(kAdapters);
    for (size_t i = 0; i < kAdapters; ++i)
      if (!store->Check(manifests_[i], is_cancelled_, &contents[i]).ok()) return 1;
    for (int round = 0; round < rounds; ++round) {
      const uint64_t draw = Philox(seed, static_cast<uint64_t>(round));
      const size_t i = draw % kAdapters;
      const Loaded loaded = Load(store.get(), contents[i]);
      if (!loaded.status.ok()) return 2;
      if (loaded.tiles != wanted_[i]) return 3;
      if (!loaded.report.warning.empty()) return 4;
      if (draw / 16 % 2 == 0) std::filesystem::remove(store->PathOf(contents[draw / 64 % kAdapters].key));
    }
    return 0;
  }

  std::vector<AdapterManifest> manifests_;
  std::vector<std::vector<uint8_t>> wanted_;
};

TEST_F(AdapterStoreProcessTest, ProcessesShareOneFolderWhileItsFilesComeAndGo) {
  std::vector<pid_t> children;
  for (uint64_t seed = 1; seed <= 3; ++seed) children.push_back(Fork([&] { return UseFolder(seed, 60); }));
  EXPECT_EQ(UseFolder(4, 60), 0);
  for (const pid_t child : children) {
    const int status = Wait(child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  for (const std::string& name : Names()) EXPECT_TRUE(name.ends_with(".adapter")) << name;
}

TEST_F(AdapterStoreProcessTest, AWriterThatIsKilledLeavesNothingThatALoadWouldTake) {
  int temporaries = 0;
  for (uint64_t round = 0; round < 25; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = Fork([&] {
      (void)!::write(ready[1], "x", 1);
      return UseFolder(round, 1 << 20);
    });
    char begun;
    ASSERT_EQ(::read(ready[0], &begun, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(Philox(7, round) % 12'000));
    ::kill(child, SIGKILL);
    EXPECT_TRUE(WIFSIGNALED(Wait(child)));
    for (const std::string& name : Names()) temporaries += name.ends_with(".adapter") ? 0 : 1;
    // What is there is whole: it is read, or it wouldn't be counted as built.
    const auto store = Open(Options());
    for (size_t i = 0; i < kAdapters; ++i) {
      const AdapterContent content = Check(store.get(), manifests_[i]);
      const bool is_there = fs::exists(store->PathOf(content.key));
      const Loaded loaded = Load(store.get(), content);
      ASSERT_TRUE(loaded.status.ok());
      EXPECT_EQ(loaded.tiles, wanted_[i]);
      EXPECT_NE(loaded.report.has_built, is_there);
      std::filesystem::remove(store->PathOf(content.key));
    }
  }
  RecordProperty("temporaries", temporaries);
}

TEST_F(AdapterStoreProcessTest, AWriterThatIsKilledWhileItPacksLeavesAFileThatDisturbsNobodyAndGoes) {
  const AdapterManifest& manifest = manifests_[0];
  int asked = 0;
  pace_ = [&](int64_t) { return ++asked > 0; };
  ASSERT_TRUE(Load(Open({}).get(), Check(Open({}).get(), manifest)).status.ok());
  const int asks = asked;
  ASSERT_GT(asks, 4);
  for (int last = 1; last <= asks; ++last) {
    SCOPED_TRACE(testing::Message() << "killed when it asks " << last << " of " << asks);
    const pid_t child = Fork([&] {
      const auto store = Open(Options());
      AdapterContent content;
      if (!store->Check(manifest, is_cancelled_, &content).ok()) return 1;
      int left = last;
      pace_ = [&left](int64_t) { return --left > 0 || ::kill(::getpid(), SIGKILL) == 0; };
      (void)Load(store.get(), content);
      return 2;
    });
    const int status = Wait(child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    pace_ = [](int64_t) { return true; };
    const std::vector<std::string> left = Names();
    const auto next = Open(Options());
    const AdapterContent content = Check(next.get(), manifest);
    const std::string pack = fs::path(next->PathOf(content.key)).filename().string();
    ASSERT_EQ(left.size(), 1u);
    EXPECT_TRUE(left[0].starts_with(pack + ".tmp-")) << left[0];
    EXPECT_FALSE(content.has_pack);
    const Loaded loaded = Load(next.get(), content);
    ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
    EXPECT_TRUE(loaded.report.has_built);
    EXPECT_EQ(loaded.tiles, wanted_[0]);
    EXPECT_EQ(Names(), (std::vector<std::string>{pack, left[0]}));
    fs::last_write_time(packs_ + "/" + left[0], fs::file_time_type::clock::now() - std::chrono::minutes(2));
    const auto later = Open(Options());
    EXPECT_TRUE(Check(later.get(), manifest).has_pack);
    EXPECT_EQ(Names(), std::vector<std::string>{pack});
    fs::remove(packs_ + "/" + pack);
  }
}

// In a child with mounts of its own: a disk of so few pages that some packs fit and others don't.
TEST_F(AdapterStoreProcessTest, OnAFullDiskSomeAreLoadedFromTheirPacksAndTheOthersFromTheirSources) {
  fs::create_directory(packs_);
  constexpr int kNotAllowed = 77;
  const auto child = [&] {
    const bool has_mounted = ::unshare(CLONE_NEWNS) == 0 && ::mount("", "/", "", MS_REC | MS_PRIVATE, nullptr) == 0 &&
                             ::mount("tmpfs", packs_.c_str(), "tmpfs", 0, "size=64k") == 0;
    if (!has_mounted) return kNotAllowed;
    AdapterStoreOptions options = Options();
    options.retry_ms = 0;
    const auto store = Open(options);
    int packed = 0, warnings = 0;
    for (int round = 0; round < 3; ++round) {
      for (size_t i = 0; i < kAdapters; ++i) {
        const Loaded loaded = Load(store.get(), Check(store.get(), manifests_[i]));
        if (!loaded.status.ok()) return 2;
        if (loaded.tiles != wanted_[i]) return 3;
        packed += loaded.report.has_pack ? 1 : 0;
        warnings += loaded.report.warning.empty() ? 0 : 1;
      }
    }
    for (const std::string& name : Names())
      if (!name.ends_with(".adapter")) return 4;
    if (packed == 0 || packed == 3 * kAdapters) return 5;
    return warnings == 1 ? 0 : 6;
  };
  const int status = Wait(Fork(child));
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotAllowed) GTEST_SKIP() << "needs the right to mount a file system";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(AdapterStoreProcessTest, WhatKilledWritersLeftGoesAMinuteLaterAndWhatIsBeingWrittenStays) {
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), manifests_[0]);
  const std::string path = store->PathOf(content.key);
  const auto old = fs::file_time_type::clock::now() - std::chrono::minutes(2);
  NewFile writing;
  ASSERT_TRUE(writing.Create(path).ok());
  fs::last_write_time(writing.temporary_path(), old);
  const auto leave = [&](const std::string& name, bool is_old) {
    WriteAll(packs_ + "/" + name, {'x'});
    if (is_old) fs::last_write_time(packs_ + "/" + name, old);
  };
  const std::string pack = fs::path(path).filename().string();
  leave(pack + ".tmp-aaaaaa", true);
  leave("scratch.tmp-aaaaaa", true);
  leave(pack + ".tmp-bbbbbb", false);
  leave("notes.tmp-aaaaaa", true);
  Check(Open(Options()).get(), manifests_[1]);
  std::vector<std::string> left = {pack + ".tmp-bbbbbb", "notes.tmp-aaaaaa",
                                   fs::path(writing.temporary_path()).filename().string()};
  std::sort(left.begin(), left.end());
  EXPECT_EQ(Names(), left);
}

}  // namespace
}  // namespace openlora
