// Whole models through the engine on the simulated GPU.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "cuda/sim_engine.h"
#include "engine/mixed_run.h"

namespace openlora {
namespace {

constexpr int64_t kRequests = 8;

// Logprobs of every request's prompt, each by itself.
std::vector<float> Scores(const TestFolder& folder, WeightFormat dtype, const ModelConfig& model,
                          const EngineVariant& variant, int64_t count) {
  EngineOptions options = TinyOptions(folder, 1, SimdLevel::kAuto, dtype, model);
  options.kv_dtype = options.adapter_dtype = DType::kBF16;
  options.pool_bytes = 1 << 20;
  variant.SetIn(&options);
  CoreDriver driver(std::move(options));
  EXPECT_TRUE(driver.opened().ok()) << driver.opened().message();
  RegisterAll(folder, model, &driver);
  std::vector<float> scores;
  for (Request request : Requests(count)) {
    request.prompt_logprobs = 0;
    request.max_tokens = 1;
    driver.core().Submit(request);
    driver.Run();
    const Answer& answer = driver.answer(request.id);
    EXPECT_EQ(answer.end, "length");
    scores.insert(scores.end(), answer.prompt_logprobs.begin(), answer.prompt_logprobs.end());
  }
  return scores;
}

double RmsOfDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// Beside a CPU that multiplies the same weights by x as it is: what rounding inputs, q and the softmax's weights to
// bf16 costs, here and on a CPU that does the same (bf16-dot, which leaves adapters' inputs alone).
TEST(CudaDecoderTest, IsAsNearToExactInputsAsTheCpusBF16Dots) {
  const TestFolder folder("cuda-parity");
  const ModelConfig model = CudaTinyConfig();
  const std::vector<float> exact = Scores(folder, DType::kBF16, model, {}, 16);
  const std::vector<float> dots = Scores(folder, WeightFormat::kBF16Dot, model, {}, 16);
  const std::vector<float> cuda =
      Scores(folder, DType::kBF16, model, {.open_backend = OpensCudaSim(DType::kBF16, 3)}, 16);
  EXPECT_LE(RmsOfDifference(cuda, exact), 2 * RmsOfDifference(dots, exact));
}

TEST(CudaDecoderTest, MixedEqualsAlone) {
  const TestFolder folder("cuda-mixed");
  const std::vector<Request> requests = Requests(kRequests);
  const EngineVariant variant{.open_backend = OpensCudaSim(DType::kBF16, 1)};
  const std::vector<Answer> alone = Alone(folder, DType::kBF16, CudaTinyConfig(), variant, requests);
  ExpectSame(folder, alone,
             {.seed = 5,
              .dtype = DType::kBF16,
              .model = CudaTinyConfig(),
              .variant = {.open_backend = OpensCudaSim(DType::kBF16, 2)},
              .requests = requests});
}

}  // namespace
}  // namespace openlora
