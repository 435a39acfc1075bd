// openlora_gpu_decode [file.json]: tokens per second of steps that decode, on a GPU. The shape of Llama-3.1-8B in bf16,
// random values; the base alone, and with 1 to 64 distinct adapters of rank 16 on all modules, at 64 and 1,024 tokens
// of context. Medians of twenty steps of an engine's ops, sampling and the wait for its tokens included.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/cuda_engine.h"
#include "decode_load.h"

namespace openlora {
namespace {

constexpr int kSteps = 20;

ModelConfig Llama8B() {
  ModelConfig m;
  m.layers = 32;
  m.hidden = 4096;
  m.heads = 32;
  m.kv_heads = 8;
  m.head_dim = 128;
  m.intermediate = 14336;
  m.vocab = 128256;
  m.context = 8192;
  m.attention_scale = 0.08838835f;
  m.ropes.resize(1);
  for (int i = 0; i < 64; ++i) m.ropes[0].inv_freq.push_back(static_cast<float>(std::pow(500000.0, -i / 64.0)));
  m.layer_options.resize(32);
  return m;
}

struct Measured {
  DecodeShape shape;
  double ms = 0;
  double capture_ms = 0;
  int64_t weight_bytes = 0;
  int64_t adapter_bytes = 0;
};

Measured Measure(int32_t rows, int32_t context, int32_t adapters) {
  Measured measured{{Llama8B(), rows, context, adapters}};
  auto machine_context = std::make_shared<CudaContext>(OpenCudaMachine(1));
  std::unique_ptr<DecodeLoad> load;
  Status status = DecodeLoad::Open(measured.shape, machine_context, &load);
  std::vector<double> times;
  for (int step = 0; status.ok() && step < kSteps + 4; ++step) {
    const auto began = std::chrono::steady_clock::now();
    status = load->Step();
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
    if (step == 1) measured.capture_ms = ms;  // the step that is recorded
    if (step >= 4) times.push_back(ms);
  }
  if (!status.ok()) {
    std::printf("%s: %s\n", status.code(), status.message().c_str());
    std::exit(1);
  }
  std::sort(times.begin(), times.end());
  measured.ms = times[times.size() / 2];
  measured.weight_bytes = load->weight_bytes();
  measured.adapter_bytes = load->adapter_bytes();
  return measured;
}

int Main(const char* path) {
  std::string json;
  for (const int32_t context : {64, 1024}) {
    for (const auto& [rows, adapters] : std::vector<std::pair<int32_t, int32_t>>{
             {1, 0}, {1, 1}, {32, 0}, {32, 1}, {32, 4}, {32, 16}, {32, 32}, {64, 0}, {64, 64}}) {
      const Measured m = Measure(rows, context, adapters);
      const double gbps = static_cast<double>(m.weight_bytes + adapters * m.adapter_bytes) / m.ms / 1e6;
      std::printf(
          "context %4d, batch %2d, %2d adapters: %8.3f ms, %8.1f tokens/s, weights and adapters at %7.1f GB/s\n",
          context, rows, adapters, m.ms, rows / m.ms * 1e3, gbps);
      std::fflush(stdout);
      char text[320];
      std::snprintf(text, sizeof(text),
                    "    {\"context\": %d, \"batch\": %d, \"adapters\": %d, \"ms\": %.4f, \"tokens_per_s\": %.1f, "
                    "\"weight_bytes\": %lld, \"adapter_bytes\": %lld, \"gbps\": %.1f, \"recorded_step_ms\": %.2f}",
                    context, rows, adapters, m.ms, rows / m.ms * 1e3, static_cast<long long>(m.weight_bytes),
                    static_cast<long long>(m.adapter_bytes), gbps, m.capture_ms);
      json += (json.empty() ? "" : ",\n") + std::string(text);
    }
  }
  if (path == nullptr) return 0;
  std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) {
    std::printf("can't write %s\n", path);
    return 1;
  }
  std::fprintf(file, "{\n  \"results\": [\n%s\n  ]\n}\n", json.c_str());
  std::fclose(file);
  return 0;
}

}  // namespace
}  // namespace openlora

int main(int count, char** arguments) { return openlora::Main(count > 1 ? arguments[1] : nullptr); }
