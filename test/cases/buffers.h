#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "base/prng.h"
#include "tensor/dtype.h"
#include "tensor/tensor_view.h"

namespace openlora::cases {

inline constexpr size_t kPageBytes = 4096;
inline constexpr uint8_t kGuard = 0xa5;
inline constexpr uint8_t kPoison = 0xff;  // NaN in f32, f16 and bf16

// Page-aligned bytes between two guard bands; poisoned at first.
class GuardedBytes {
 public:
  explicit GuardedBytes(size_t bytes = 0) : bytes_(bytes) {
    const size_t total = (bytes + 3 * kPageBytes - 1) / kPageBytes * kPageBytes;
    memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, total)));
    if (memory_ == nullptr) throw std::bad_alloc();
    std::memset(memory_.get(), kGuard, total);
    std::memset(data(), kPoison, bytes);
    total_ = total;
  }

  uint8_t* data() const { return memory_.get() + kPageBytes; }
  size_t size() const { return bytes_; }

  bool IsIntact() const {
    for (size_t i = 0; i < kPageBytes; ++i)
      if (memory_.get()[i] != kGuard) return false;
    for (size_t i = kPageBytes + bytes_; i < total_; ++i)
      if (memory_.get()[i] != kGuard) return false;
    return true;
  }

 private:
  struct Release {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  size_t bytes_;
  size_t total_ = 0;
  std::unique_ptr<uint8_t, Release> memory_;
};

// f32 [rows, cols] whose rows stand kGap elements apart, in guard bytes: no row but the first is aligned.
class GuardedMatrix {
 public:
  static constexpr int64_t kGap = 5;

  GuardedMatrix(int64_t rows, int64_t cols)
      : rows_(rows), cols_(cols), bytes_(static_cast<size_t>(rows * (cols + kGap)) * sizeof(float)) {
    for (int64_t row = 0; row < rows; ++row) std::memset(Row(row) + cols, kGuard, kGap * sizeof(float));
  }

  float* Row(int64_t row) const { return reinterpret_cast<float*>(bytes_.data()) + row * (cols_ + kGap); }
  TensorView View() const { return {bytes_.data(), DType::kF32, rows_, cols_, cols_ + kGap}; }

  void CopyFrom(const float* values) {  // [rows, cols], dense
    for (int64_t row = 0; row < rows_; ++row) std::memcpy(Row(row), values + row * cols_, cols_ * sizeof(float));
  }

  std::vector<float> Values() const {
    std::vector<float> values(rows_ * cols_);
    for (int64_t row = 0; row < rows_; ++row) std::memcpy(values.data() + row * cols_, Row(row), cols_ * sizeof(float));
    return values;
  }

  bool IsIntact() const {
    for (int64_t row = 0; row < rows_; ++row)
      for (int64_t i = 0; i < kGap * static_cast<int64_t>(sizeof(float)); ++i)
        if (reinterpret_cast<const uint8_t*>(Row(row) + cols_)[i] != kGuard) return false;
    return bytes_.IsIntact();
  }

 private:
  int64_t rows_;
  int64_t cols_;
  GuardedBytes bytes_;
};

// A stream of draws; the n-th depends on the seed alone.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  double Uniform() { return PhiloxUniform(seed_, next_++); }                        // [0, 1)
  float Symmetric() { return static_cast<float>(2 * Uniform() - 1); }               // [-1, 1)
  int32_t Below(int32_t count) { return static_cast<int32_t>(Uniform() * count); }  // [0, count)

  template <typename T>
  void Shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[Below(static_cast<int32_t>(i))]);
  }

 private:
  uint64_t seed_;
  uint64_t next_ = 0;
};

// `value` as `dtype` stores it.
inline float Rounded(float value, DType dtype) {
  uint32_t stored = 0;
  StoreFromFloat(&stored, dtype, 0, value);
  return LoadAsFloat(&stored, dtype, 0);
}

// Uniform in ±limit, each rounded to `dtype`.
inline std::vector<float> RandomValues(Random& random, int64_t count, DType dtype = DType::kF32, float limit = 1) {
  std::vector<float> values(count);
  for (float& value : values) value = Rounded(limit * random.Symmetric(), dtype);
  return values;
}

}  // namespace openlora::cases
