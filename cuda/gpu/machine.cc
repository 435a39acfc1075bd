#include "gpu/machine.h"

#include <cuda_runtime_api.h>

#include <map>
#include <mutex>
#include <vector>

namespace openlora::cuda_gpu {
namespace {

// Shared memory beyond which a kernel must be told that it may have it.
constexpr int kSharedBytesFree = 48 << 10;

Status ErrorOf(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return Ok();
  const bool is_driver = error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice ||
                         error == cudaErrorInitializationError || error == cudaErrorSystemDriverMismatch;
  return Error(is_driver ? kErrCudaDriver : kErrCudaFailed, "%s: %s (%s, error %d)", what, cudaGetErrorString(error),
               cudaGetErrorName(error), static_cast<int>(error));
}

}  // namespace

Status CheckDriver() {
  int driver = 0, runtime = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess) return Ok();
  (void)cudaGetLastError();
  if (driver == 0) return Error(kErrCudaDriver, "no NVIDIA driver was found (%s)", cudaGetErrorString(error));
  return Error(kErrCudaDriver, "the NVIDIA driver has CUDA %d.%d, and this build needs %d.0 or later (%s)",
               driver / 1000, driver % 1000 / 10, runtime / 1000, cudaGetErrorString(error));
}

struct Machine::State {
  struct Captured {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
  };

  Options options;
  cudaDeviceProp properties = {};
  std::vector<cudaLibrary_t> libraries;
  std::map<std::string, cudaKernel_t> kernels;
  std::vector<cudaStream_t> streams;
  std::vector<cudaEvent_t> events;
  std::vector<Captured> graphs;
  mutable std::mutex mutex;  // of status and events
  Status status;

  cudaStream_t Stream(int index) const { return streams[static_cast<size_t>(index)]; }
  cudaEvent_t Event(int index) const {
    const std::lock_guard lock(mutex);
    return events[static_cast<size_t>(index)];
  }
  // Whether all was well until now and this call is: keeps the first error.
  bool Check(cudaError_t error, const char* what) {
    const std::lock_guard lock(mutex);
    if (status.ok() && error != cudaSuccess) status = ErrorOf(error, what);
    return status.ok();
  }
  // Whether all was well until now; the calling thread's device is this one from now on.
  bool Enter() { return Check(cudaSetDevice(options.device), "choosing the device"); }

  Status Load(const std::string& stem, const Module& module);
};

Status Machine::State::Load(const std::string& stem, const Module& module) {
  const int architecture = properties.major * 10 + properties.minor;
  const std::vector<char>* const image = ImageFor(module, architecture);
  if (image == nullptr)
    return Error(kErrCudaDevice, "no image of the kernels %s runs on %s, compute capability %d.%d", stem.c_str(),
                 properties.name, properties.major, properties.minor);
  cudaLibrary_t library = nullptr;
  OPENLORA_RETURN_IF_ERROR(
      ErrorOf(cudaLibraryLoadData(&library, image->data(), nullptr, nullptr, 0, nullptr, nullptr, 0), stem.c_str()));
  libraries.push_back(library);
  for (const auto& [name, lowered] : module.names) {
    cudaKernel_t kernel = nullptr;
    OPENLORA_RETURN_IF_ERROR(ErrorOf(cudaLibraryGetKernel(&kernel, library, lowered.c_str()), name.c_str()));
    // Touches every kernel as well: with lazy loading a first launch within a capture can fail (drivers below 12.3).
    cudaFuncAttributes attributes = {};
    OPENLORA_RETURN_IF_ERROR(ErrorOf(cudaFuncGetAttributes(&attributes, kernel), name.c_str()));
    const int shared = static_cast<int>(properties.sharedMemPerBlockOptin - attributes.sharedSizeBytes);
    if (shared > kSharedBytesFree)
      OPENLORA_RETURN_IF_ERROR(
          ErrorOf(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), name.c_str()));
    kernels[name] = kernel;
  }
  return Ok();
}

Status Machine::Open(const Options& options, const Images& images, std::unique_ptr<Machine>* machine) {
  OPENLORA_RETURN_IF_ERROR(CheckDriver());
  int devices = 0;
  OPENLORA_RETURN_IF_ERROR(ErrorOf(cudaGetDeviceCount(&devices), "counting devices"));
  if (options.device < 0 || options.device >= devices)
    return Error(kErrCudaDevice, "no device cuda:%d: there are %d", options.device, devices);
  auto state = std::make_unique<State>();
  state->options = options;
  OPENLORA_RETURN_IF_ERROR(ErrorOf(cudaGetDeviceProperties(&state->properties, options.device), "its properties"));
  const cudaDeviceProp& properties = state->properties;
  if (properties.major * 10 + properties.minor < kArchitectureMin)
    return Error(kErrCudaDevice, "%s has compute capability %d.%d: %d.%d or later is needed", properties.name,
                 properties.major, properties.minor, kArchitectureMin / 10, kArchitectureMin % 10);
  OPENLORA_RETURN_IF_ERROR(ErrorOf(cudaSetDevice(options.device), "choosing the device"));
  auto opened = std::unique_ptr<Machine>(new Machine(std::move(state)));
  for (const auto& [stem, module] : images.modules) OPENLORA_RETURN_IF_ERROR(opened->state_->Load(stem, module));
  opened->MakeStream();
  OPENLORA_RETURN_IF_ERROR(opened->status());
  *machine = std::move(opened);
  return Ok();
}

Machine::Machine(std::unique_ptr<State> state) : state_(std::move(state)) {}

Machine::~Machine() {
  for (const cudaStream_t stream : state_->streams) (void)cudaStreamSynchronize(stream);
  for (const State::Captured& captured : state_->graphs) {
    if (captured.exec != nullptr) (void)cudaGraphExecDestroy(captured.exec);
    if (captured.graph != nullptr) (void)cudaGraphDestroy(captured.graph);
  }
  for (const cudaEvent_t event : state_->events) (void)cudaEventDestroy(event);
  for (const cudaStream_t stream : state_->streams) (void)cudaStreamDestroy(stream);
  for (const cudaLibrary_t library : state_->libraries) (void)cudaLibraryUnload(library);
}

int Machine::architecture() const { return state_->properties.major * 10 + state_->properties.minor; }
int Machine::multiprocessors() const { return state_->properties.multiProcessorCount; }
std::string Machine::name() const { return state_->properties.name; }
Status Machine::status() const {
  const std::lock_guard lock(state_->mutex);
  return state_->status;
}

Status Machine::MemoryBytes(size_t* free, size_t* total) {
  if (!state_->Enter()) return status();
  return ErrorOf(cudaMemGetInfo(free, total), "asking for free memory");
}

void* Machine::Allocate(const std::string& name, size_t bytes) {
  if (!state_->Enter()) return nullptr;
  void* memory = nullptr;
  const size_t wanted = bytes == 0 ? 1 : bytes;
  const cudaError_t error = state_->options.is_managed ? cudaMallocManaged(&memory, wanted, cudaMemAttachGlobal)
                                                       : cudaMalloc(&memory, wanted);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // it isn't sticky
    return nullptr;
  }
  if (!state_->Check(error, name.c_str())) return nullptr;
  if (state_->options.is_managed) {
    Fill(0, memory, 0xff, wanted);
    SynchronizeStream(0);
  }
  return memory;
}

void Machine::Free(void* memory) {
  if (state_->Enter()) state_->Check(cudaFree(memory), "freeing memory");
}

void* Machine::AllocateHost(size_t bytes) {
  if (!state_->Enter()) return nullptr;
  void* memory = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, bytes == 0 ? 1 : bytes, cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return nullptr;
  }
  return state_->Check(error, "pinning host memory") ? memory : nullptr;
}

void Machine::FreeHost(void* memory) {
  if (state_->Enter()) state_->Check(cudaFreeHost(memory), "freeing host memory");
}

int Machine::MakeStream() {
  cudaStream_t stream = nullptr;
  if (state_->Enter()) state_->Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  state_->streams.push_back(stream);
  return static_cast<int>(state_->streams.size()) - 1;
}

void Machine::Launch(int stream, const dev::Shape& shape, const char* kernel, const void* params) {
  if (!state_->Enter()) return;
  const auto found = state_->kernels.find(kernel);
  if (found == state_->kernels.end()) {
    const std::lock_guard lock(state_->mutex);
    if (state_->status.ok()) state_->status = Error(kErrInternal, "no image has a kernel %s", kernel);
    return;
  }
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = state_->Stream(stream);
  config.attrs = &cooperative;
  config.numAttrs = shape.is_cooperative ? 1 : 0;
  void* arguments[] = {const_cast<void*>(params)};
  state_->Check(cudaLaunchKernelExC(&config, found->second, arguments), kernel);
}

void Machine::Copy(int stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0 || !state_->Enter()) return;
  state_->Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, state_->Stream(stream)), "a copy");
}

void Machine::Fill(int stream, void* to, uint8_t value, size_t bytes) {
  if (bytes == 0 || !state_->Enter()) return;
  state_->Check(cudaMemsetAsync(to, value, bytes, state_->Stream(stream)), "a fill");
}

int Machine::Record(int stream) {
  cudaEvent_t event = nullptr;
  if (state_->Enter() && state_->Check(cudaEventCreate(&event), "making an event"))
    state_->Check(cudaEventRecord(event, state_->Stream(stream)), "recording an event");
  const std::lock_guard lock(state_->mutex);
  state_->events.push_back(event);
  return static_cast<int>(state_->events.size()) - 1;
}

void Machine::RecordAgain(int stream, int event) {
  if (state_->Enter())
    state_->Check(cudaEventRecord(state_->Event(event), state_->Stream(stream)), "recording an event");
}

void Machine::Wait(int stream, int event) {
  if (!state_->Enter()) return;
  state_->Check(cudaStreamWaitEvent(state_->Stream(stream), state_->Event(event), 0), "waiting for an event");
}

bool Machine::Query(int event) {
  if (!state_->Enter()) return true;
  const cudaError_t error = cudaEventQuery(state_->Event(event));
  if (error == cudaErrorNotReady) return false;
  state_->Check(error, "asking for an event");
  return true;
}

void Machine::SynchronizeEvent(int event) {
  if (!state_->Enter()) return;
  state_->Check(cudaEventSynchronize(state_->Event(event)), "the device");
}

void Machine::SynchronizeStream(int stream) {
  if (!state_->Enter()) return;
  state_->Check(cudaStreamSynchronize(state_->Stream(stream)), "the device");
}

double Machine::MillisecondsBetween(int begin, int end) {
  float milliseconds = 0;
  if (state_->Enter())
    state_->Check(cudaEventElapsedTime(&milliseconds, state_->Event(begin), state_->Event(end)),
                  "the time between two events");
  return milliseconds;
}

void Machine::BeginCapture(int stream) {
  if (!state_->Enter()) return;
  state_->Check(cudaStreamBeginCapture(state_->Stream(stream), cudaStreamCaptureModeThreadLocal),
                "beginning a capture");
}

int Machine::EndCapture(int stream) {
  State::Captured captured;
  if (state_->Enter() &&
      state_->Check(cudaStreamEndCapture(state_->Stream(stream), &captured.graph), "ending a capture"))
    state_->Check(cudaGraphInstantiate(&captured.exec, captured.graph, 0), "making a graph");
  state_->graphs.push_back(captured);
  return static_cast<int>(state_->graphs.size()) - 1;
}

void Machine::LaunchGraph(int graph, int stream) {
  if (!state_->Enter()) return;
  state_->Check(cudaGraphLaunch(state_->graphs[static_cast<size_t>(graph)].exec, state_->Stream(stream)), "a graph");
}

}  // namespace openlora::cuda_gpu
