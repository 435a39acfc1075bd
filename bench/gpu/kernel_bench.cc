// openlora_gpu_kernel [file.json]: what the kernels reach of the bandwidth measured beside them, on a GPU. Shapes of
// Llama-3.1-8B in bf16, random values. Every launch reads bytes that no launch of the last 128 MiB did: the L2 is cold.
// Launches stand in one graph; times are medians of ten runs of it, divided by its launches.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cuda/sim_lora.h"
#include "kernels/linear.h"
#include "kernels/plain_bgmv.h"
#include "ops/weight_packing.h"

namespace openlora {
namespace {

constexpr int64_t kColdBytes = 128 << 20;
constexpr int kHidden = 4096, kKv = 1024, kIntermediate = 14336;
constexpr int kRank = 16;
constexpr int kRuns = 10;
constexpr int kTileColumns = 4096;  // a frame of 64 KiB

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::vector<std::string> results;  // objects of JSON

void Report(const std::string& name, int64_t bytes, double microseconds, double copy_gbps) {
  const double gbps = static_cast<double>(bytes) / microseconds / 1e3;
  std::printf("%-44s %9.2f us %8.1f GB/s %5.1f %% of the copy\n", name.c_str(), microseconds, gbps,
              copy_gbps > 0 ? 100 * gbps / copy_gbps : 100.0);
  std::fflush(stdout);
  char text[256];
  std::snprintf(text, sizeof(text), "{\"name\": \"%s\", \"bytes\": %lld, \"us\": %.3f, \"gbps\": %.1f}", name.c_str(),
                static_cast<long long>(bytes), microseconds, gbps);
  results.push_back(text);
}

// Microseconds of what `launch` puts into stream 0.
double TimeOf(const std::function<void()>& launch, bool is_graph = true) {
  cuda_gpu::Machine& gpu = GpuUnderTest();
  int graph = -1;
  if (is_graph) {
    gpu.BeginCapture(0);
    launch();
    graph = gpu.EndCapture(0);
  }
  std::vector<double> times;
  for (int run = 0; run < kRuns + 2; ++run) {  // two to warm up
    const int begin = gpu.Record(0);
    if (is_graph) {
      gpu.LaunchGraph(graph, 0);
    } else {
      launch();
    }
    const int end = gpu.Record(0);
    gpu.SynchronizeEvent(end);
    if (run >= 2) times.push_back(1e3 * gpu.MillisecondsBetween(begin, end));
  }
  if (!gpu.status().ok()) {
    std::printf("%s\n", gpu.status().message().c_str());
    std::exit(1);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Random bf16 between -2 and 2.
void FillRandom(uint16_t* values, size_t count) {
  uint64_t state = 1;
  for (size_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    values[i] = static_cast<uint16_t>((state >> 33 & 0x80ffu) | 0x3f00u);
  }
}

// Read and written bytes.
double CopyBandwidth(TestMachine& machine) {
  constexpr size_t kBytes = size_t{1} << 30;
  const SimBuffer<uint8_t> from(machine, "from", kBytes), to(machine, "to", kBytes);
  const double us = TimeOf([&] { GpuUnderTest().Copy(0, to.data(), from.data(), kBytes); }, false);
  Report("copy of 1 GiB", 2 * static_cast<int64_t>(kBytes), us, 0);
  return 2.0 * kBytes / us / 1e3;
}

struct Shape {
  const char* name;
  int in;
  std::vector<int> outs;
};
const Shape kShapes[] = {{"qkv", kHidden, {kHidden, kKv, kKv}},
                         {"o", kHidden, {kHidden}},
                         {"gate, up", kHidden, {kIntermediate, kIntermediate}},
                         {"down", kIntermediate, {kHidden}}};

void BenchLinear(TestMachine& machine, const Shape& shape, int rows, bool is_gemm, double copy_gbps) {
  int64_t elements = 0;
  for (const int out : shape.outs) elements += CudaWeightElements(out, shape.in);
  const int copies = static_cast<int>(CeilDiv(kColdBytes, 2 * elements)) + 1;
  const SimBuffer<uint16_t> weights(machine, "weights", static_cast<size_t>(elements * copies));
  FillRandom(weights.data(), weights.size());
  const SimBuffer<uint16_t> x(machine, "x", static_cast<size_t>(rows) * static_cast<size_t>(shape.in));
  FillRandom(x.data(), x.size());
  const SimBuffer<int32_t> count(machine, "rows", std::vector<int32_t>{rows});
  std::vector<std::unique_ptr<SimBuffer<float>>> ys;
  linear::Params params{.x = x.data(),
                        .x_stride = shape.in,
                        .rows = count.data(),
                        .rows_max = rows,
                        .in = shape.in,
                        .product_count = static_cast<int32_t>(shape.outs.size()),
                        .tiles_each = 1,
                        .products = {}};
  for (size_t p = 0; p < shape.outs.size(); ++p) {
    const int out = shape.outs[p];
    ys.push_back(
        std::make_unique<SimBuffer<float>>(machine, "y", static_cast<size_t>(rows) * static_cast<size_t>(out)));
    params.products[p] = {nullptr, nullptr, ys[p]->data(), out, out, 0};
  }
  const int processors = GpuUnderTest().multiprocessors();
  params.tiles_each = StreamTilesEach(params, rows, processors);
  const auto launch = [&] {
    const uint16_t* next = weights.data();
    for (int copy = 0; copy < copies; ++copy) {
      for (size_t p = 0; p < shape.outs.size(); ++p) {
        params.products[p].weight = next;
        next += CudaWeightElements(shape.outs[p], shape.in);
      }
      if (is_gemm) {
        dev::Launch(linear::GemmBF16, {processors, linear::kGemmThreads, linear::kGemmSharedBytes}, {&machine, 0},
                    params);
      } else {
        dev::Launch(linear::StreamBF16,
                    {processors * linear::kStreamBlocksOfSm, linear::kStreamThreads, linear::kStreamSharedBytes},
                    {&machine, 0}, params);
      }
    }
  };
  Report(std::string("base ") + shape.name + (is_gemm ? ", gemm" : "") + ", rows " + std::to_string(rows), 2 * elements,
         TimeOf(launch) / copies, copy_gbps);
}

// Shrink and expand of q, k and v for `adapters` distinct adapters, a row each.
void BenchLora(TestMachine& machine, int adapters, double copy_gbps) {
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
  const auto launch = [&] {
    for (int layer = 0; layer < layers; ++layer) {
      const lora::Params params = params_of(layer);
      const int blocks = processors * lora::kBlocksOfSm;
      dev::Launch(lora::ShrinkBF16, {blocks, lora::kThreads, lora::kShrinkSharedBytes}, {&machine, 0}, params);
      dev::Launch(lora::ExpandBF16, {blocks, lora::kThreads, lora::kExpandSharedBytes}, {&machine, 0}, params);
    }
  };
  const std::string name = "lora qkv r16, distinct adapters " + std::to_string(adapters);
  Report(name, bytes * adapters, TimeOf(launch) / layers, copy_gbps);
  constexpr int kPlainBlocksOfSm = 8;  // 2,048 threads
  const auto launch_plain = [&] {
    for (int layer = 0; layer < layers; ++layer)
      dev::Launch(plain_bgmv::Run, {processors * kPlainBlocksOfSm, plain_bgmv::kThreads, plain_bgmv::kSharedBytes},
                  {&machine, 0}, params_of(layer));
  };
  Report(name + ", plain BGMV", bytes * adapters, TimeOf(launch_plain) / layers, copy_gbps);
}

int Main(const char* path) {
  TestMachine machine;
  const double copy_gbps = CopyBandwidth(machine);
  for (const Shape& shape : kShapes)
    for (const int rows : {1, 8, 32, 64}) BenchLinear(machine, shape, rows, false, copy_gbps);
  for (const Shape& shape : kShapes) BenchLinear(machine, shape, 512, true, copy_gbps);
  for (const int adapters : {1, 4, 16, 32, 64}) BenchLora(machine, adapters, copy_gbps);
  if (path == nullptr) return 0;
  std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) {
    std::printf("can't write %s\n", path);
    return 1;
  }
  std::fprintf(file, "{\n  \"device\": \"%s\",\n  \"results\": [\n", GpuUnderTest().name().c_str());
  for (size_t i = 0; i < results.size(); ++i)
    std::fprintf(file, "    %s%s\n", results[i].c_str(), i + 1 < results.size() ? "," : "");
  std::fprintf(file, "  ]\n}\n");
  std::fclose(file);
  return 0;
}

}  // namespace
}  // namespace openlora

int main(int count, char** arguments) { return openlora::Main(count > 1 ? arguments[1] : nullptr); }
