#include "memory/adapter_store.h"

#include <sys/resource.h>

#include <csignal>
#include <set>
#include <thread>

#include "base/checksum.h"
#include "memory/store_fixture.h"

namespace openlora {
namespace {

namespace fs = std::filesystem;

// Writes of this process beyond so many bytes of a file fail, as they do on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    previous_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &limit_);
    const rlimit lower{bytes, limit_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &lower);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &limit_);
    std::signal(SIGXFSZ, previous_);
  }

 private:
  rlimit limit_{};
  void (*previous_)(int) = nullptr;
};

class AdapterStoreTest : public StoreFixture {
 protected:
  // What a load straight from the adapter's files gives.
  std::vector<uint8_t> FromSource(const AdapterManifest& manifest) {
    const auto plain = Open({}, dtype_);
    Loaded loaded = Load(plain.get(), Check(plain.get(), manifest));
    EXPECT_TRUE(loaded.status.ok());
    EXPECT_FALSE(loaded.report.has_pack);
    return loaded.tiles;
  }
};

TEST_F(AdapterStoreTest, APackHoldsTheTilesThatItsSourceGives) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8}) {
    dtype_ = dtype;
    for (const int32_t rank : {1, 8, 13}) {
      SCOPED_TRACE(testing::Message() << NameOf(dtype) << " rank " << rank);
      const AdapterManifest manifest = TinyAdapter(folder_, "a" + std::to_string(rank), rank, 0, 7);
      const std::vector<uint8_t> wanted = FromSource(manifest);
      const auto store = Open(Options(), dtype);
      const AdapterContent content = Check(store.get(), manifest);
      EXPECT_FALSE(content.has_pack);
      const Loaded first = Load(store.get(), content), second = Load(store.get(), content);
      ASSERT_TRUE(first.status.ok() && second.status.ok()) << first.status.message();
      EXPECT_TRUE(first.report.has_built && first.report.has_pack);
      EXPECT_TRUE(!second.report.has_built && second.report.has_pack);
      EXPECT_EQ(first.tiles, wanted);
      EXPECT_EQ(second.tiles, wanted);
      EXPECT_EQ(static_cast<int64_t>(fs::file_size(store->PathOf(content.key))), content.pack_bytes);
      EXPECT_EQ(fs::status(packs_).permissions(), fs::perms::owner_all);
      // Another process, or a later start.
      const auto later = Open(Options(), dtype);
      const AdapterContent again = Check(later.get(), manifest);
      EXPECT_TRUE(again.has_pack);
      EXPECT_EQ(again.key, content.key);
      EXPECT_EQ(Load(later.get(), again).tiles, wanted);
    }
  }
  EXPECT_EQ(Names().size(), 12u);
}

TEST_F(AdapterStoreTest, TheKeyChangesWithContentAndWithWhateverChangesTheBytes) {
  std::set<Sha256::Digest> keys;
  const AdapterManifest a = TinyAdapter(folder_, "a", 8, 0, 1), b = TinyAdapter(folder_, "b", 8, 0, 2);
  AdapterManifest scaled = a;
  scaled.sites[0].scale *= 2;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const auto store = Open(Options(), dtype);
    for (const AdapterManifest* manifest : {&a, &b, static_cast<const AdapterManifest*>(&scaled)})
      keys.insert(Check(store.get(), *manifest).key);
  }
  TileFormat larger = Format();
  larger.frame_bytes = 8192;
  AdapterStore wide(larger, SiteShapes(TinyConfig()), {}, Options(), &device_);
  keys.insert(Check(&wide, a).key);
  EXPECT_EQ(keys.size(), 7u);
  AdapterManifest moved = a;  // as by a header that isn't the file's any more
  moved.sites[0].a.offset += 4;
  keys.insert(Check(Open(Options()).get(), moved).key);
  EXPECT_EQ(keys.size(), 8u);
  AdapterManifest renamed = a;
  fs::copy_file(a.files[0], folder_.File("copy"));
  renamed.files = {folder_.File("copy")};
  const auto store = Open(Options());
  EXPECT_EQ(Check(store.get(), renamed).key, Check(store.get(), a).key);
}

TEST_F(AdapterStoreTest, OncePackedAnAdapterNeedsItsSourceNoMore) {
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const std::vector<uint8_t> wanted = FromSource(manifest);
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), manifest);
  ASSERT_TRUE(Load(store.get(), content).status.ok());
  fs::remove(manifest.files[0]);
  EXPECT_EQ(Load(store.get(), content).tiles, wanted);
  TinyAdapter(folder_, "a", 8, 0, 8);  // another adapter in its place
  EXPECT_EQ(Load(store.get(), content).tiles, wanted);
  fs::remove(store->PathOf(content.key));
  EXPECT_STREQ(Load(store.get(), content).status.code(), kErrAdapterChanged);
}

TEST_F(AdapterStoreTest, ASourceThatChangedBeforeItWasPackedIsRefusedAndLeavesNoPack) {
  const std::vector<std::pair<const char*, std::function<void(const std::string&)>>> changes = {
      {"deleted", [](const std::string& path) { fs::remove(path); }},
      {"truncated", [](const std::string& path) { fs::resize_file(path, fs::file_size(path) - 4); }},
      {"emptied", [](const std::string& path) { fs::resize_file(path, 0); }},
      {"longer", [](const std::string& path) { std::ofstream(path, std::ios::app) << "x"; }},
      {"a folder",
       [](const std::string& path) {
         fs::remove(path);
         fs::create_directory(path);
       }},
      {"replaced",
       [this](const std::string& path) { TinyAdapter(folder_, fs::path(path).filename().string(), 8, 0, 99); }}};
  const auto store = Open(Options());
  for (const auto& [name, change] : changes) {
    SCOPED_TRACE(name);
    const AdapterManifest manifest = TinyAdapter(folder_, name, 8, 0, 7);
    const AdapterContent content = Check(store.get(), manifest);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // a clock of the file system may be that coarse
    change(manifest.files[0]);
    const Loaded loaded = Load(store.get(), content);
    EXPECT_STREQ(loaded.status.code(), kErrAdapterChanged) << loaded.status.message();
    EXPECT_NE(loaded.status.message().find(manifest.files[0]), std::string::npos);
    StoreReport report;
    EXPECT_STREQ(store->Prepare(content, pace_, &report).code(), kErrAdapterChanged);
    EXPECT_EQ(Names(), std::vector<std::string>());
  }
}

TEST_F(AdapterStoreTest, ADamagedPackIsMadeAnewAndNeverLoaded) {
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 5, 0, 7);
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), manifest);
  const std::vector<uint8_t> wanted = Load(store.get(), content).tiles;
  const std::string path = store->PathOf(content.key);
  const std::vector<char> whole = ReadAll(path);
  const auto size = static_cast<int64_t>(whole.size());
  const int64_t header = size - content.frames * kFrameBytes;
  std::vector<std::vector<char>> damaged;
  for (const int64_t kept : {int64_t{0}, int64_t{1}, int64_t{127}, header - 1, header, size - kFrameBytes, size - 1})
    damaged.emplace_back(whole.begin(), whole.begin() + kept);
  damaged.push_back(whole);
  damaged.back().push_back(0);
  damaged.emplace_back(whole.size(), 0);
  damaged.push_back(whole);  // a frame that never reached the disk
  std::fill_n(damaged.back().begin() + header, kFrameBytes, 0);
  for (const int64_t at :
       {int64_t{0}, int64_t{9}, int64_t{40}, int64_t{130}, header - 1, header, header + 777, size - 1}) {
    damaged.push_back(whole);
    damaged.back()[static_cast<size_t>(at)] ^= 0x10;
  }
  for (size_t i = 0; i < damaged.size(); ++i) {
    SCOPED_TRACE(i);
    if (damaged[i] == whole) continue;
    WriteAll(path, damaged[i]);
    const Loaded loaded = Load(store.get(), content);
    ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
    EXPECT_TRUE(loaded.report.has_built);
    EXPECT_EQ(loaded.tiles, wanted);
    EXPECT_EQ(ReadAll(path), whole);
    WriteAll(path, damaged[i]);
    StoreReport prepared;
    ASSERT_TRUE(store->Prepare(content, pace_, &prepared).ok());
    EXPECT_TRUE(prepared.has_built);
    EXPECT_EQ(ReadAll(path), whole);
  }
  WriteAll(path, damaged.back());
  fs::remove(manifest.files[0]);
  EXPECT_STREQ(Load(store.get(), content).status.code(), kErrAdapterChanged);
}

TEST_F(AdapterStoreTest, EveryFlippedByteOfAPackShows) {
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), TinyAdapter(folder_, "a", 1, 0, 7));
  ASSERT_TRUE(Load(store.get(), content).status.ok());
  const std::string path = store->PathOf(content.key);
  std::vector<char> bytes = ReadAll(path);
  const auto header = static_cast<int64_t>(bytes.size()) - content.frames * kFrameBytes;
  std::vector<uint8_t> frame(kFrameBytes);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&](size_t at) {
    file.seekp(static_cast<std::streamoff>(at));
    file.put(bytes[at]).flush();
  };
  for (size_t at = 0; at < bytes.size(); ++at) {
    bytes[at] ^= static_cast<char>(1 << (at % 8));
    put(at);
    PackReader pack;
    std::string why;
    bool is_sound = pack.Open(path, content.key, store->format(), false, &why);
    if (static_cast<int64_t>(at) >= header) {
      ASSERT_TRUE(is_sound);
      is_sound = pack.ReadFrame((static_cast<int64_t>(at) - header) / kFrameBytes, frame.data());
    }
    ASSERT_FALSE(is_sound) << "byte " << at;
    bytes[at] ^= static_cast<char>(1 << (at % 8));
    put(at);
  }
}

// A checksum proves nothing of who wrote a file.
TEST_F(AdapterStoreTest, APackOfSitesThatTheBaseLacksIsRefused) {
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), TinyAdapter(folder_, "a", 4, 0, 7));
  const std::vector<uint8_t> wanted = Load(store.get(), content).tiles;
  const std::string path = store->PathOf(content.key);
  const std::vector<char> whole = ReadAll(path);
  const size_t header = whole.size() - static_cast<size_t>(content.frames * kFrameBytes);
  for (const auto& [at, value] : std::vector<std::pair<size_t, int32_t>>{
           {128, -1}, {128, 1 << 30}, {128, 7}, {132, 0}, {132, 257}, {132, -5}, {132, 200}, {140, 0}, {12, 1 << 20}}) {
    SCOPED_TRACE(testing::Message() << value << " at " << at);
    std::vector<char> forged = whole;
    std::memcpy(forged.data() + at, &value, sizeof value);
    const uint64_t checksum = Checksum(forged.data(), header - 8);
    std::memcpy(forged.data() + header - 8, &checksum, sizeof checksum);
    WriteAll(path, forged);
    const Loaded loaded = Load(store.get(), content);
    ASSERT_TRUE(loaded.status.ok());
    EXPECT_TRUE(loaded.report.has_built);
    EXPECT_EQ(loaded.tiles, wanted);
  }
}

TEST_F(AdapterStoreTest, AFolderThatCantBeMadeIsOneWarningAndLoadsComeFromTheSource) {
  std::ofstream(folder_.File("file")) << "x";
  packs_ = folder_.File("file/packs");
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const std::vector<uint8_t> wanted = FromSource(manifest);
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), manifest);
  EXPECT_NE(content.source, nullptr);
  for (int i = 0; i < 3; ++i) {
    const Loaded loaded = Load(store.get(), content);
    ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
    EXPECT_EQ(loaded.tiles, wanted);
    EXPECT_FALSE(loaded.report.has_pack);
    EXPECT_EQ(loaded.report.warning.find(packs_) != std::string::npos, i == 0) << loaded.report.warning;
  }
}

TEST_F(AdapterStoreTest, AFullDiskIsOneWarningAndIsTriedAgainLater) {
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const std::vector<uint8_t> wanted = FromSource(manifest);
  AdapterStoreOptions options = Options();
  const auto patient = Open(options);
  options.retry_ms = 0;
  const auto store = Open(options);
  const AdapterContent content = Check(store.get(), manifest);
  Check(patient.get(), manifest);
  {
    const FileSizeLimit limit(6000);
    for (AdapterStore* full : {store.get(), store.get(), patient.get()}) {
      const Loaded loaded = Load(full, content.source ? content : Check(full, manifest));
      ASSERT_TRUE(loaded.status.ok()) << loaded.status.message();
      EXPECT_EQ(loaded.tiles, wanted);
      EXPECT_FALSE(loaded.report.has_pack || loaded.report.has_built);
    }
    StoreReport report;
    EXPECT_TRUE(store->Prepare(content, pace_, &report).ok());
    EXPECT_FALSE(report.has_pack);
    EXPECT_EQ(report.warning, "");
    EXPECT_EQ(Names(), std::vector<std::string>());
  }
  EXPECT_FALSE(Load(patient.get(), Check(patient.get(), manifest)).report.has_pack);
  EXPECT_TRUE(Load(store.get(), content).report.has_pack);
}

TEST_F(AdapterStoreTest, ARecordThatDoesntFitTheDiskStaysInMemory) {
  const auto store = Open(Options());
  const FileSizeLimit limit(16);
  const AdapterContent content = Check(store.get(), AdapterManifest());
  EXPECT_NE(content.source, nullptr);
}

TEST_F(AdapterStoreTest, WithoutRoomOnDiskNoPackIsKept) {
  AdapterStoreOptions options = Options();
  options.disk_bytes = 0;
  const auto store = Open(options);
  const Loaded loaded = Load(store.get(), Check(store.get(), TinyAdapter(folder_, "a", 8, 0, 7)));
  EXPECT_TRUE(loaded.status.ok());
  EXPECT_FALSE(loaded.report.has_pack);
  EXPECT_EQ(loaded.report.warning, "");
  EXPECT_EQ(Names(), std::vector<std::string>());
}

TEST_F(AdapterStoreTest, PacksThatWereUsedLongestAgoMakeRoomForNewOnes) {
  AdapterStoreOptions options = Options();
  std::vector<AdapterManifest> manifests;
  for (int i = 0; i < 6; ++i) manifests.push_back(TinyAdapter(folder_, "a" + std::to_string(i), 8, 0, 10 + i));
  const int64_t each = Check(Open(options).get(), manifests[0]).pack_bytes;
  options.disk_bytes = 4 * each + 100;
  const auto store = Open(options);
  std::vector<AdapterContent> contents;
  const auto now = fs::file_time_type::clock::now();
  for (int i = 0; i < 4; ++i) {
    contents.push_back(Check(store.get(), manifests[static_cast<size_t>(i)]));
    ASSERT_TRUE(Load(store.get(), contents.back()).status.ok());
    fs::last_write_time(store->PathOf(contents.back().key), now - std::chrono::hours(10 - i));
  }
  WriteAll(packs_ + "/notes", {'x'});
  ASSERT_FALSE(Load(store.get(), contents[0]).report.has_built);  // used now
  contents.push_back(Check(store.get(), manifests[4]));
  ASSERT_TRUE(Load(store.get(), contents[4]).status.ok());
  const auto is_there = [&](size_t i) { return fs::exists(store->PathOf(contents[i].key)); };
  // Five are too many; nine tenths of four are three.
  EXPECT_TRUE(is_there(0) && !is_there(1) && !is_there(2) && is_there(3) && is_there(4));
  EXPECT_TRUE(fs::exists(packs_ + "/notes"));
  EXPECT_TRUE(Load(store.get(), contents[1]).report.has_built);
}

TEST_F(AdapterStoreTest, GivingUpEndsALoadAndAPreparationAndLeavesNothing) {
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), TinyAdapter(folder_, "a", 8, 0, 7));
  for (const int asks : {0, 1, 3}) {
    int left = asks;
    pace_ = [&left](int64_t) { return left-- > 0; };
    EXPECT_STREQ(Load(store.get(), content).status.code(), kErrAborted);
    left = asks;
    StoreReport report;
    EXPECT_STREQ(store->Prepare(content, pace_, &report).code(), kErrAborted);
    EXPECT_EQ(Names(), std::vector<std::string>());
  }
  pace_ = [](int64_t) { return true; };
  EXPECT_TRUE(Load(store.get(), content).status.ok());
}

TEST_F(AdapterStoreTest, WhoeverOnlyReadsSaysThatAPackIsNeeded) {
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), TinyAdapter(folder_, "a", 8, 0, 7));
  StoreReport report;
  report.reads_only = true;
  EXPECT_STREQ(store->Prepare(content, pace_, &report).code(), kErrAborted);
  EXPECT_TRUE(report.needs_pack);
  ASSERT_TRUE(Load(store.get(), content).status.ok());
  StoreReport again;
  again.reads_only = true;
  EXPECT_TRUE(store->Prepare(content, pace_, &again).ok());
  EXPECT_TRUE(again.has_pack && !again.needs_pack);
}

TEST_F(AdapterStoreTest, WhatIsReadAheadIsInThePageCacheSoonAndCountsAsUsed) {
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), TinyAdapter(folder_, "a", 8, 0, 1));
  const Loaded packed = Load(store.get(), content);
  const std::string path = store->PathOf(content.key);
  const auto load_cached = [&](std::vector<uint8_t>* tiles) {
    std::vector<uint32_t> frames;
    EXPECT_TRUE(pool_.Take(content.frames, FrameUse::kAdapter, &frames));
    LoadedAdapter loaded;
    StoreReport report;
    report.reads_only = report.is_cached_only = true;
    const Status status = store->Load(content, frames, pool_, pace_, &loaded, &report);
    if (status.ok()) *tiles = TilesOf(loaded.layout, frames);
    pool_.Retire(frames, FrameUse::kAdapter, 1);
    pool_.Reclaim(1);
    return status.ok();
  };
  std::vector<uint8_t> tiles;
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(48);
  std::filesystem::last_write_time(path, long_ago);
  store->DropFromPageCache(content);
  const bool was_dropped = !load_cached(&tiles);  // not where files are memory, nor while another process maps them
  bool is_there = false;
  for (int i = 0; i < 10'000 && !is_there; ++i) {
    // Again and again: the system may take it back before we look.
    store->ReadAhead(content.key);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    is_there = load_cached(&tiles);
  }
  EXPECT_TRUE(is_there);
  EXPECT_EQ(tiles, packed.tiles);
  EXPECT_GT(std::filesystem::last_write_time(path), long_ago + std::chrono::hours(24));
  store->ReadAhead({});  // no such pack
  if (!was_dropped) GTEST_SKIP() << "this file system keeps what it is asked to drop";
}

}  // namespace
}  // namespace openlora
