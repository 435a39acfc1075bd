#include "memory/adapter_manifest.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>
#include <utility>

#include "base/prng.h"
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

// The header is looked at before the tensors are and hashed after them: what is registered must be one and the same.
TEST(AdapterManifestTest, AHeaderThatIsSwappedMeanwhileIsNeverPartOfAGeneration) {
  const TestFolder folder("swapped-header");
  const std::string path = folder.File("adapter");
  constexpr int64_t kHeader = 8 + 16, kColumns = 250'000;
  std::string bytes(static_cast<size_t>(kHeader + kColumns * 4), '\0');
  bytes[0] = 16;
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  const auto digest_of = [](const std::string& text) {
    Sha256 hash;
    hash.Update(text.data(), text.size());
    return hash.Finish();
  };
  const Sha256::Digest whole = digest_of(bytes);
  AdapterManifest manifest;
  manifest.files = {path};
  manifest.header_digests = {ToHex(digest_of(bytes.substr(0, kHeader)))};
  manifest.sites = {
      {0, 1, 1, {0, kHeader, kColumns * 4, DType::kF32, 1, kColumns}, {0, kHeader, 4, DType::kF32, 1, 1}}};
  std::atomic<bool> is_over{false};
  std::thread swapper([&] {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    for (uint64_t i = 0; !is_over; ++i) {
      file.seekp(kHeader - 1);
      file.put(i % 2 == 0 ? 'x' : '\0').flush();
      std::this_thread::sleep_for(std::chrono::microseconds(Philox(1, i) % 1000));
    }
  });
  const std::atomic<bool> is_cancelled{false};
  int registered = 0;
  for (int i = 0; i < 200; ++i) {
    AdapterIdentity identity;
    const Status status = CheckAdapter(manifest, {{kColumns, 1}}, {}, is_cancelled, &identity);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), kErrAdapterChanged) << status.message();
      continue;
    }
    EXPECT_EQ(identity.files[0].digest, whole);
    ++registered;
  }
  is_over = true;
  swapper.join();
  EXPECT_GT(registered, 0);
}

// Of each dtype all that an exponent and a sign can be, with the lowest and the highest mantissa; the finite ones.
template <typename Bits>
std::vector<Bits> FiniteEdges(Bits exponent) {
  const Bits one = static_cast<Bits>(exponent & (~exponent + 1)), mantissa = static_cast<Bits>(one - 1);
  std::vector<Bits> edges;
  for (Bits e = 0; e != exponent; e = static_cast<Bits>(e + one))
    for (const Bits sign : {Bits{0}, static_cast<Bits>(exponent + one)})
      for (const Bits m : {Bits{0}, mantissa}) edges.push_back(static_cast<Bits>(sign | e | m));
  return edges;
}

template <typename Bits>
void ExpectEveryNotFiniteIsFoundWhereItStands(DType dtype, Bits exponent) {
  const TestFolder folder("where");
  const std::string path = folder.File("adapter");
  const std::vector<Bits> edges = FiniteEdges(exponent);
  std::vector<Bits> values(5003);  // several looks, and a rest
  for (size_t i = 0; i < values.size(); ++i) values[i] = edges[i % edges.size()];
  const auto check = [&] {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(Bits));
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(values.data()), bytes);
    AdapterManifest manifest;
    manifest.files = {path};
    const auto in = static_cast<int64_t>(values.size());
    manifest.sites = {{0, 1, 1, {0, 0, bytes, dtype, 1, in}, {0, 0, sizeof(Bits), dtype, 1, 1}}};
    AdapterIdentity identity;
    return CheckAdapter(manifest, {{in, 1}}, {}, std::atomic<bool>{false}, &identity);
  };
  const Status fine = check();
  EXPECT_TRUE(fine.ok()) << fine.message();
  const Bits one = static_cast<Bits>(exponent & (~exponent + 1)), sign = static_cast<Bits>(exponent + one);
  for (const Bits bad : {exponent, static_cast<Bits>(exponent | sign), static_cast<Bits>(exponent | 1),
                         static_cast<Bits>(exponent | sign | (one - 1))}) {
    for (const size_t at : {0, 1, 511, 512, 1023, 1024, 1025, 4095, 4096, 5001, 5002}) {
      const Bits before = std::exchange(values[at], bad);
      const Status status = check();
      EXPECT_EQ(status.code(), kErrAdapterNotFinite) << bad << " at " << at;
      const std::string place = "row 0, column " + std::to_string(at) + " of the [1, 5003] tensor";
      EXPECT_NE(status.message().find(place), std::string::npos) << bad << ": " << status.message();
      values[at] = before;
    }
  }
}

TEST(AdapterManifestTest, WhatIsNotFiniteIsFoundWhereItStandsAndNothingElseIs) {
  ExpectEveryNotFiniteIsFoundWhereItStands<uint32_t>(DType::kF32, 0x7f800000);
  ExpectEveryNotFiniteIsFoundWhereItStands<uint16_t>(DType::kF16, 0x7c00);
  ExpectEveryNotFiniteIsFoundWhereItStands<uint16_t>(DType::kBF16, 0x7f80);
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
