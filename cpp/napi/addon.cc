#include <napi.h>

#include "base/file.h"
#include "base/machine.h"
#include "base/processors.h"
#include "bench/bench.h"
#include "cuda/ops/backend.h"
#include "napi/bench_thread.h"
#include "napi/engine_object.h"
#include "ops/cpu/cpu_device.h"
#include "ops/cpu/cpu_features.h"
#include "ops/cpu/cpu_ops.h"

// The composition root: what computes is chosen here.

namespace openlora {
namespace {

// What an environment (the main thread, or one worker) has of us.
struct AddonData {
  Napi::FunctionReference engine_constructor;
};

constexpr int32_t kThreadsMax = 1024;

Status OpenCpu(const std::string& simd, int32_t threads, Backend* backend) {
  SimdLevel level = SimdLevel::kAuto;
  std::string names = NameOf(level);
  for (int i = 1; i < kSimdLevels; ++i) {
    const auto known = static_cast<SimdLevel>(i);
    names += std::string(", ") + NameOf(known);
    if (simd == NameOf(known)) level = known;
  }
  if (simd != NameOf(level)) return Error(kErrSimdLevel, "simd is %s, known are %s", simd.c_str(), names.c_str());
  if (threads < 0 || threads > kThreadsMax)
    return Error(kErrLimits, "threads is %d, supported are 0 (all) to %d", threads, kThreadsMax);
  backend->threads = threads > 0 ? threads : UsableCores();
  backend->device = std::make_unique<CpuDevice>();
  OPENLORA_RETURN_IF_ERROR(CreateCpuOps(level, backend->threads, &backend->ops));
  backend->simd = NameOf(level == SimdLevel::kAuto ? AvailableSimdLevels().back() : level);
  return Ok();
}

Status OpenMachine(const BackendOptions& options, Backend* backend) {
  if (options.device == "cpu") return OpenCpu(options.simd, options.threads, backend);
  CudaBackend cuda;
  OPENLORA_RETURN_IF_ERROR(OpenCuda(options.device, options.dtype, options.cuda_images, &cuda));
  backend->simd = cuda.name;
  backend->device = std::move(cuda.device);
  backend->ops = std::move(cuda.ops);
  return Ok();
}

Status BenchGpuLimits(const bench::BenchOptions& options, const std::function<void(bench::BenchEvent)>& report) {
  std::string name;
  std::vector<double> gbs;
  OPENLORA_RETURN_IF_ERROR(MeasureCudaCopies(options.device, options.rounds, &name, &gbs));
  report(bench::BegunEvent{CpuName(), 0, name, 0});
  report(bench::LimitResult{"copy", "GB/s", bench::Quantile(gbs, 0.5), bench::Quantile(gbs, 0.1),
                            bench::Quantile(gbs, 0.9)});
  return Ok();
}

Status BenchGpu(const bench::BenchOptions& options, const std::atomic<bool>& is_cancelled,
                const std::function<void(bench::BenchEvent)>& report) {
  const auto ended = [&] { return is_cancelled.load() ? Error(kErrAborted, "the bench was cancelled") : Ok(); };
  if (options.kind == "limits") {
    OPENLORA_RETURN_IF_ERROR(BenchGpuLimits(options, report));
    return ended();
  }
  const CudaBenchOptions of_ops{options.device, options.cuda_images, options.is_quick, options.filter, &is_cancelled};
  OPENLORA_RETURN_IF_ERROR(MeasureCudaOps(
      of_ops, [&](const std::string& name) { report(bench::BegunEvent{CpuName(), 0, name, 0}); },
      [&](const CudaOpResult& result) {
        std::vector<double> us = result.us;
        report(bench::OpResult{.op = result.op,
                               .what = result.what,
                               .bytes = result.bytes,
                               .flops = result.operations,
                               .us = bench::Quantile(us, 0.5),
                               .us_p10 = bench::Quantile(us, 0.1),
                               .us_p90 = bench::Quantile(us, 0.9),
                               .samples = us.size(),
                               .limits = {result.copy_gbs, "bf16 mma", result.peak_gops},
                               .error = result.error,
                               .error_max = result.error_max});
      }));
  return ended();
}

Napi::Value Bench(const Napi::CallbackInfo& info) { return StartBench(info, BenchGpu); }

Napi::Value Probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  Napi::Array features = Napi::Array::New(env), levels = Napi::Array::New(env);
  for (const std::string& name : CpuFeatureNames()) features.Set(features.Length(), name);
  for (const SimdLevel level : AvailableSimdLevels()) levels.Set(levels.Length(), NameOf(level));
  // A variant for GPUs computes on CPUs as well, but the one for CPUs does that wherever it is.
  const Status cuda = CheckCuda();
  const bool is_usable = !IsForCuda() || cuda.ok();
  result.Set("isUsable", is_usable);
  result.Set("reason", is_usable ? "" : cuda.message());
  result.Set("cpuFeatures", features);
  result.Set("simdLevels", levels);
  return result;
}

Napi::Value Open(const Napi::CallbackInfo& info) {
  return EngineObject::Open(info, info.Env().GetInstanceData<AddonData>()->engine_constructor, OpenMachine);
}

// (path) → whether the system was asked to forget the file's pages.
Napi::Value ForgetPages(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsString()) {
    Napi::TypeError::New(env, "path must be a string").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  File file;
  const Status status = File::Open(info[0].As<Napi::String>().Utf8Value(), &file);
  if (!status.ok()) {
    Napi::Error::New(env, status.message()).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return Napi::Boolean::New(env, file.ForgetPages());
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData;
  data->engine_constructor = Napi::Persistent(EngineObject::Define(env));
  env.SetInstanceData(data);
  exports.Set("version", OPENLORA_VERSION);
  exports.Set("probe", Napi::Function::New<Probe>(env, "probe"));
  exports.Set("bench", Napi::Function::New<Bench>(env, "bench"));
  exports.Set("forgetPages", Napi::Function::New<ForgetPages>(env, "forgetPages"));
  exports.Set("open", Napi::Function::New<Open>(env, "open"));
  return exports;
}

}  // namespace
}  // namespace openlora

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) { return openlora::Init(env, exports); }

NODE_API_MODULE(openlora, InitAddon)
