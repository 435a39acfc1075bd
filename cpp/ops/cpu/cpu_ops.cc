#include "ops/cpu/cpu_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "base/check.h"
#include "ops/cpu/cpu_ops_impl.h"

namespace openlora {
namespace {

#if defined(OPENLORA_HAS_AVX512VNNI) || defined(OPENLORA_HAS_NEON_DOTPROD)
KernelTable With(KernelTable table, const char* level, const QuantisedKernels& quantised) {
  table.level = level;
  table.quantised = quantised;
  return table;
}
#endif

// What the machine has; `level` is one of AvailableSimdLevels.
KernelTable KernelsOf(SimdLevel level) {
  switch (level) {
#if defined(OPENLORA_HAS_SCALAR)
    case SimdLevel::kScalar:
      return kKernelsScalar;
#endif
#if defined(OPENLORA_HAS_NEON)
    case SimdLevel::kNeon:
      return kKernelsNeon;
#endif
#if defined(OPENLORA_HAS_NEON_DOTPROD)
    case SimdLevel::kNeonDotprod:
      return With(kKernelsNeon, NameOf(level), kQuantisedNeonDotprod);
#endif
#if defined(OPENLORA_HAS_AVX2)
    case SimdLevel::kAvx2:
      return kKernelsAvx2;
#endif
#if defined(OPENLORA_HAS_AVX512)
    case SimdLevel::kAvx512:
      return kKernelsAvx512;
#endif
#if defined(OPENLORA_HAS_AVX512VNNI)
    case SimdLevel::kAvx512Vnni: {
      KernelTable table = With(kKernelsAvx512, NameOf(level), kQuantisedAvx512Vnni);
#if defined(OPENLORA_HAS_AVX512BF16)
      if (HasFastBF16Dot()) {
        table.bf16_dot = kBF16DotAvx512;
        table.attention_dots = kAttentionDotsAvx512;
      }
#endif
      return table;
    }
#endif
    default:
      OPENLORA_CHECK(false);
      return {};
  }
}

}  // namespace

Status CreateCpuOps(SimdLevel level, int threads, std::unique_ptr<Ops>* ops) {
  OPENLORA_CHECK(threads >= 1);
  const std::vector<SimdLevel>& levels = AvailableSimdLevels();
  if (level == SimdLevel::kAuto && !levels.empty()) level = levels.back();
  if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
    std::string names;
    for (const SimdLevel has : levels) names += std::string(names.empty() ? "" : ", ") + NameOf(has);
    return Error(kErrSimdLevel, "no SIMD level '%s' on this machine; it has: %s", NameOf(level), names.c_str());
  }
  auto made = std::make_unique<CpuOps>(KernelsOf(level), threads);
  if (made->threads() != threads)
    return Error(kErrThreads, "threads is %d, the system doesn't start that many", threads);
  *ops = std::move(made);
  return Ok();
}

void* Workspace::Grow(size_t bytes) {
  if (bytes > pages_.bytes()) {
    pages_ = PageBuffer();  // first, so that the two never stand side by side
    pages_ = PageBuffer(std::max(bytes + bytes / 2, size_t{1} << 16));
    if (pages_.data() == nullptr) throw std::bad_alloc();  // as a vector would: ends the engine with ERR_OUT_OF_MEMORY
  }
  return pages_.data();
}

CpuOps::CpuOps(const KernelTable& kernels, int threads)
    : kernels_(kernels),
      name_(std::string("cpu-") + kernels.level),
      pool_(threads),
      panels_(pool_.size()),
      taken_(static_cast<size_t>(pool_.size())),
      tile_order_(static_cast<size_t>(pool_.size())) {}

void CpuOps::RmsNorm(const TensorView& x, const float* gain, int64_t dim, float eps, const TensorView& out) {
  OPENLORA_CHECK(dim > 0 && x.cols % dim == 0 && out.rows == x.rows && out.cols == x.cols);
  const int64_t groups = x.cols / dim;
  Parallel(x.rows * groups, x.rows * x.cols / 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / groups, column = i % groups * dim;
      kernels_.rms_norm(x.f32(row) + column, gain, dim, eps, out.f32(row) + column);
    }
  });
}

void CpuOps::RopeTable(const RowsView& rows, const RopeFrequencies& rope, const TensorView& cos_sin) {
  const int64_t half = static_cast<int64_t>(rope.inv_freq.size());
  const bool has_long = !rope.long_inv_freq.empty() && rows.row_is_long != nullptr;
  OPENLORA_CHECK(cos_sin.cols == 2 * half && cos_sin.rows >= rows.rows);
  OPENLORA_CHECK(!has_long || rope.long_inv_freq.size() == rope.inv_freq.size());
  Parallel(rows.rows, rows.rows * half * 32, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* const inv_freq =
          (has_long && rows.row_is_long[row] != 0 ? rope.long_inv_freq : rope.inv_freq).data();
      float* const cosines = cos_sin.f32(row);
      for (int64_t i = 0; i < half; ++i) {
        // An f32, as Hugging Face computes it.
        const float angle = static_cast<float>(rows.row_pos[row]) * inv_freq[i];
        cosines[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * rope.factor;
        cosines[half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * rope.factor;
      }
    }
  });
}

void CpuOps::Rope(const TensorView& x, int32_t heads, int32_t head_dim, const TensorView& cos_sin) {
  OPENLORA_CHECK(x.cols == int64_t{heads} * head_dim && cos_sin.rows >= x.rows && cos_sin.cols <= head_dim);
  Parallel(x.rows * heads, x.rows * heads * cos_sin.cols / 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels_.rope(x.f32(i / heads) + i % heads * head_dim, cos_sin.f32(i / heads), cos_sin.cols / 2);
  });
}

void CpuOps::GatedActivation(Activation activation, const TensorView& gate, const TensorView& up) {
  OPENLORA_CHECK(gate.rows == up.rows && gate.cols == up.cols);
  const auto kernel = kernels_.gated_activation[static_cast<int>(activation)];
  ParallelElements(gate, 1, [&](int64_t row, int64_t column, int64_t count) {
    kernel(gate.f32(row) + column, up.f32(row) + column, count, gate.f32(row) + column);
  });
}

void CpuOps::AddScaled(const TensorView& x, float scale, const TensorView& out) {
  OPENLORA_CHECK(x.rows == out.rows && x.cols == out.cols);
  ParallelElements(x, 4, [&](int64_t row, int64_t column, int64_t count) {
    kernels_.add_scaled(x.f32(row) + column, scale, out.f32(row) + column, count);
  });
}

void CpuOps::SoftCap(const TensorView& x, float cap) {
  OPENLORA_CHECK(cap > 0);
  ParallelElements(
      x, 1, [&](int64_t row, int64_t column, int64_t count) { kernels_.soft_cap(x.f32(row) + column, cap, count); });
}

void CpuOps::GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) {
  const int64_t count = static_cast<int64_t>(rows.size());
  OPENLORA_CHECK(out.rows >= count && out.cols == x.cols);
  Parallel(count, count * x.cols / 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(out.f32(i), x.f32(rows[i]), static_cast<size_t>(x.cols) * sizeof(float));
  });
}

}  // namespace openlora
