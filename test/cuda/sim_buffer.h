#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "cuda/test_machine.h"

namespace openlora {

// Device memory of a machine, as an array. The host reads and writes it while nothing runs.
template <class T>
class SimBuffer {
 public:
  SimBuffer(TestMachine& machine, std::string name, size_t size)
      : machine_(machine), data_(static_cast<T*>(machine.Allocate(std::move(name), size * sizeof(T)))), size_(size) {}
  SimBuffer(TestMachine& machine, std::string name, const std::vector<T>& values)
      : SimBuffer(machine, std::move(name), values.size()) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size() * sizeof(T));
    machine.SetReadOnly(data_, true);
  }
  ~SimBuffer() { machine_.Free(data_); }
  SimBuffer(const SimBuffer&) = delete;
  SimBuffer& operator=(const SimBuffer&) = delete;

  T* data() const { return data_; }
  size_t size() const { return size_; }
  T operator[](size_t i) const { return data_[i]; }
  void Zero() { std::memset(data_, 0, size_ * sizeof(T)); }
  std::vector<T> values() const { return {data_, data_ + size_}; }

 private:
  TestMachine& machine_;
  T* data_;
  size_t size_;
};

// Runs a kernel to its end; the machine's violation, empty if there is none.
template <class Params>
std::string RunKernel(TestMachine& machine, dev::Kernel<Params> kernel, const dev::Shape& shape,
                      const std::type_identity_t<Params>& params) {
  dev::Launch(kernel, shape, {&machine, 0}, params);
  machine.SynchronizeStream(0);
  return machine.violation();
}

}  // namespace openlora
