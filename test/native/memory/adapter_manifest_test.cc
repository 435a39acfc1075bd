#include "memory/adapter_manifest.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "engine/tiny_model.h"

namespace openlora {
namespace {

// Zeros that take no disk, and a last value of NaN.
void WriteSparse(const std::string& path, int64_t bytes) {
  std::ofstream(path, std::ios::binary).flush();
  std::filesystem::resize_file(path, static_cast<uintmax_t>(bytes));
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  file.seekp(bytes - 4);
  file.write(reinterpret_cast<const char*>(&nan), 4);
}

AdapterManifest OneSite(const std::string& path, int64_t in) {
  AdapterManifest manifest;
  manifest.files = {path};
  AdapterSite site{0, 1, 1, {0, 0, in * 4, DType::kF32, 1, in}, {0, 0, 4, DType::kF32, 1, 1}};
  manifest.sites = {site};
  return manifest;
}

TEST(AdapterManifestTest, ACheckIsCancelledInTheMidstOfATensor) {
  const TestFolder folder("cancelled");
  const std::string path = folder.File("adapter");
  // 8 GiB, seconds of reading.
  const int64_t in = int64_t{2} << 30;
  WriteSparse(path, in * 4);
  std::atomic<bool> is_cancelled{false};
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    is_cancelled = true;
  });
  AdapterIdentity identity;
  const Status status = CheckAdapter(OneSite(path, in), {{in, 1}}, {}, is_cancelled, &identity);
  canceller.join();
  EXPECT_EQ(status.code(), kErrAborted) << status.message();
}

TEST(AdapterManifestTest, AValueThatIsNotFiniteIsFoundInTheLastBlock) {
  const TestFolder folder("last-block");
  const std::string path = folder.File("adapter");
  const int64_t in = (int64_t{1} << 20) + 7;
  WriteSparse(path, in * 4);
  const std::atomic<bool> is_cancelled{false};
  AdapterIdentity identity;
  const Status status = CheckAdapter(OneSite(path, in), {{in, 1}}, {}, is_cancelled, &identity);
  EXPECT_EQ(status.code(), kErrAdapterNotFinite);
  EXPECT_NE(status.message().find("row 0, column 1048582 "), std::string::npos) << status.message();
}

TEST(AdapterManifestTest, ACancelledCheckComparesNoBaseTensor) {
  const TestFolder folder("cancelled-base");
  TensorRange saved, base;
  {
    TensorFile saved_file(folder.File("saved"), 1), base_file(folder.File("base"), 2);
    saved = saved_file.Add(3, 5, 1);
    base = base_file.Add(3, 5, 1);
  }
  AdapterManifest manifest;
  manifest.files = {folder.File("saved")};
  manifest.base_tensors = {{"lm_head.base_layer.weight", saved, base}};
  std::atomic<bool> is_cancelled{false};
  AdapterIdentity identity;
  const auto check = [&] { return CheckAdapter(manifest, {}, {folder.File("base")}, is_cancelled, &identity).code(); };
  EXPECT_EQ(check(), kErrAdapterBaseTensor);
  is_cancelled = true;
  EXPECT_EQ(check(), kErrAborted);
}

}  // namespace
}  // namespace openlora
