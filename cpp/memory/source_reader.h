#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/file.h"
#include "base/sha256.h"
#include "base/status.h"
#include "memory/manifest_record.h"

namespace openlora {

// Asked before so many bytes are moved; may wait until others can bear it. False: give up.
using Pace = std::function<bool(int64_t bytes)>;

// Reads an adapter's tensors and proves that they are those that were registered: each file is read once from its
// beginning to its end, and its digest is over the very bytes that were given out. So whoever writes to it meanwhile,
// in whatever tick of a clock and with whatever times set afterwards, isn't believed; and whoever links it or changes
// its mode changes nothing. Nothing that was read may be used before Finish has said so. `pace` is asked for each
// tensor, and for each MiB at the most of what is no tensor of the adapter's sites.
class SourceReader {
 public:
  // Of a source and a pace that stay.
  SourceReader(const AdapterSource& source, const Pace& pace) : source_(source), pace_(pace) {}

  // ERR_ADAPTER_CHANGED at once where a file's size, time or inode tells.
  Status Open();
  // As f32, row-major. By file and offset; a step back reads the file once more from its beginning. ERR_ABORTED when
  // told to give up, ERR_ADAPTER_NOT_FINITE on NaN or Inf.
  Status Read(const TensorRange& range, std::vector<float>* values);
  // Reads what is left of each file. ERR_ADAPTER_CHANGED unless all that was read is what was registered.
  Status Finish();

 private:
  Status ReadHashed(void* data, int64_t bytes);
  Status SkipTo(int64_t offset);
  void Begin(int32_t file);
  Status End();

  const AdapterSource& source_;
  const Pace& pace_;
  std::vector<File> files_;
  std::vector<bool> is_proved_;  // by file
  std::vector<uint8_t> buffer_;
  int32_t file_ = -1;  // that is being read, from `at_` on; -1: none
  int64_t at_ = 0;
  Sha256 hash_;  // of its first `at_` bytes
};

}  // namespace openlora
