#include "model/weight_cache.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>

#include "base/pages.h"
#include "engine/tiny_model.h"
#include "model/model_weights.h"
#include "ops/reference/reference_ops.h"

namespace openlora {
namespace {

namespace fs = std::filesystem;

constexpr WeightFormat::Kind kFormats[] = {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16,
                                           WeightFormat::kInt8, WeightFormat::kInt4};

ModelConfig Tied() {
  ModelConfig model = TinyConfig();
  model.is_tied = true;
  return model;
}

class WeightCacheTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(CreateCpuOps(SimdLevel::kAuto, 1, &ops_).ok()); }

  // A base's weights, opened and perhaps packed.
  struct Base {
    ModelWeights weights;
    PackedWeights packed;
    PageBuffer memory;
  };
  std::unique_ptr<Base> Open(const EngineOptions& options) {
    auto base = std::make_unique<Base>();
    const Status status = base->weights.Open(options.model, options.files, options.tensors, options.dtype, *ops_);
    EXPECT_TRUE(status.ok()) << status.message();
    base->packed = base->weights.Packed(*ops_);
    return base;
  }
  std::unique_ptr<Base> Pack(const EngineOptions& options) {
    auto base = Open(options);
    base->memory = PageBuffer(static_cast<size_t>(base->packed.bytes));
    const Status status = base->weights.Load(base->memory.data(), ops_.get(), [](LoadProgress) {}, is_cancelled_);
    EXPECT_TRUE(status.ok()) << status.message();
    return base;
  }
  std::unique_ptr<Base> PackAndWrite(const EngineOptions& options) {
    auto base = Pack(options);
    const Status status = Write(*base);
    EXPECT_TRUE(status.ok()) << status.message();
    return base;
  }
  EngineOptions Options(WeightFormat format = DType::kF32, ModelConfig model = TinyConfig()) {
    EngineOptions options = TinyOptions(folder_, 1, SimdLevel::kAuto, format, model);
    fs::last_write_time(options.files[0], written_);  // by each TinyOptions anew, with the same content
    if (model.is_tied)
      std::erase_if(options.tensors, [](const BaseTensor& tensor) { return tensor.role == WeightRole::kHead; });
    return options;
  }
  Status Write(const Base& base) {
    return WriteWeightCache(cache_, base.packed, base.memory.data(), [](LoadProgress) {}, is_cancelled_);
  }
  // Whether the file was taken. Nothing that may be in a file is an error.
  bool Reads(const PackedWeights& packed, MappedFile* file) {
    const Status status = ReadWeightCache(cache_, packed, [](LoadProgress) {}, is_cancelled_, file);
    EXPECT_TRUE(status.ok()) << status.message();
    return file->size() > 0;
  }
  bool Reads(const PackedWeights& packed) {
    MappedFile file;
    return Reads(packed, &file);
  }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    if (!fs::exists(cache_)) return names;
    for (const auto& entry : fs::directory_iterator(cache_)) names.insert(entry.path().filename().string());
    return names;
  }

  TestFolder folder_{"cache"};
  std::string cache_ = folder_.File("made/for/this");
  fs::file_time_type written_ = fs::file_time_type::clock::now();
  std::unique_ptr<Ops> ops_;
  std::atomic<bool> is_cancelled_{false};
};

// Where everything of the base lies, from `memory` on; -1: nowhere.
std::vector<int64_t> Places(const ModelConfig& model, const ModelWeights& weights, const void* memory) {
  std::vector<int64_t> places;
  const auto add = [&](const void* data) {
    places.push_back(data == nullptr ? -1 : static_cast<const uint8_t*>(data) - static_cast<const uint8_t*>(memory));
  };
  const auto add_weight = [&](const Weight& weight) {
    add(weight.data);
    add(weight.bias);
    places.insert(places.end(), {weight.format.kind, weight.out, weight.in});
  };
  add_weight(weights.embed());
  add_weight(weights.head());
  add(weights.final_norm());
  EXPECT_EQ(weights.layers().size(), static_cast<size_t>(model.layers));
  for (const LayerWeights& layer : weights.layers()) {
    for (const float* norm :
         {layer.attn_norm, layer.mlp_norm, layer.attn_post_norm, layer.mlp_post_norm, layer.q_norm, layer.k_norm})
      add(norm);
    for (const Weight& site : layer.sites) add_weight(site);
  }
  return places;
}

TEST_F(WeightCacheTest, EveryFormatTiedOrNotComesBackByteForByteInItsPlaces) {
  ModelConfig normed = TinyConfig();
  normed.has_post_norms = true;
  normed.qk_norm = QkNorm::kHead;
  for (const ModelConfig& model : {TinyConfig(), Tied(), normed})
    for (const WeightFormat format : kFormats) {
      const EngineOptions options = Options(format, model);
      const auto packed = PackAndWrite(options);
      const auto found = Open(options);
      MappedFile file;
      ASSERT_TRUE(Reads(found->packed, &file)) << NameOf(format);
      const uint8_t* payload = file.data() + kWeightCacheHeaderBytes;
      EXPECT_EQ(std::memcmp(payload, packed->memory.data(), packed->memory.bytes()), 0) << NameOf(format);
      ASSERT_TRUE(found->weights.Adopt(std::move(file)).ok());
      EXPECT_EQ(Places(model, found->weights, payload), Places(model, packed->weights, packed->memory.data()));
    }
  EXPECT_EQ(Names().size(), 15u);
}

TEST_F(WeightCacheTest, TheKeyKnowsWhateverDecidesTheBytes) {
  const EngineOptions options = Options();
  std::set<std::string> keys;
  const auto add = [&](const EngineOptions& changed) { return keys.insert(ToHex(Open(changed)->packed.key)).second; };
  EXPECT_TRUE(add(options));
  EXPECT_FALSE(add(options));
  for (const WeightFormat format : kFormats) EXPECT_EQ(add(Options(format)), format != WeightFormat::kF32);

  EngineOptions other = options;
  other.model.norm_offset = 1;
  EXPECT_TRUE(add(other));
  other = options;
  std::swap(other.tensors[3].range, other.tensors[4].range);  // two norms
  EXPECT_TRUE(add(other));
  other = options;
  std::swap(other.tensors[3], other.tensors[4]);  // their places in memory
  EXPECT_TRUE(add(other));

  const auto cpu_key = Open(options)->packed.key;
  EXPECT_NE(Open(options)->weights.Packed(*CreateReferenceOps()).key, cpu_key);

  // Beyond the first 4 KiB of each tensor.
  fs::last_write_time(options.files[0], fs::last_write_time(options.files[0]) + std::chrono::nanoseconds(1000));
  EXPECT_TRUE(add(options));
  std::ofstream(options.files[0], std::ios::app) << "more";
  EXPECT_TRUE(add(options));
}

TEST_F(WeightCacheTest, AFileOfAnotherKeyUnderThisNameIsNotTaken) {
  const auto base = PackAndWrite(Options());
  const auto other = PackAndWrite(Options(DType::kF32, Tied()));
  EXPECT_TRUE(Reads(base->packed));
  PackedWeights like = base->packed;
  like.key[31] ^= 1;  // the name has the first half alone
  EXPECT_EQ(WeightCachePath(cache_, like), WeightCachePath(cache_, base->packed));
  EXPECT_FALSE(Reads(like));
  fs::rename(WeightCachePath(cache_, other->packed), WeightCachePath(cache_, base->packed));
  EXPECT_FALSE(Reads(base->packed));
}

// Changes the file of a base, and puts it back.
class Damaged {
 public:
  explicit Damaged(std::string path) : path_(std::move(path)) {
    std::ifstream file(path_, std::ios::binary);
    content_.assign(std::istreambuf_iterator<char>(file), {});
  }
  size_t size() const { return content_.size(); }
  void Write(const std::string& content) const {
    std::ofstream(path_, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
  }
  void Restore() const { Write(content_); }
  void Resize(size_t size) const {
    std::string content = content_;
    content.resize(size);
    Write(content);
  }
  void Zero(size_t begin, size_t end) const {
    std::string content = content_;
    std::fill(content.begin() + static_cast<std::ptrdiff_t>(begin), content.begin() + static_cast<std::ptrdiff_t>(end),
              0);
    Write(content);
  }
  // In place, so that thousands of them are cheap.
  void Flip(size_t at, int bit) const {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(content_[at] ^ 1 << bit));
  }
  void Unflip(size_t at) const {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at)).put(content_[at]);
  }

 private:
  std::string path_;
  std::string content_;
};

TEST_F(WeightCacheTest, NoByteOfTheHeaderAndNoLengthMayDiffer) {
  const auto base = PackAndWrite(Options());
  const Damaged file(WeightCachePath(cache_, base->packed));
  for (size_t at = 0; at < kWeightCacheHeaderBytes; ++at) {
    file.Flip(at, static_cast<int>(at % 8));
    ASSERT_FALSE(Reads(base->packed)) << "byte " << at;
    file.Unflip(at);
  }
  EXPECT_TRUE(Reads(base->packed));
  for (const size_t size : {size_t{0}, size_t{100}, size_t{4096}, file.size() - 1, file.size() + 1}) {
    file.Resize(size);
    EXPECT_FALSE(Reads(base->packed)) << size;
  }
  file.Restore();
  EXPECT_TRUE(Reads(base->packed));
}

TEST_F(WeightCacheTest, APayloadThatNeverReachedTheDiskIsNotTaken) {
  const auto base = PackAndWrite(Options());
  const Damaged file(WeightCachePath(cache_, base->packed));
  file.Zero(kWeightCacheHeaderBytes, file.size());
  EXPECT_FALSE(Reads(base->packed));
  const std::vector<int64_t>& items = base->packed.items;
  for (const int64_t item : items) {
    const auto begin = static_cast<size_t>(kWeightCacheHeaderBytes + item);
    file.Zero(begin, begin + 4096);
    EXPECT_FALSE(Reads(base->packed)) << "item at " << item;
  }
  file.Restore();
  EXPECT_TRUE(Reads(base->packed));
}

TEST_F(WeightCacheTest, OfALongItemEveryFourMegabytesAreSampled) {
  constexpr int64_t kStep = 4 << 20;
  Base base;
  base.packed.bytes = 2 * kStep + 8192;
  base.packed.items = {0, 4096};
  base.memory = PageBuffer(static_cast<size_t>(base.packed.bytes));
  std::memset(base.memory.data(), 7, base.memory.bytes());
  ASSERT_TRUE(Write(base).ok());
  const Damaged file(WeightCachePath(cache_, base.packed));
  for (const int64_t at : {int64_t{0}, int64_t{4096}, 4096 + kStep, 4096 + 2 * kStep + 4095}) {
    file.Flip(static_cast<size_t>(kWeightCacheHeaderBytes + at), 0);
    EXPECT_FALSE(Reads(base.packed)) << at;
    file.Unflip(static_cast<size_t>(kWeightCacheHeaderBytes + at));
  }
  EXPECT_TRUE(Reads(base.packed));
}

TEST_F(WeightCacheTest, WritingReplacesWhatIsThereAndLeavesItsReaderAlone) {
  const auto base = PackAndWrite(Options());
  const std::string path = WeightCachePath(cache_, base->packed);
  MappedFile reader;
  ASSERT_TRUE(Reads(base->packed, &reader));
  ASSERT_TRUE(Write(*base).ok());
  EXPECT_EQ(std::memcmp(reader.data() + kWeightCacheHeaderBytes, base->memory.data(), base->memory.bytes()), 0);
  std::ofstream(path, std::ios::trunc) << "rubbish";
  ASSERT_TRUE(Write(*base).ok());
  EXPECT_TRUE(Reads(base->packed));
  EXPECT_EQ(Names(), std::set<std::string>{fs::path(path).filename().string()});
}

TEST_F(WeightCacheTest, TheFolderAndTheFileAreTheOwnersAlone) {
  const auto base = PackAndWrite(Options());
  const auto mode = [](const fs::path& path) { return static_cast<unsigned>(fs::status(path).permissions()); };
  for (fs::path made = cache_; made.filename() != "made"; made = made.parent_path()) EXPECT_EQ(mode(made), 0700u);
  EXPECT_EQ(mode(folder_.File("made")), 0700u);
  EXPECT_EQ(mode(WeightCachePath(cache_, base->packed)), 0600u);
}

TEST_F(WeightCacheTest, AnAbortEndsReadingAndWritingAtEachReportAndLeavesNothing) {
  const auto base = Pack(Options());
  const int64_t total = base->packed.bytes;
  for (const int64_t at : {int64_t{0}, total}) {
    const auto abort = [&](LoadProgress progress) {
      EXPECT_EQ(progress.bytes_total, total);
      if (progress.bytes_done == at) is_cancelled_ = true;
    };
    const Status written = WriteWeightCache(cache_, base->packed, base->memory.data(), abort, is_cancelled_);
    EXPECT_STREQ(written.code(), kErrAborted);
    EXPECT_TRUE(Names().empty());
    is_cancelled_ = false;

    ASSERT_TRUE(Write(*base).ok());
    MappedFile file;
    EXPECT_STREQ(ReadWeightCache(cache_, base->packed, abort, is_cancelled_, &file).code(), kErrAborted);
    EXPECT_EQ(file.size(), 0);
    is_cancelled_ = false;
    fs::remove_all(cache_);
  }
}

TEST_F(WeightCacheTest, ADiskThatIsFullIsAnErrorAndLeavesNothing) {
  const auto base = Pack(Options());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // as node has it
  for (const rlim_t most : {rlim_t{0}, rlim_t{5000}, static_cast<rlim_t>(base->packed.bytes)}) {
    const rlimit limit{most, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const Status status = Write(*base);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_STREQ(status.code(), kErrIo);
    EXPECT_NE(status.message().find(cache_), std::string::npos) << status.message();
    EXPECT_TRUE(Names().empty());
  }
  std::signal(SIGXFSZ, handler);
}

TEST_F(WeightCacheTest, WhatCantBeAFolderOrAFileIsAnError) {
  const auto base = Pack(Options());
  cache_ = folder_.File("base.bin");
  EXPECT_STREQ(Write(*base).code(), kErrIo);
  EXPECT_FALSE(Reads(base->packed));
  cache_ = folder_.File("base.bin") + "/below";
  EXPECT_STREQ(Write(*base).code(), kErrIo);
  EXPECT_FALSE(Reads(base->packed));
  cache_ = std::string(100'000, 'x');
  EXPECT_STREQ(Write(*base).code(), kErrIo);

  cache_ = folder_.File("occupied");
  fs::create_directories(WeightCachePath(cache_, base->packed));
  MappedFile file;
  EXPECT_STREQ(ReadWeightCache(cache_, base->packed, [](LoadProgress) {}, is_cancelled_, &file).code(), kErrIo);
  EXPECT_STREQ(Write(*base).code(), kErrIo);
  EXPECT_EQ(Names().size(), 1u);
}

TEST_F(WeightCacheTest, WritingRemovesWhatDeadWritersLeftAndNothingElse) {
  const auto base = PackAndWrite(Options());
  const std::string name = *Names().begin(), digits = name.substr(0, 32);
  const auto now = fs::file_time_type::clock::now();
  const auto put = [&](const std::string& file, int minutes) {
    std::ofstream(cache_ + "/" + file) << "x";
    fs::last_write_time(cache_ + "/" + file, now - std::chrono::minutes(minutes));
  };
  put(name + ".tmp-abcdef", 2);
  put(name + ".tmp-ABCDEF", 0);
  std::set<std::string> kept = {name, name + ".tmp-ABCDEF", "folder.tmp-abcdef", digits + ".weights.tmp-folder"};
  for (const std::string& file :
       {digits + ".weights", digits + ".weights.tmp-abcde", digits + ".weights.tmp-abcdefg", digits + ".tmp-abcdef",
        "0" + name + ".tmp-abcdef", std::string("notes.tmp-abcdef"), digits.substr(1) + "g.weights.tmp-abcdef"}) {
    put(file, 48);
    kept.insert(file);
  }
  fs::create_directory(cache_ + "/folder.tmp-abcdef");
  fs::create_directory(cache_ + "/" + digits + ".weights.tmp-folder");
  fs::last_write_time(cache_ + "/" + digits + ".weights.tmp-folder", now - std::chrono::hours(48));
  ASSERT_TRUE(Write(*base).ok());
  EXPECT_EQ(Names(), kept);
}

}  // namespace
}  // namespace openlora
