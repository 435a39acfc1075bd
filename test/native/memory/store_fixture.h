#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/tiny_model.h"
#include "memory/adapter_store.h"
#include "memory/pack_folder.h"

namespace openlora {

// Stores over one folder of packs, and frames to load into.
class StoreFixture : public testing::Test {
 protected:
  static constexpr int64_t kFrameBytes = 4096;

  void SetUp() override {
    ASSERT_TRUE(CreateCpuOps(SimdLevel::kAuto, 1, &ops_).ok());
    ASSERT_TRUE(pool_.Open(&device_, kFrameBytes, 0, 256, true).ok());
    packs_ = folder_.File("packs");
  }

  TileFormat Format(DType dtype = DType::kBF16) const { return {ops_.get(), dtype, kFrameBytes}; }
  AdapterStoreOptions Options() const { return {packs_, int64_t{1} << 30, 60'000}; }
  std::unique_ptr<AdapterStore> Open(const AdapterStoreOptions& options, DType dtype = DType::kBF16) {
    return std::make_unique<AdapterStore>(Format(dtype), SiteShapes(TinyConfig()), std::vector<std::string>(), options,
                                          &device_);
  }
  AdapterContent Check(AdapterStore* store, const AdapterManifest& manifest) {
    AdapterContent content;
    const Status status = store->Check(manifest, is_cancelled_, &content);
    EXPECT_TRUE(status.ok()) << status.message();
    return content;
  }

  struct Loaded {
    Status status;
    StoreReport report;
    std::vector<uint8_t> tiles;  // one after another
    std::vector<SitePages> sites;
  };
  Loaded Load(AdapterStore* store, const AdapterContent& content) {
    Loaded outcome;
    std::vector<uint32_t> frames;
    EXPECT_TRUE(pool_.Take(content.frames, FrameUse::kAdapter, &frames));
    LoadedAdapter loaded;
    outcome.status = store->Load(content, frames, pool_, pace_, &loaded, &outcome.report);
    if (outcome.status.ok()) {
      outcome.tiles = TilesOf(loaded.layout, frames);
      outcome.sites = loaded.layout.sites;
    }
    store->Settle(&outcome.report);
    pool_.Retire(frames, FrameUse::kAdapter, 1);
    pool_.Reclaim(1);  // poisons them
    return outcome;
  }
  std::vector<uint8_t> TilesOf(const TileLayout& layout, const std::vector<uint32_t>& frames) const {
    std::vector<uint8_t> bytes;
    const std::vector<SiteShape> shapes = SiteShapes(TinyConfig());
    for (size_t site = 0; site < shapes.size(); ++site) {
      const SitePages& pages = layout.sites[site];
      for (const auto& [first, columns] : {std::pair{pages.a, shapes[site].in}, std::pair{pages.b, shapes[site].out}}) {
        for (int32_t r = 0; r < pages.rank; r += kTileRanks) {
          const TileRun& run = layout.runs[first + static_cast<uint32_t>(r / kTileRanks)];
          for (int64_t begin = 0, end; begin < columns; begin = end) {
            const TilePlace tile = TileAt(run, begin);
            end = std::min(tile.column_end, columns);
            const uint8_t* data = pool_.Frame(frames[static_cast<size_t>(tile.frame)]) + tile.offset;
            bytes.insert(bytes.end(), data,
                         data + TileBytes(dtype_, std::min(kTileRanks, pages.rank - r), end - begin));
          }
        }
      }
    }
    return bytes;
  }
  // Names of what is in the folder of packs, sorted.
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    std::error_code missing;
    for (const auto& entry : std::filesystem::directory_iterator(packs_, missing))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  static std::vector<char> ReadAll(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  static void WriteAll(const std::string& path, const std::vector<char>& bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  TestFolder folder_{"store"};
  std::string packs_;
  std::unique_ptr<Ops> ops_;
  CpuDevice device_;
  FramePool pool_;
  DType dtype_ = DType::kBF16;
  const std::atomic<bool> is_cancelled_{false};
  Pace pace_ = [](int64_t) { return true; };
};

}  // namespace openlora
