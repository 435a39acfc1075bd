// Adapters whose files change between their registration and their first use, where size and times tell nothing.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "memory/store_fixture.h"

namespace openlora {
namespace {

namespace fs = std::filesystem;

// Writes at `offset` of the file, and puts its time of change back.
void WriteUnseen(const std::string& path, int64_t offset, const void* data, size_t bytes) {
  struct stat before, after;
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  ASSERT_EQ(::fstat(descriptor, &before), 0);
  ASSERT_EQ(::pwrite(descriptor, data, bytes, offset), static_cast<ssize_t>(bytes));
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  ASSERT_EQ(::fstat(descriptor, &after), 0);
  ASSERT_EQ(after.st_size, before.st_size);
  ASSERT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  ASSERT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  ::close(descriptor);
}

class ChangedSourceTest : public StoreFixture {
 protected:
  // By a load that packs, by a preparation, and by a load where no packs are kept.
  void ExpectRefused(AdapterStore* store, AdapterStore* plain, const AdapterManifest& manifest,
                     const std::function<void()>& change, const char* code = kErrAdapterChanged) {
    const AdapterContent content = Check(store, manifest), content_of_plain = Check(plain, manifest);
    change();
    const Loaded loaded = Load(store, content);
    EXPECT_STREQ(loaded.status.code(), code) << loaded.status.message();
    EXPECT_NE(loaded.status.message().find(folder_.File("")), std::string::npos) << loaded.status.message();
    EXPECT_FALSE(loaded.report.has_pack || loaded.report.has_built);
    StoreReport report;
    EXPECT_STREQ(store->Prepare(content, pace_, &report).code(), code);
    EXPECT_FALSE(report.has_pack || report.has_built);
    EXPECT_STREQ(Load(plain, content_of_plain).status.code(), code);
    EXPECT_EQ(Names(), std::vector<std::string>());
  }
};

TEST_F(ChangedSourceTest, ABitThatChangedUnderTheSameSizeAndTimeIsRefusedWhereverItStandsAndLeavesNoPack) {
  AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const auto size = static_cast<int64_t>(fs::file_size(manifest.files[0]));
  // Bytes that are no site's, between others' and in a file of their own.
  ASSERT_GT(manifest.sites.size(), 2u);
  const TensorRange skipped = manifest.sites[1].a;
  manifest.sites.erase(manifest.sites.begin() + 1);
  manifest.files.push_back(folder_.File("b"));
  WriteAll(manifest.files[1], std::vector<char>(5'000'000));
  const auto store = Open(Options()), plain = Open({});
  for (const auto& [path, offset] : std::vector<std::pair<std::string, int64_t>>{{manifest.files[0], 0},
                                                                                 {manifest.files[0], size / 2},
                                                                                 {manifest.files[0], size - 4},
                                                                                 {manifest.files[0], skipped.offset},
                                                                                 {manifest.files[1], 0},
                                                                                 {manifest.files[1], 4'999'999}}) {
    SCOPED_TRACE(testing::Message() << path << " at " << offset);
    const char before = ReadAll(path)[static_cast<size_t>(offset)], after = static_cast<char>(before ^ 1);
    ExpectRefused(store.get(), plain.get(), manifest, [&] { WriteUnseen(path, offset, &after, 1); });
    WriteUnseen(path, offset, &before, 1);
  }
  EXPECT_TRUE(Load(store.get(), Check(store.get(), manifest)).report.has_built);
}

TEST_F(ChangedSourceTest, AFileThatIsLinkedOrWhoseModeChangesOrThatIsAgainWhatItWasIsPacked) {
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), manifest);
  const std::string& path = manifest.files[0];
  const std::vector<char> whole = ReadAll(path);
  fs::create_hard_link(path, folder_.File("link"));
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  WriteUnseen(path, 0, "other", 5);
  WriteUnseen(path, 0, whole.data(), whole.size());
  EXPECT_TRUE(Load(store.get(), content).report.has_built);
}

TEST_F(ChangedSourceTest, AFileThatIsRewrittenWhileItIsPackedIsRefusedAndLeavesNoPack) {
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const std::string& path = manifest.files[0];
  const std::vector<char> whole = ReadAll(path);
  const std::vector<char> other = ReadAll(TinyAdapter(folder_, "b", 8, 0, 8).files[0]);
  ASSERT_EQ(other.size(), whole.size());
  const float infinite = std::numeric_limits<float>::infinity();
  const int64_t last = static_cast<int64_t>(whole.size()) - 4;
  const std::vector<std::pair<const char*, std::function<void(int)>>> writers = {
      {"once", [&](int ask) { ask == 2 ? WriteUnseen(path, 0, other.data(), other.size()) : void(); }},
      {"to and fro", [&](int ask) { WriteUnseen(path, 0, (ask == 2 ? other : whole).data(), whole.size()); }},
      {"with what is no number", [&](int ask) { ask == 2 ? WriteUnseen(path, last, &infinite, 4) : void(); }},
      {"cut off", [&](int ask) { ask == 2 ? fs::resize_file(path, 100) : void(); }}};
  for (const auto& [name, write] : writers) {
    SCOPED_TRACE(name);
    const auto store = Open(Options()), plain = Open({});
    for (const bool is_packed : {true, false}) {
      WriteAll(path, whole);
      AdapterStore* const by = is_packed ? store.get() : plain.get();
      const AdapterContent content = Check(by, manifest);
      int asked = 0;
      pace_ = [&](int64_t) {
        write(++asked);
        return true;
      };
      const Loaded loaded = Load(by, content);
      EXPECT_STREQ(loaded.status.code(), kErrAdapterChanged) << loaded.status.message();
      EXPECT_GE(asked, 2);
      EXPECT_EQ(Names(), std::vector<std::string>());
      pace_ = [](int64_t) { return true; };
    }
  }
}

TEST_F(ChangedSourceTest, AFileThatIsReplacedWhileItIsPackedIsPackedAsItWasRegistered) {
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const std::vector<uint8_t> wanted = Load(Open({}).get(), Check(Open({}).get(), manifest)).tiles;
  const std::string other = TinyAdapter(folder_, "b", 8, 0, 8).files[0];
  const auto store = Open(Options());
  const AdapterContent content = Check(store.get(), manifest);
  int asked = 0;
  pace_ = [&](int64_t) {
    if (++asked == 2) fs::rename(other, manifest.files[0]);
    return true;
  };
  const Loaded loaded = Load(store.get(), content);
  EXPECT_TRUE(loaded.report.has_built);
  EXPECT_EQ(loaded.tiles, wanted);
}

TEST_F(ChangedSourceTest, AValueThatDoesntFitIsSaidOfWhatWasRegisteredAndOfNothingElse) {
  dtype_ = DType::kF16;
  const AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  const float large = 1e30f;
  const auto store = Open(Options(), dtype_), plain = Open({}, dtype_);
  const auto write = [&] { WriteUnseen(manifest.files[0], 0, &large, 4); };
  ExpectRefused(store.get(), plain.get(), manifest, write);
  const AdapterContent content = Check(store.get(), manifest);
  const Loaded loaded = Load(store.get(), content);
  EXPECT_STREQ(loaded.status.code(), kErrAdapterNotFinite) << loaded.status.message();
  EXPECT_EQ(Names(), std::vector<std::string>());
}

// No safetensors file has them; a manifest might.
TEST_F(ChangedSourceTest, TensorsThatShareBytesAreReadAndProvedAsOthersAre) {
  AdapterManifest manifest = TinyAdapter(folder_, "a", 8, 0, 7);
  TensorRange &first = manifest.sites[0].a, &second = manifest.sites.back().a;
  const std::vector<char> whole = ReadAll(manifest.files[0]);
  const int64_t bytes = std::min(first.bytes, second.bytes);
  ASSERT_EQ(first.bytes, second.bytes);
  AdapterManifest copied = manifest;
  copied.files = {folder_.File("copied")};
  std::vector<char> repeated = whole;
  std::copy_n(whole.begin() + first.offset, bytes, repeated.begin() + second.offset);
  WriteAll(copied.files[0], repeated);
  const std::vector<uint8_t> wanted = Load(Open({}).get(), Check(Open({}).get(), copied)).tiles;
  second.offset = first.offset;
  const auto store = Open(Options()), plain = Open({});
  const char changed = static_cast<char>(whole[0] ^ 1);
  ExpectRefused(store.get(), plain.get(), manifest, [&] { WriteUnseen(manifest.files[0], 0, &changed, 1); });
  WriteUnseen(manifest.files[0], 0, whole.data(), 1);
  EXPECT_EQ(Load(store.get(), Check(store.get(), manifest)).tiles, wanted);
}

}  // namespace
}  // namespace openlora
