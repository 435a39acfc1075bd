// The load of bench/gpu/decode_bench.cc, in small.

#include "decode_load.h"

#include <gtest/gtest.h>

#include "cuda/cuda_engine.h"

namespace openlora {
namespace {

TEST(CudaDecodeLoadTest, GivesTokensAndRunsFromARecord) {
  for (const int32_t adapters : {0, 3}) {
    const DecodeShape shape{CudaTinyConfig(), 5, 40, adapters, 9};
    std::unique_ptr<DecodeLoad> load;
    const Status opened = DecodeLoad::Open(shape, std::make_shared<CudaContext>(OpenCudaMachine(1)), &load);
    ASSERT_TRUE(opened.ok()) << opened.message();
    std::vector<int32_t> first;
    for (int step = 0; step < 4; ++step) {
      const Status status = load->Step();
      ASSERT_TRUE(status.ok()) << status.message();
      std::vector<int32_t> tokens;
      for (const SampleResult& result : load->results()) tokens.push_back(result.token);
      if (step == 0) first = tokens;
      EXPECT_EQ(tokens, first);
      EXPECT_GE(*std::min_element(tokens.begin(), tokens.end()), 0);
    }
    EXPECT_EQ(load->ops().graphs().captures, 1u);
    EXPECT_EQ(load->ops().graphs().replays, 2u);
    const auto sites = static_cast<uint64_t>(shape.model.layers * 7);
    EXPECT_EQ(load->ops().counters().lora_ops, 4 * sites * static_cast<uint64_t>(adapters));
    EXPECT_EQ(load->ops().counters().page_table_reads > 0, adapters > 0);
  }
}

}  // namespace
}  // namespace openlora
