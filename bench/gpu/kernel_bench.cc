// openlora_gpu_kernel [file.json]: on a GPU, the op cases of `openlora bench ops --device cuda:0` (cuda/bench), each
// compared with sums in double and measured beside copies and mma; then shrink and expand of q, k and v of Llama-3.1-8B
// beside the plain BGMV of bench/gpu/kernels. Every launch reads bytes that no launch of the last 128 MiB or more did:
// the L2 is cold. Launches stand in one graph; times are medians of its runs, divided by its launches.

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "bench/op_bench.h"
#include "cuda/sim_lora.h"
#include "kernels/plain_bgmv.h"

namespace openlora {
namespace {

constexpr int64_t kColdBytes = 128 << 20;
constexpr int kHidden = 4096, kKv = 1024;
constexpr int kRank = 16;
constexpr int kRuns = 10;
constexpr int kLaunchesMin = 200;   // beside which what begins a graph is little
constexpr int kTileColumns = 4096;  // a frame of 64 KiB

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lines, and the same as objects of JSON.
class Results {
 public:
  void Add(const std::string& name, double bytes, double us) {
    std::printf("%-84s %9.2f us %8.1f GB/s\n", name.c_str(), us, bytes / us / 1e3);
    objects_.push_back(Format("{\"name\": \"%s\", \"bytes\": %.0f, \"us\": %.3f}", name.c_str(), bytes, us));
  }
  void Add(const CudaOpResult& op) {
    const std::string name = op.op + " " + op.what;
    const double us = MedianOf(op.us), gbps = op.bytes / us / 1e3, gflops = op.operations / us / 1e3;
    is_right_ = is_right_ && op.error <= op.error_max;
    std::printf("%-84s %9.2f us %8.1f GB/s %5.1f %% of the copy, %5.1f %% of mma, error %.1e of %.1e\n", name.c_str(),
                us, gbps, 100 * gbps / op.copy_gbs, 100 * gflops / op.peak_gops, op.error, op.error_max);
    objects_.push_back(
        Format("{\"name\": \"%s\", \"bytes\": %.0f, \"operations\": %.0f, \"us\": %.3f, \"copy_gbps\": %.1f, "
               "\"mma_gflops\": %.1f, \"error\": %.2e, \"error_max\": %.2e}",
               name.c_str(), op.bytes, op.operations, us, op.copy_gbs, op.peak_gops, op.error, op.error_max));
  }
  bool is_right() const { return is_right_; }
  bool Write(const char* path, const std::string& device) const {
    std::FILE* const file = std::fopen(path, "w");
    if (file == nullptr) return false;
    std::fprintf(file, "{\n  \"device\": \"%s\",\n  \"results\": [\n", device.c_str());
    for (size_t i = 0; i < objects_.size(); ++i)
      std::fprintf(file, "    %s%s\n", objects_[i].c_str(), i + 1 < objects_.size() ? "," : "");
    std::fprintf(file, "  ]\n}\n");
    return std::fclose(file) == 0;
  }

 private:
  __attribute__((format(printf, 1, 2))) static std::string Format(const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return text;
  }

  std::vector<std::string> objects_;
  bool is_right_ = true;
};

// Microseconds of what `launch` puts into stream 0.
double TimeOf(const std::function<void()>& launch) {
  cuda_gpu::Machine& gpu = GpuUnderTest();
  gpu.BeginCapture(0);
  launch();
  const int graph = gpu.EndCapture(0);
  std::vector<double> times;
  for (int run = 0; run < kRuns + 2; ++run) {  // two to warm up
    const int begin = gpu.Record(0);
    gpu.LaunchGraph(graph, 0);
    const int end = gpu.Record(0);
    gpu.SynchronizeEvent(end);
    if (run >= 2) times.push_back(1e3 * gpu.MillisecondsBetween(begin, end));
  }
  if (!gpu.status().ok()) {
    std::printf("%s\n", gpu.status().message().c_str());
    std::exit(1);
  }
  return MedianOf(times);
}

// Random bf16 between -2 and 2.
void FillRandom(uint16_t* values, size_t count) {
  uint64_t state = 1;
  for (size_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    values[i] = static_cast<uint16_t>((state >> 33 & 0x80ffu) | 0x3f00u);
  }
}

// q, k and v for `adapters` distinct adapters, a row each: by the engine's kernels, and by the plain one.
void BenchPlain(TestMachine& machine, int adapters, Results& results) {
  const std::vector<SiteShape> sites = {{kHidden, kHidden}, {kHidden, kKv}, {kHidden, kKv}};
  int64_t bytes = 0;
  for (const SiteShape& site : sites) bytes += (site.in + site.out) * kRank * 2;
  const int layers = static_cast<int>(CeilDiv(kColdBytes, bytes * adapters)) + 1;
  std::vector<SiteShape> all;
  for (int layer = 0; layer < layers; ++layer) all.insert(all.end(), sites.begin(), sites.end());
  cases::Random random(1);
  std::vector<cases::SiteValues> one;
  for (const SiteShape& site : sites) one.push_back(cases::RandomSite(random, site, kRank, DType::kBF16));
  std::vector<cases::SiteValues> values;
  for (int layer = 0; layer < layers; ++layer) values.insert(values.end(), one.begin(), one.end());
  const SimLoraPool pool(machine, all, cases::AdapterValues(static_cast<size_t>(adapters), values), DType::kBF16,
                         kTileColumns, 2);

  const auto n = static_cast<size_t>(adapters);
  cases::Assignment assignment;
  for (int32_t i = 0; i < adapters; ++i) assignment.push_back({{i, 1.0f}});
  std::vector<int32_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  const SimEntries entries(machine, pool, assignment, rows);
  const SimBuffer<uint16_t> x(machine, "x", n * kHidden);
  FillRandom(x.data(), x.size());
  const SimBuffer<float> h(machine, "h",
                           sites.size() * n * static_cast<size_t>(CeilDiv(kHidden, lora::kPart)) * lora::kRankMax);
  std::vector<std::unique_ptr<SimBuffer<float>>> ys;
  for (const SiteShape& site : sites) {
    ys.push_back(std::make_unique<SimBuffer<float>>(machine, "y", n * static_cast<size_t>(site.out)));
    ys.back()->Zero();
  }
  const int processors = GpuUnderTest().multiprocessors();
  const auto params_of = [&](int layer) {
    lora::Params params{};
    params.x = x.data();
    params.x_stride = kHidden;
    params.in = kHidden;
    params.product_count = static_cast<int32_t>(sites.size());
    params.h = h.data();
    entries.SetIn(pool, &params);
    for (size_t p = 0; p < sites.size(); ++p) {
      const auto out = static_cast<int32_t>(sites[p].out);
      params.products[p] = {layer * static_cast<int32_t>(sites.size()) + static_cast<int32_t>(p), out, out,
                            ys[p]->data()};
    }
    return params;
  };
  const int launches = std::max(layers, kLaunchesMin);
  const auto launch = [&] {
    for (int i = 0; i < launches; ++i) {
      const lora::Params params = params_of(i % layers);
      const int blocks = processors * lora::kBlocksOfSm;
      dev::Launch(lora::ShrinkBF16, {blocks, lora::kThreads, lora::kShrinkSharedBytes}, {&machine, 0}, params);
      dev::Launch(lora::ExpandBF16, {blocks, lora::kThreads, lora::kExpandSharedBytes}, {&machine, 0}, params);
    }
  };
  constexpr int kPlainBlocksOfSm = 8;  // 2,048 threads
  const auto launch_plain = [&] {
    for (int i = 0; i < launches; ++i)
      dev::Launch(plain_bgmv::Run, {processors * kPlainBlocksOfSm, plain_bgmv::kThreads, plain_bgmv::kSharedBytes},
                  {&machine, 0}, params_of(i % layers));
  };
  const double read = static_cast<double>(bytes * adapters);
  const std::string name = "qkv r16, distinct adapters " + std::to_string(adapters);
  results.Add(name + ", shrink and expand", read, TimeOf(launch) / launches);
  results.Add(name + ", plain BGMV", read, TimeOf(launch_plain) / launches);
}

int Main(const char* path) {
  Results results;
  const Status status = BenchCudaOps(std::make_shared<CudaContext>(OpenGpu({})), {},
                                     [&](const CudaOpResult& result) { results.Add(result); });
  if (!status.ok()) {
    std::printf("%s: %s\n", status.code(), status.message().c_str());
    return 1;
  }
  TestMachine machine;
  for (const int adapters : {1, 4, 16, 32, 64}) BenchPlain(machine, adapters, results);
  if (path != nullptr && !results.Write(path, GpuUnderTest().name())) {
    std::printf("can't write %s\n", path);
    return 1;
  }
  return results.is_right() ? 0 : 1;
}

}  // namespace
}  // namespace openlora

int main(int count, char** arguments) { return openlora::Main(count > 1 ? arguments[1] : nullptr); }
