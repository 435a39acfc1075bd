#include "napi/bench_thread.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/guarded.h"
#include "base/machine.h"
#include "bench/bench.h"
#include "napi/marshal.h"

namespace openlora {
namespace {

using bench::BegunEvent;
using bench::BenchEvent;
using bench::BenchOptions;
using bench::LimitResult;
using bench::OpResult;

constexpr int32_t kThreadsMax = 1024;
constexpr int32_t kRoundsMax = 10'000;
constexpr const char* kCpu = "cpu";

// One measurement. The thread writes `events` and `outcome`; everything else belongs to the JS thread.
struct Measurement {
  std::thread thread;
  napi_threadsafe_function wake = nullptr;
  std::atomic<bool> is_cancelled{false};
  std::mutex mutex;
  std::vector<BenchEvent> events;  // under `mutex`
  bool has_ended = false;          // under `mutex`
  Status outcome;                  // under `mutex`
};
using Holder = std::shared_ptr<Measurement>;  // what the thread-safe function's context points to

std::string ReadOptions(Napi::Object object, BenchOptions* options) {
  ObjectReader reader(object, "bench");
  options->kind = reader.String("kind");
  options->device = reader.String("device");
  options->cuda_images = reader.String("cudaImages");
  options->threads = reader.Int32("threads");
  options->simd = reader.String("simd");
  options->rounds = reader.Int32("rounds");
  options->is_quick = reader.Bool("isQuick");
  options->filter = reader.String("filter");
  if (options->kind != "limits" && options->kind != "ops") reader.Refuse("kind", "limits or ops");
  if (options->threads < 0 || options->threads > kThreadsMax) reader.Refuse("threads", "0 to 1024");
  if (options->rounds < 1 || options->rounds > kRoundsMax) reader.Refuse("rounds", "1 to 10000");
  return reader.error();
}

Napi::Object Write(Napi::Env env, const BegunEvent& event) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", "begun");
  object.Set("cpu", event.cpu);
  object.Set("threads", event.threads);
  object.Set("simd", event.simd);
  object.Set("cacheBytes", static_cast<double>(event.cache_bytes));
  return object;
}

Napi::Object Write(Napi::Env env, const LimitResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", "limit");
  object.Set("name", result.name);
  object.Set("unit", result.unit);
  object.Set("median", result.median);
  object.Set("low", result.low);
  object.Set("high", result.high);
  return object;
}

Napi::Object Write(Napi::Env env, const OpResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", "op");
  object.Set("op", result.op);
  object.Set("what", result.what);
  object.Set("bytes", result.bytes);
  object.Set("operations", result.flops);
  object.Set("usMedian", result.us);
  object.Set("usLow", result.us_p10);
  object.Set("usHigh", result.us_p90);
  object.Set("samples", static_cast<double>(result.samples));
  object.Set("readGbs", result.limits.read_gbs);
  object.Set("peak", result.limits.peak);
  object.Set("peakGops", result.limits.peak_gops);
  object.Set("error", result.error);
  object.Set("errorMax", result.error_max);
  return object;
}

Napi::Object Write(Napi::Env env, const Status& outcome) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", "ended");
  object.Set("code", outcome.code());
  object.Set("message", outcome.message());
  return object;
}

// The environment goes: no JavaScript runs any more.
void TearDown(void* data) {
  Measurement* measurement = static_cast<Measurement*>(data);
  measurement->is_cancelled = true;
  measurement->thread.join();
}

void DeleteHolder(napi_env, void* data, void*) { delete static_cast<Holder*>(data); }

void CallJs(napi_env raw_env, napi_value callback, void* context, void*) {
  // Node before 24.16 drains the queue after DeleteHolder when an environment goes: `context` is gone then.
  if (raw_env == nullptr || callback == nullptr) return;
  const Holder measurement = *static_cast<Holder*>(context);
  if (!measurement->thread.joinable()) return;
  std::vector<BenchEvent> events;
  bool has_ended;
  {
    const std::lock_guard lock(measurement->mutex);
    events.swap(measurement->events);
    has_ended = measurement->has_ended;
  }
  const Napi::Env env(raw_env);
  const Napi::HandleScope scope(env);
  const auto call = [&](const Napi::Object& event) {
    napi_value receiver, ignored;
    const napi_value argument = event;
    napi_get_undefined(env, &receiver);
    // An exception of the callback is pending afterwards, and Node reports it as uncaught.
    return napi_call_function(env, receiver, callback, 1, &argument, &ignored) == napi_ok;
  };
  bool can_go_on = true;
  for (const BenchEvent& event : events)
    can_go_on = can_go_on && std::visit([&](const auto& one) { return call(Write(env, one)); }, event);
  if (!has_ended) return;
  if (can_go_on) call(Write(env, measurement->outcome));
  napi_remove_env_cleanup_hook(env, TearDown, measurement.get());
  measurement->thread.join();
  napi_release_threadsafe_function(measurement->wake, napi_tsfn_release);
}

void Measure(Measurement* measurement, const BenchOptions& options, BenchOfGpu of_gpu) {
  const auto wake = [measurement] { napi_call_threadsafe_function(measurement->wake, nullptr, napi_tsfn_nonblocking); };
  const auto report = [&](BenchEvent event) {
    {
      const std::lock_guard lock(measurement->mutex);
      measurement->events.push_back(std::move(event));
    }
    wake();
  };
  const Status outcome = options.device == kCpu
                             ? bench::RunBench(options, measurement->is_cancelled, report)
                             : Guarded([&] { return of_gpu(options, measurement->is_cancelled, report); });
  {
    const std::lock_guard lock(measurement->mutex);
    measurement->outcome = outcome;
    measurement->has_ended = true;
  }
  wake();
}

}  // namespace

Napi::Value StartBench(const Napi::CallbackInfo& info, BenchOfGpu of_gpu) {
  const Napi::Env env = info.Env();
  BenchOptions options;
  const Napi::Object given = info[0].IsObject() ? info[0].As<Napi::Object>() : Napi::Object::New(env);
  std::string mismatch = ReadOptions(given, &options);
  if (mismatch.empty() && !info[1].IsFunction()) mismatch = "onEvent must be a function";
  const auto measurement = std::make_shared<Measurement>();
  if (mismatch.empty()) {
    auto* holder = new Holder(measurement);
    const napi_value name = Napi::String::New(env, "openlora bench");
    if (napi_create_threadsafe_function(env, info[1], nullptr, name, 0, 1, nullptr, DeleteHolder, holder, CallJs,
                                        &measurement->wake) != napi_ok) {
      delete holder;
      mismatch = "the event callback can't be registered";
    }
  }
  if (!mismatch.empty()) {
    // What a getter of an argument threw goes before; a second exception would be fatal.
    if (!env.IsExceptionPending()) Napi::TypeError::New(env, mismatch).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  napi_add_env_cleanup_hook(env, TearDown, measurement.get());
  const Status started = Guarded([&] {
    measurement->thread = std::thread([raw = measurement.get(), options, of_gpu] { Measure(raw, options, of_gpu); });
    return Ok();
  });
  if (!started.ok()) {
    napi_remove_env_cleanup_hook(env, TearDown, measurement.get());
    napi_release_threadsafe_function(measurement->wake, napi_tsfn_abort);
    Napi::Error error = Napi::Error::New(env, started.message());
    error.Set("code", started.code());
    error.ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return Napi::Function::New(
      env, [measurement](const Napi::CallbackInfo&) { measurement->is_cancelled = true; }, "cancel");
}

}  // namespace openlora
