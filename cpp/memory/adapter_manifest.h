#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/sha256.h"
#include "base/status.h"
#include "ops/batch_view.h"
#include "tensor/tensor_range.h"

namespace openlora {

inline constexpr char kErrAdapterShape[] = "ERR_ADAPTER_SHAPE";
inline constexpr char kErrAdapterNotFinite[] = "ERR_ADAPTER_NOT_FINITE";
inline constexpr char kErrAdapterChanged[] = "ERR_ADAPTER_CHANGED";
inline constexpr char kErrAdapterBaseTensor[] = "ERR_ADAPTER_BASE_TENSOR";

// How an adapter acts on one site: ΔW = scale · B·A, A [rank, in], B [out, rank].
struct AdapterSite {
  int32_t site = -1;
  int32_t rank = 0;
  float scale = 1;
  TensorRange a;
  TensorRange b;
};

// A base tensor that PEFT saved along: must equal `expected`.
struct SavedBaseTensor {
  std::string name;
  TensorRange saved;
  TensorRange expected;  // in the base's files
};

// One adapter's content as it is registered. What is needed later goes to an AdapterSource (manifest_record.h).
struct AdapterManifest {
  std::vector<std::string> files;  // in the order of their names
  // Of each file the hex SHA-256 of its header, as it was when the ranges below were read from it; none: not compared.
  std::vector<std::string> header_digests;
  std::vector<AdapterSite> sites;  // ascending by site
  std::vector<SavedBaseTensor> base_tensors;
  std::string canonical_config;
};

// A tensor file as it was when it was checked.
struct CheckedFile {
  FileIdentity identity;
  Sha256::Digest digest{};  // of all its bytes
  bool operator==(const CheckedFile&) const = default;
};

// What a complete check of an adapter's files found.
struct AdapterIdentity {
  Sha256::Digest generation{};  // over the canonical config and the files' digests
  std::vector<CheckedFile> files;
};

// Reads every byte of the adapter once: ranges, shapes against the base's sites, NaN and Inf, saved base tensors
// against `base_files`, and the generation. Any thread; `is_cancelled` ends it with ERR_ABORTED within a MiB of
// what it reads.
Status CheckAdapter(const AdapterManifest& manifest, const std::vector<SiteShape>& shapes,
                    const std::vector<std::string>& base_files, const std::atomic<bool>& is_cancelled,
                    AdapterIdentity* identity);

// ERR_ADAPTER_NOT_FINITE for the value at `index` of a tensor.
Status NotFinite(const std::string& path, const TensorRange& range, int64_t index);

}  // namespace openlora
