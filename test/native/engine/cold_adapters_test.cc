#include <gtest/gtest.h>
#include <malloc.h>

#include <condition_variable>
#include <mutex>

#include "engine/engine.h"
#include "engine/tiny_model.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OPENLORA_COUNTS_MEMORY 0
#else
#define OPENLORA_COUNTS_MEMORY 1
#endif

namespace openlora {
namespace {

// Enough sites that anything kept of each would show, few enough for ten thousand checks.
ModelConfig ManySites() {
  ModelConfig model = TinyConfig();
  model.layers = 8;
  model.layer_options.resize(8);
  return model;
}

AdapterManifest OnAllSites(const TestFolder& folder, const ModelConfig& model) {
  AdapterManifest manifest;
  manifest.files = {folder.File("adapter with a long name, as models in caches have them: adapter_model.safetensors")};
  manifest.canonical_config = std::string(600, 'c');
  TensorFile file(manifest.files[0], 3);
  const std::vector<SiteShape> shapes = SiteShapes(model);
  for (size_t site = 0; site < shapes.size(); ++site) {
    if (shapes[site].in == 0) continue;
    AdapterSite added{static_cast<int32_t>(site), 1, 1, {}, {}};
    added.a = file.Add(1, shapes[site].in, 0.1f);
    added.b = file.Add(shapes[site].out, 1, 0.1f);
    manifest.sites.push_back(added);
  }
  return manifest;
}

// Bytes of the heap that are in use, in all arenas.
int64_t HeapBytes() { return static_cast<int64_t>(mallinfo2().uordblks) + static_cast<int64_t>(mallinfo2().hblkhd); }

TEST(ColdAdapters, ARegisteredAdapterTakesSixHundredBytesOfMemoryHoweverManySitesItHas) {
#if !OPENLORA_COUNTS_MEMORY
  GTEST_SKIP() << "needs a build whose heap can be counted";
#endif
  constexpr int kFirst = 500, kAll = 10'500;
  const TestFolder folder("cold");
  const ModelConfig model = ManySites();
  EngineOptions options = TinyOptions(folder, 1, SimdLevel::kAuto, DType::kF32, model);
  options.adapter_dir = folder.File("packs");
  options.adapter_disk_bytes = 1 << 30;
  options.checks_invariants = false;
  const AdapterManifest manifest = OnAllSites(folder, model);
  ASSERT_EQ(manifest.sites.size(), 58u);
  std::mutex mutex;
  std::condition_variable wake;
  bool is_woken = false;
  Engine engine(std::move(options), [&] {
    const std::lock_guard lock(mutex);
    is_woken = true;
    wake.notify_one();
  });
  int ready = 0;
  const auto register_to = [&](int count) {
    for (int handle = ready + 1; handle <= count;) {
      const int batch = std::min(count, handle + 31);
      for (; handle <= batch; ++handle) engine.Register(handle, manifest);
      while (ready < batch) {
        {
          std::unique_lock lock(mutex);
          ASSERT_TRUE(wake.wait_for(lock, std::chrono::seconds(60), [&] { return is_woken; }));
          is_woken = false;
        }
        for (const ControlEvent& event : engine.Take().events) {
          ASSERT_FALSE(std::holds_alternative<AdapterFailedEvent>(event));
          ready += std::holds_alternative<AdapterReadyEvent>(event) ? 1 : 0;
        }
      }
    }
  };
  register_to(kFirst);  // buffers have their size
  const int64_t before = HeapBytes();
  register_to(kAll);
  const double each = static_cast<double>(HeapBytes() - before) / (kAll - kFirst);
  RecordProperty("bytes", std::to_string(each));
  EXPECT_LE(each, 614);
  EXPECT_GE(each, 200);  // else nothing was counted
  Tier tier;
  EXPECT_TRUE(engine.FindTier(kAll, &tier) && tier == Tier::kRegistered);
}

}  // namespace
}  // namespace openlora
