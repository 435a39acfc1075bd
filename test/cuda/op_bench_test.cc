// The op cases of `openlora bench ops --device cuda`, in small.

#include "bench/op_bench.h"

#include <gtest/gtest.h>

#include "cuda/cuda_engine.h"

namespace openlora {
namespace {

constexpr uint64_t kSeeds = 4;

std::shared_ptr<CudaContext> OpenContext(uint64_t seed) { return std::make_shared<CudaContext>(OpenCudaMachine(seed)); }

std::unique_ptr<CudaOpLoad> OpenLoad(const CudaOpCase& c, const CudaOpSizes& sizes,
                                     const std::shared_ptr<CudaContext>& context) {
  std::unique_ptr<CudaOpLoad> load;
  const Status opened = CudaOpLoad::Open(c, sizes, context, &load);
  EXPECT_TRUE(opened.ok()) << opened.message();
  return load;
}

// A wrong tile, frame or copy makes the difference as large as the result.
TEST(CudaOpBenchTest, EveryCaseIsRight) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed)
    for (const CudaOpCase& c : QuickCudaOpCases()) {
      const std::unique_ptr<CudaOpLoad> load = OpenLoad(c, {1, 1, 1}, OpenContext(seed));
      ASSERT_NE(load, nullptr);
      double error = -1, error_max = -1;
      const Status status = load->Check(&error, &error_max);
      ASSERT_TRUE(status.ok()) << Describe(c) << ": " << status.message();
      EXPECT_LE(error, error_max) << Describe(c) << ", seed " << seed;
      EXPECT_LT(error_max, 0.1) << Describe(c);
    }
}

TEST(CudaOpBenchTest, LaunchesGoThroughMoreBytesThanACacheHoldsAndAreOneGraph) {
  const CudaOpCase c = QuickCudaOpCases()[2];
  const int64_t bytes = 3 * 9 * (3 * 96 + 64 + 32 + 32) * 2;
  const std::shared_ptr<CudaContext> context = OpenContext(1);
  const std::unique_ptr<CudaOpLoad> load = OpenLoad(c, {.cold_bytes = 2 * bytes, .run_bytes = 7 * bytes}, context);
  ASSERT_NE(load, nullptr);
  EXPECT_EQ(load->bytes(), bytes);
  EXPECT_EQ(load->launches(), 7);
  double error = 0, error_max = 0;
  ASSERT_TRUE(load->Check(&error, &error_max).ok());
  for (int run = 0; run < 3; ++run) {
    ASSERT_TRUE(load->Run().ok());
    ASSERT_TRUE(context->Synchronize().ok());
  }
  EXPECT_EQ(load->ops().graphs().captures, 1u);
  EXPECT_EQ(load->ops().graphs().replays, 2u);
  // A site for each adapter, product and launch.
  EXPECT_EQ(load->ops().counters().lora_ops, 9u + 3 * 7 * 9u);
  const std::unique_ptr<CudaOpLoad> capped =
      OpenLoad(c, {.cold_bytes = 2 * bytes, .run_bytes = 7 * bytes, .launches_max = 5}, context);
  ASSERT_NE(capped, nullptr);
  EXPECT_EQ(capped->launches(), 5);
}

TEST(CudaOpBenchTest, ReportsTheCasesThatWereAskedFor) {
  std::vector<CudaOpResult> results;
  const auto bench = [&](const CudaBenchOptions& options) {
    results.clear();
    return BenchCudaOps(OpenContext(1), options, [&](const CudaOpResult& result) { results.push_back(result); });
  };
  ASSERT_TRUE(bench({.is_quick = true, .filter = "adapters qkv"}).ok());
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].what, "qkv: rows 5, in 96, outs 64 32 32, 3 distinct adapters of rank 9");
  EXPECT_EQ(results[0].us.size(), 2u);
  EXPECT_GT(results[0].copy_gbs, 0);
  EXPECT_GT(results[0].peak_gops, 0);
  ASSERT_TRUE(bench({.is_quick = true, .filter = "no such case"}).ok());
  EXPECT_TRUE(results.empty());
  const std::atomic<bool> is_cancelled{true};
  ASSERT_TRUE(bench({.is_quick = true, .is_cancelled = &is_cancelled}).ok());
  EXPECT_TRUE(results.empty());
}

TEST(CudaOpBenchTest, CasesAreDistinctAndTheirKindsAllThere) {
  std::vector<std::string> names;
  for (const CudaOpCase& c : CudaOpCases()) names.push_back(std::to_string(static_cast<int>(c.kind)) + Describe(c));
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  for (const char kind : {'0', '1', '2'})
    EXPECT_TRUE(std::any_of(names.begin(), names.end(), [&](const std::string& name) { return name[0] == kind; }));
}

}  // namespace
}  // namespace openlora
