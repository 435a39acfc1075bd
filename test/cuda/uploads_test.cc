#include "ops/uploads.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "cuda/cuda_engine.h"

namespace openlora {
namespace {

constexpr size_t kPart = 3 * 4096;
constexpr int kParts = 11;  // more than there are chunks

class CudaUploadsTest : public testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    context_ = std::make_shared<CudaContext>(OpenCudaMachine(GetParam(), true));
    ASSERT_TRUE(context_->Allocate("pool", kParts * kPart, &pool_).ok());
    ASSERT_TRUE(context_->Allocate("read", kParts * kPart, &read_).ok());
    rings_ = std::make_unique<UploadRings>(context_);
    values_.resize(kParts * kPart);
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = static_cast<uint8_t>(i * 31 + i / 4096);
  }
  void TearDown() override {
    context_->Free(pool_);
    context_->Free(read_);
  }
  // The parts, the last ones first within the pool, in two copies each.
  std::shared_ptr<CudaLanding> Land() {
    CudaUploads uploads(rings_.get());
    for (int part = 0; part < kParts; ++part) {
      uint8_t* staged = nullptr;
      EXPECT_TRUE(uploads.Stage(kPart, &staged).ok());
      std::memcpy(staged, values_.data() + part * kPart, kPart);
      uploads.Copy(PlaceOf(part), staged, 4096);
      uploads.Copy(PlaceOf(part) + 4096, staged + 4096, kPart - 4096);
      uploads.EndPart();
    }
    return std::static_pointer_cast<CudaLanding>(uploads.Leave());
  }
  uint8_t* PlaceOf(int part) const { return static_cast<uint8_t*>(pool_) + (kParts - 1 - part) * kPart; }
  // As a kernel would, on the stream that computes.
  void Read(int part) { context_->Copy(static_cast<uint8_t*>(read_) + part * kPart, PlaceOf(part), kPart); }
  bool IsRead(int part) const {
    return std::memcmp(static_cast<uint8_t*>(read_) + part * kPart, values_.data() + part * kPart, kPart) == 0;
  }

  std::shared_ptr<CudaContext> context_;
  std::unique_ptr<UploadRings> rings_;
  void* pool_ = nullptr;
  void* read_ = nullptr;
  std::vector<uint8_t> values_;
};

TEST_P(CudaUploadsTest, WhatWaitsForAPartFindsItThere) {
  const std::shared_ptr<CudaLanding> landing = Land();
  for (int part = 0; part < kParts; ++part) {
    landing->HoldBack(part);
    Read(part);
  }
  ASSERT_TRUE(context_->Synchronize().ok()) << context_->status().message();
  for (int part = 0; part < kParts; ++part) EXPECT_TRUE(IsRead(part)) << part;
  EXPECT_TRUE(landing->IsDone());
}

TEST_P(CudaUploadsTest, AllIsThereOnceTheHostHasWaited) {
  const std::shared_ptr<CudaLanding> landing = Land();
  landing->Wait();
  EXPECT_TRUE(landing->IsDone());
  for (int part = 0; part < kParts; ++part) Read(part);
  ASSERT_TRUE(context_->Synchronize().ok());
  for (int part = 0; part < kParts; ++part) EXPECT_TRUE(IsRead(part)) << part;
}

TEST_P(CudaUploadsTest, IsDoneWithoutWaitingForIt) {
  const std::shared_ptr<CudaLanding> landing = Land();
  int asked = 0;
  while (!landing->IsDone()) ASSERT_LT(++asked, 100'000'000);
  Read(0);
  ASSERT_TRUE(context_->Synchronize().ok());
  EXPECT_TRUE(IsRead(0));
}

// Rings and events are used again: of one load after another, each in the order of the one stream.
TEST_P(CudaUploadsTest, OneLoadAfterAnotherIntoTheSamePlace) {
  for (int load = 0; load < 5; ++load) {
    for (uint8_t& value : values_) ++value;
    const std::shared_ptr<CudaLanding> landing = Land();
    landing->HoldBack(kParts - 1);
    for (int part = 0; part < kParts; ++part) Read(part);
    ASSERT_TRUE(context_->Synchronize().ok());
    for (int part = 0; part < kParts; ++part) EXPECT_TRUE(IsRead(part)) << load << ", " << part;
  }
}

TEST_P(CudaUploadsTest, RefusesAPartLargerThanAChunk) {
  CudaUploads uploads(rings_.get());
  uint8_t* staged = nullptr;
  EXPECT_FALSE(uploads.Stage(UploadRing::kChunkBytes + 1, &staged).ok());
}

#if !defined(DEV_GPU_HOST)
// The simulator lets copies run as late as events allow, and tells when one does what came too early.
TEST_P(CudaUploadsTest, WhatDoesntWaitIsFound) {
  const std::shared_ptr<CudaLanding> landing = Land();
  landing->HoldBack(kParts - 2);
  Read(kParts - 1);
  (void)context_->Synchronize();
  EXPECT_FALSE(IsRead(kParts - 1));
  landing->Wait();
  EXPECT_FALSE(context_->status().ok());
}
#endif

INSTANTIATE_TEST_SUITE_P(Seeds, CudaUploadsTest, testing::Range<uint64_t>(1, 5));

}  // namespace
}  // namespace openlora
