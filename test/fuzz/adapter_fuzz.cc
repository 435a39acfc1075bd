// An adapter's manifest and files through registration's check, packing into frames, a product, and eviction. A model
// written down once more says which manifests are sound; what is loaded multiplies as A and B in the files do.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <memory>
#include <set>

#include "base/sha256.h"
#include "fuzz/fuzz_input.h"
#include "fuzz/memory_file.h"
#include "memory/adapter_residency.h"
#include "ops/cpu/cpu_device.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/reference/reference_ops.h"

namespace openlora::fuzz {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
constexpr int64_t kFrameBytes = 4096;

struct Content {
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> header;  // what the digest was made of, prefix included
  MemoryFile file;
};

struct Case {
  std::vector<SiteShape> shapes;
  AdapterManifest manifest;
  std::vector<std::unique_ptr<Content>> contents;
  Content base;
};

TensorRange AddMatrix(FuzzInput* input, Content* content, int64_t rows, int64_t cols) {
  TensorRange range{0, static_cast<int64_t>(content->bytes.size()), 0, input->Pick(kDTypes), rows, cols};
  if (input->OneIn(8)) ++range.offset;
  range.bytes = rows * cols * static_cast<int64_t>(SizeOf(range.dtype));
  content->bytes.resize(static_cast<size_t>(range.offset + range.bytes));
  return range;
}

void SpoilRange(FuzzInput* input, TensorRange* range) {
  int64_t* const longs[] = {&range->offset, &range->bytes, &range->rows, &range->cols};
  if (input->OneIn(4)) range->file = input->Range(-2, 3);
  if (input->OneIn(4)) range->dtype = input->Pick(kDTypes);
  if (input->Bool()) {
    *input->Pick(longs) = input->Any<int64_t>();
  } else {
    *input->Pick(longs) += input->Range(-4, 4);
  }
}

void SpoilManifest(FuzzInput* input, AdapterManifest* manifest) {
  if (!manifest->base_tensors.empty() && input->OneIn(3)) {
    SavedBaseTensor& tensor = manifest->base_tensors[input->Byte() % manifest->base_tensors.size()];
    return SpoilRange(input, input->Bool() ? &tensor.saved : &tensor.expected);
  }
  if (manifest->sites.empty()) return;
  AdapterSite& site = manifest->sites[input->Byte() % manifest->sites.size()];
  switch (input->Byte() % 6) {
    case 0:
      return SpoilRange(input, &site.a);
    case 1:
      return SpoilRange(input, &site.b);
    case 2:
      site.site = input->Bool() ? input->Range(-2, 5) : input->Any<int32_t>();
      break;
    case 3:
      site.rank = input->Bool() ? input->Range(-2, 300) : input->Any<int32_t>();
      break;
    case 4:
      site.scale = input->Any<float>();
      break;
    default:
      manifest->sites.push_back(AdapterSite(site));
  }
}

void AddBaseTensor(FuzzInput* input, Case* test) {
  SavedBaseTensor tensor;
  tensor.name = "embed_tokens.weight";
  tensor.expected = AddMatrix(input, &test->base, input->Range(1, 9), input->Range(1, 9));
  tensor.saved = AddMatrix(input, test->contents[0].get(), tensor.expected.rows, tensor.expected.cols);
  test->manifest.base_tensors.push_back(tensor);
}

constexpr size_t kPrefixBytes = 8;  // of a header: the length of what follows, little-endian

// Room for a header of a few bytes at the beginning of each file, which tensors follow.
void AddHeaders(FuzzInput* input, Case* test) {
  for (auto& content : test->contents) {
    const auto length = static_cast<uint8_t>(input->Range(0, 40));
    content->header.assign(kPrefixBytes + length, 0);
    content->header[0] = length;
    content->bytes.resize(content->header.size());
  }
}

void DigestHeaders(Case* test) {
  for (auto& content : test->contents) {
    if (content->header.empty()) continue;
    std::copy_n(content->header.begin(), kPrefixBytes, content->bytes.begin());
    std::copy_n(content->bytes.begin(), content->header.size(), content->header.begin());
    Sha256 hash;
    hash.Update(content->header.data(), content->header.size());
    test->manifest.header_digests.push_back(ToHex(hash.Finish()));
  }
}

// Saved base tensors equal the base's where their dtype holds them.
void FillContents(FuzzInput* input, Case* test) {
  test->base.bytes = FiniteBytes(test->base.bytes.size(), input->Any<uint16_t>());
  for (auto& content : test->contents) content->bytes = FiniteBytes(content->bytes.size(), input->Any<uint16_t>());
  for (const SavedBaseTensor& tensor : test->manifest.base_tensors) {
    for (int64_t i = 0; i < tensor.saved.rows * tensor.saved.cols; ++i) {
      const float value = LoadUnaligned(
          {test->base.bytes.data() + tensor.expected.offset, tensor.expected.dtype, 1, tensor.expected.cols}, i);
      uint8_t bits[4];
      StoreFromFloat(bits, tensor.saved.dtype, 0, value);
      const size_t size = SizeOf(tensor.saved.dtype);
      std::memcpy(test->contents[0]->bytes.data() + tensor.saved.offset + i * static_cast<int64_t>(size), bits, size);
    }
  }
  DigestHeaders(test);
  for (auto& content : test->contents) {
    for (int count = input->Range(0, 5) - 3; count > 0 && !content->bytes.empty(); --count)
      content->bytes[input->Any<uint16_t>() % content->bytes.size()] = input->Byte();
    if (input->OneIn(8))
      content->bytes.resize(content->bytes.size() - std::min<size_t>(content->bytes.size(), input->Byte()));
    content->file.Write(content->bytes);
  }
  test->base.file.Write(test->base.bytes);
}

void ReadCase(FuzzInput* input, Case* test) {
  std::vector<FuzzInput> spoilers;
  for (int count = input->Range(0, 5) - 2; count > 0; --count) spoilers.push_back(input->Part(12));
  for (int count = input->Range(1, 4); count > 0; --count)
    test->shapes.push_back({input->Range(1, 150), input->Range(1, 150)});
  for (int count = input->Range(1, 2); count > 0; --count) test->contents.push_back(std::make_unique<Content>());
  if (input->Bool()) AddHeaders(input, test);
  for (int32_t number = 0; number < static_cast<int32_t>(test->shapes.size()); ++number) {
    if (input->OneIn(3)) continue;
    const SiteShape& shape = test->shapes[static_cast<size_t>(number)];
    AdapterSite site{number, input->Range(1, 20), 0.5f, {}, {}};
    for (const bool is_a : {true, false}) {
      const auto file = static_cast<size_t>(input->Byte()) % test->contents.size();
      TensorRange& range = is_a ? site.a : site.b;
      range = AddMatrix(input, test->contents[file].get(), is_a ? site.rank : shape.out, is_a ? shape.in : site.rank);
      range.file = static_cast<int32_t>(file);
    }
    test->manifest.sites.push_back(site);
  }
  for (int count = input->Range(0, 4) - 2; count > 0; --count) AddBaseTensor(input, test);
  FillContents(input, test);
  for (const auto& content : test->contents) test->manifest.files.push_back(content->file.path());
  test->manifest.canonical_config = input->Text(8);
  for (FuzzInput& spoiler : spoilers) SpoilManifest(&spoiler, &test->manifest);
}

bool IsInside(const TensorRange& r, const std::vector<const Content*>& files) {
  if (r.file < 0 || static_cast<size_t>(r.file) >= files.size() || r.rows < 1 || r.cols < 1 || r.offset < 0)
    return false;
  const __int128 bytes = __int128{r.rows} * r.cols * (r.dtype == DType::kF32 ? 4 : 2);
  return bytes == r.bytes &&
         __int128{r.offset} + bytes <= static_cast<__int128>(files[static_cast<size_t>(r.file)]->bytes.size());
}

std::vector<float> Values(const TensorRange& range, const Content& content) {
  std::vector<float> values;
  for (int64_t i = 0; i < range.rows * range.cols; ++i)
    values.push_back(LoadUnaligned({content.bytes.data() + range.offset, range.dtype, range.rows, range.cols}, i));
  return values;
}

// What is wrong with the case; empty: it is sound. Any of these may be what is reported.
std::set<std::string> Faults(const Case& test) {
  std::set<std::string> faults;
  std::vector<const Content*> files;
  for (const auto& content : test.contents) {
    files.push_back(content.get());
    const std::vector<uint8_t>&header = content->header, &bytes = content->bytes;
    if (bytes.size() < header.size() || !std::equal(header.begin(), header.end(), bytes.begin()))
      faults.insert(kErrAdapterChanged);
  }
  int64_t last = -1;
  for (const AdapterSite& site : test.manifest.sites) {
    const bool exists = site.site > last && site.site < static_cast<int32_t>(test.shapes.size());
    last = std::max<int64_t>(last, site.site);
    const SiteShape shape = exists ? test.shapes[static_cast<size_t>(site.site)] : SiteShape{};
    if (!exists || site.rank < 1 || site.rank > 256 || !std::isfinite(site.scale) || site.a.rows != site.rank ||
        site.a.cols != shape.in || site.b.rows != shape.out || site.b.cols != site.rank)
      faults.insert(kErrAdapterShape);
    for (const TensorRange& range : {site.a, site.b}) {
      if (!IsInside(range, files)) {
        faults.insert(kErrTensorRange);
        continue;
      }
      for (const float value : Values(range, *files[static_cast<size_t>(range.file)])) {
        if (!std::isfinite(value)) faults.insert(kErrAdapterNotFinite);
      }
    }
  }
  for (const auto& [name, saved, expected] : test.manifest.base_tensors) {
    if (!IsInside(saved, files) || !IsInside(expected, {&test.base})) {
      faults.insert(kErrTensorRange);
    } else if (saved.rows != expected.rows || saved.cols != expected.cols ||
               Values(saved, *files[static_cast<size_t>(saved.file)]) != Values(expected, test.base)) {
      faults.insert(kErrAdapterBaseTensor);
    }
  }
  return faults;
}

// Values as tiles of `dtype` hold them; false if one is beyond it.
bool Round(std::vector<float>* values, DType dtype) {
  bool is_finite = true;
  for (float& value : *values) {
    uint8_t bits[4];
    StoreFromFloat(bits, dtype, 0, value);
    value = LoadUnaligned({bits, dtype, 1, 1}, 0);
    is_finite &= std::isfinite(value);
  }
  return is_finite;
}

// The most that rounding `value` to f32 changes it: half a step, of a normal number or of a subnormal one.
double RoundingError(double value) { return std::fabs(value) * FLT_EPSILON / 2 + double{FLT_TRUE_MIN} / 2; }

// One row, zero but for a one at `column`, through a base of zeros and the adapter: y = scale · B · A[:, column].
void CheckProduct(const Case& test, const AdapterSite& site, Ops* ops, const AdapterResidency& residency,
                  int64_t column) {
  const SiteShape& shape = test.shapes[static_cast<size_t>(site.site)];
  std::vector<uint8_t> zeros(static_cast<size_t>(ops->PackedBytes(DType::kF32, shape.out, shape.in)));
  const Weight weight{DType::kF32, shape.out, shape.in, zeros.data(), nullptr};
  std::vector<float> x(static_cast<size_t>(shape.in)), y(static_cast<size_t>(shape.out), NAN);
  x[static_cast<size_t>(column)] = 1;
  const int32_t entry_row = 0, segment_start[] = {0, 1}, segment_slot = 0;
  const float entry_weight = 1;
  const EntriesView entries{1, &entry_row, &entry_weight, 1, segment_start, &segment_slot};
  const AdapterPages pages = residency.Pages();
  const Product product{&weight, F32View(y.data(), 1, shape.out), site.site, false};
  ops->Project({F32View(x.data(), 1, shape.in), {&product, 1}, &entries, &pages});
  FUZZ_CHECK(ops->Synchronize().ok(), "Synchronize");
  std::vector<float> a = Values(site.a, *test.contents[static_cast<size_t>(site.a.file)]);
  std::vector<float> b = Values(site.b, *test.contents[static_cast<size_t>(site.b.file)]);
  Round(&a, residency.format().dtype);
  Round(&b, residency.format().dtype);
  for (int64_t out = 0; out < shape.out; ++out) {
    double sum = 0, magnitude = 0, tolerance = 0;
    bool has_overflown = false;
    for (int32_t r = 0; r < site.rank; ++r) {
      const double h = double{site.scale} * a[static_cast<size_t>(r * shape.in + column)];
      const double of_b = b[static_cast<size_t>(out * site.rank + r)];
      sum += h * of_b;
      magnitude += std::fabs(h * of_b);
      tolerance += RoundingError(h) * std::fabs(of_b);
      has_overflown |= std::fabs(h) > FLT_MAX;
    }
    // h is rounded once, or not at all by the reference; y at most twice for each rank, of what is summed.
    tolerance += site.rank * 2 * RoundingError(magnitude + tolerance);
    has_overflown |= magnitude > FLT_MAX;
    FUZZ_CHECK(has_overflown || std::fabs(y[static_cast<size_t>(out)] - sum) <= tolerance,
               "site %d, output %lld is %g, the files say %g", site.site, static_cast<long long>(out),
               double{y[static_cast<size_t>(out)]}, sum);
  }
}

bool FitsTiles(const Case& test, DType dtype) {
  bool fits = true;
  for (const AdapterSite& site : test.manifest.sites) {
    std::vector<float> a = Values(site.a, *test.contents[static_cast<size_t>(site.a.file)]);
    std::vector<float> b = Values(site.b, *test.contents[static_cast<size_t>(site.b.file)]);
    fits &= Round(&a, dtype);
    fits &= Round(&b, dtype);
  }
  return fits;
}

void LoadAdapter(FuzzInput* input, Case* test) {
  std::unique_ptr<Ops> ops = CreateReferenceOps();
  if (input->Bool()) FUZZ_CHECK(CreateCpuOps(SimdLevel::kScalar, 1, &ops).ok(), "no scalar ops");
  CpuDevice device;
  FramePool pool;
  FUZZ_CHECK(pool.Open(&device, kFrameBytes, 0, 160, true).ok(), "no memory for frames");
  const DType dtype = input->Pick(kDTypes);
  const TileFormat format{ops.get(), dtype, kFrameBytes};
  AdapterStore store(format, test->shapes, {test->base.file.path()}, {}, &device);
  const std::atomic<bool> is_cancelled{false};
  AdapterContent content;
  FUZZ_CHECK(store.Check(test->manifest, is_cancelled, &content).ok(), "what was sound is not");
  EvictionOrder order(&pool);
  AdapterResidency residency(&pool, &order, format, test->shapes);
  Adapter* adapter = residency.Add(1);
  residency.SetChecked(adapter, std::move(content));
  if (!residency.Reserve(adapter)) {
    FUZZ_CHECK(adapter->frames_needed > pool.frames_free(), "frames are free and refused");
    return;
  }
  const bool is_changed = input->OneIn(6) && !test->contents[0]->bytes.empty();
  if (is_changed) {
    Content& spoiled = *test->contents[0];
    spoiled.bytes.pop_back();
    spoiled.file.Write(spoiled.bytes);
  }
  LoadedAdapter loaded;
  StoreReport report;
  const Status filled =
      store.Load(adapter->content, adapter->frames, pool, [](int64_t) { return true; }, &loaded, &report);
  residency.FinishLoad(adapter, filled.ok() ? &loaded : nullptr, 1);
  if (is_changed) {
    FUZZ_CHECK(filled.code() == std::string(kErrAdapterChanged), "a changed file gives '%s'", filled.code());
  } else {
    FUZZ_CHECK(filled.ok() == FitsTiles(*test, dtype), "%s %s", filled.code(), filled.message().c_str());
    FUZZ_CHECK(filled.ok() || filled.code() == std::string(kErrAdapterNotFinite), "%s", filled.code());
  }
  if (filled.ok()) {
    for (const AdapterSite& site : test->manifest.sites)
      CheckProduct(*test, site, ops.get(), residency, input->Any<uint16_t>() % site.a.cols);
    residency.Evict(adapter, 1);
  }
  pool.Reclaim(1);
  FUZZ_CHECK(pool.IsConsistent() && pool.frames_free() == pool.frames_total(), "frames are lost");
}

void Run(FuzzInput input) {
  Case test;
  ReadCase(&input, &test);
  const std::set<std::string> faults = Faults(test);
  AdapterIdentity identity;
  const std::atomic<bool> is_cancelled{false};
  const Status checked = CheckAdapter(test.manifest, test.shapes, {test.base.file.path()}, is_cancelled, &identity);
  FUZZ_CHECK(checked.ok() == faults.empty(), "'%s' %s, the model finds %zu faults", checked.code(),
             checked.message().c_str(), faults.size());
  FUZZ_CHECK(checked.ok() || faults.contains(checked.code()), "'%s' %s", checked.code(), checked.message().c_str());
  if (!checked.ok()) return;
  FUZZ_CHECK(identity.files.size() == test.contents.size(), "identity");
  LoadAdapter(&input, &test);
}

}  // namespace
}  // namespace openlora::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  openlora::fuzz::Run({data, size});
  return 0;
}
