#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "device/kernel.h"
#include "ops/machine.h"

namespace openlora {

// The machine of an engine with its two streams: one that computes, and one for what any thread copies meanwhile.
class CudaContext {
 public:
  explicit CudaContext(std::unique_ptr<CudaMachine> machine)
      : machine_(std::move(machine)), copies_(machine_->MakeStream()) {}

  int multiprocessors() const { return multiprocessors_; }
  CudaMachine& machine() const { return *machine_; }

  int64_t FreeBytes() {
    const auto lock = Lock();
    return FreeBytesOf(*machine_);
  }
  // ERR_OUT_OF_MEMORY, or the machine's error.
  Status Allocate(const char* name, size_t bytes, void** memory) {
    const auto lock = Lock();
    *memory = machine_->Allocate(name, bytes);
    if (*memory != nullptr) return Ok();
    OPENLORA_RETURN_IF_ERROR(StatusOf(*machine_));
    return Error(kErrOutOfMemory, "the device has no %zu bytes for %s", bytes, name);
  }
  // Of the host, for copies that go on by themselves.
  Status AllocateHost(size_t bytes, void** memory) {
    const auto lock = Lock();
    *memory = AllocateHostOf(*machine_, bytes);
    if (*memory != nullptr) return Ok();
    OPENLORA_RETURN_IF_ERROR(StatusOf(*machine_));
    return Error(kErrOutOfMemory, "the host has no %zu bytes for copies to the device", bytes);
  }
  void FreeHost(void* memory) {
    const auto lock = Lock();
    FreeHostOf(*machine_, memory);
  }
  void Free(void* memory) {
    const auto lock = Lock();
    machine_->Free(memory);
  }

  // On the stream that computes.
  template <class Params>
  void Launch(dev::Kernel<Params> kernel, const dev::Shape& shape, const std::type_identity_t<Params>& params) {
    const auto lock = Lock();
    dev::Launch(kernel, shape, dev::Stream{machine_.get(), kCompute}, params);
  }
  // Host memory on either side stays as it is until Synchronize.
  void Copy(void* to, const void* from, size_t bytes) {
    const auto lock = Lock();
    machine_->Copy(kCompute, to, from, bytes);
  }
  // What is launched and copied in between isn't done but kept, to be done as often as asked for.
  void BeginCapture() {
    const auto lock = Lock();
    machine_->BeginCapture(kCompute);
  }
  int EndCapture() {
    const auto lock = Lock();
    return machine_->EndCapture(kCompute);
  }
  void LaunchGraph(int graph) {
    const auto lock = Lock();
    machine_->LaunchGraph(graph, kCompute);
  }
  // For measuring what is computed between two marks; place 0 or 1.
  void Mark(int place) {
    const auto lock = Lock();
    int& event = marks_[place];
    if (event < 0) {
      event = machine_->Record(kCompute);
    } else {
      machine_->RecordAgain(kCompute, event);
    }
  }
  // Waits for both.
  double MillisecondsBetweenMarks() {
    const auto lock = Lock();
    machine_->SynchronizeEvent(marks_[1]);
    return MillisecondsBetween(*machine_, marks_[0], marks_[1]);
  }
  Status Synchronize() {
    const auto lock = Lock();
    machine_->SynchronizeStream(kCompute);
    return StatusOf(*machine_);
  }

  // Copies beside what is computed, from memory of AllocateHost; any thread. Events of them are used again once given
  // back.
  void CopyBeside(void* to, const void* from, size_t bytes) {
    const auto lock = Lock();
    machine_->Copy(copies_, to, from, bytes);
  }
  int RecordCopies() {
    const auto lock = Lock();
    const std::lock_guard events_lock(events_mutex_);
    if (events_.empty()) return machine_->Record(copies_);
    const int event = events_.back();
    events_.pop_back();
    machine_->RecordAgain(copies_, event);
    return event;
  }
  void GiveEvent(int event) {
    const std::lock_guard lock(events_mutex_);
    events_.push_back(event);
  }
  // What is computed from now on comes after it.
  void WaitForCopies(int event) {
    const auto lock = Lock();
    machine_->Wait(kCompute, event);
  }
  bool Query(int event) {
    const auto lock = Lock();
    return machine_->Query(event);
  }
  void SynchronizeEvent(int event) {
    const auto lock = Lock();
    machine_->SynchronizeEvent(event);
  }
  Status status() {
    const auto lock = Lock();
    return StatusOf(*machine_);
  }

  // Done on return; any thread.
  Status Upload(void* to, const void* from, size_t bytes) {
    const auto lock = Lock();
    machine_->Copy(copies_, to, from, bytes);
    machine_->SynchronizeStream(copies_);
    return StatusOf(*machine_);
  }
  Status Fill(void* to, uint8_t value, size_t bytes) {
    const auto lock = Lock();
    machine_->Fill(copies_, to, value, bytes);
    machine_->SynchronizeStream(copies_);
    return StatusOf(*machine_);
  }

 private:
  static constexpr int kCompute = 0;
  // The simulator takes one call at a time.
  std::unique_lock<std::mutex> Lock() {
    return kIsSimulated ? std::unique_lock(mutex_) : std::unique_lock(mutex_, std::defer_lock);
  }

  std::unique_ptr<CudaMachine> machine_;
  int copies_;
  int marks_[2] = {-1, -1};
  int multiprocessors_ = MultiprocessorsOf(*machine_);
  std::mutex mutex_;
  std::mutex events_mutex_;
  std::vector<int> events_;  // that nobody waits for any more
};

}  // namespace openlora
