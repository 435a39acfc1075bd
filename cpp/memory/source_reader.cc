#include "memory/source_reader.h"

#include <algorithm>
#include <cmath>

namespace openlora {
namespace {

constexpr int64_t kSkipBytes = 1 << 20;

Status OpenUnchanged(const std::string& path, const FileIdentity& checked, File* file) {
  const Status status = File::Open(path, file);
  if (!status.ok()) return Status(kErrAdapterChanged, status.message());
  if (file->identity() == checked) return Ok();
  return Error(kErrAdapterChanged,
               "%s is not the file that was registered: %lld bytes, %lld were checked (or it was written since)",
               path.c_str(), static_cast<long long>(file->size()), static_cast<long long>(checked.size));
}

}  // namespace

Status SourceReader::Open() {
  files_.resize(source_.files.size());
  is_proved_.assign(files_.size(), false);
  for (size_t i = 0; i < files_.size(); ++i)
    OPENLORA_RETURN_IF_ERROR(OpenUnchanged(source_.manifest.files[i], source_.files[i].identity, &files_[i]));
  return Ok();
}

Status SourceReader::Read(const TensorRange& range, std::vector<float>* values) {
  const File& file = files_[static_cast<size_t>(range.file)];
  OPENLORA_RETURN_IF_ERROR(CheckRange(range, file.size(), file.path()));
  if (range.file != file_ || range.offset < at_) {
    OPENLORA_RETURN_IF_ERROR(End());
    Begin(range.file);
  }
  OPENLORA_RETURN_IF_ERROR(SkipTo(range.offset));
  if (!pace_(range.bytes)) return Status(kErrAborted, "loading was aborted");
  const auto count = static_cast<size_t>(range.rows * range.cols);
  values->resize(count);
  if (range.dtype == DType::kF32) {
    OPENLORA_RETURN_IF_ERROR(ReadHashed(values->data(), range.bytes));
  } else {
    buffer_.resize(static_cast<size_t>(range.bytes));
    OPENLORA_RETURN_IF_ERROR(ReadHashed(buffer_.data(), range.bytes));
    const auto* raw = reinterpret_cast<const uint16_t*>(buffer_.data());
    for (size_t i = 0; i < count; ++i)
      (*values)[i] = range.dtype == DType::kF16 ? F16ToFloat(raw[i]) : BF16ToFloat(raw[i]);
  }
  const auto found = std::find_if_not(values->begin(), values->end(), [](float value) { return std::isfinite(value); });
  return found == values->end() ? Ok() : NotFinite(file.path(), range, found - values->begin());
}

Status SourceReader::Finish() {
  OPENLORA_RETURN_IF_ERROR(End());
  for (size_t i = 0; i < files_.size(); ++i) {
    if (is_proved_[i]) continue;
    Begin(static_cast<int32_t>(i));
    OPENLORA_RETURN_IF_ERROR(End());
  }
  return Ok();
}

Status SourceReader::ReadHashed(void* data, int64_t bytes) {
  const auto i = static_cast<size_t>(file_);
  const Status status = files_[i].ReadAt(at_, data, static_cast<size_t>(bytes));
  if (!status.ok()) {
    File again;  // it may have been cut meanwhile
    OPENLORA_RETURN_IF_ERROR(OpenUnchanged(files_[i].path(), source_.files[i].identity, &again));
    return status;
  }
  hash_.Update(data, static_cast<size_t>(bytes));
  at_ += bytes;
  return Ok();
}

Status SourceReader::SkipTo(int64_t offset) {
  while (at_ < offset) {
    const int64_t bytes = std::min(kSkipBytes, offset - at_);
    if (!pace_(bytes)) return Status(kErrAborted, "loading was aborted");
    buffer_.resize(static_cast<size_t>(bytes));
    OPENLORA_RETURN_IF_ERROR(ReadHashed(buffer_.data(), bytes));
  }
  return Ok();
}

void SourceReader::Begin(int32_t file) {
  file_ = file;
  at_ = 0;
  hash_ = {};
}

// Of the file that is being read, if there is one.
Status SourceReader::End() {
  if (file_ < 0) return Ok();
  const auto i = static_cast<size_t>(file_);
  OPENLORA_RETURN_IF_ERROR(SkipTo(files_[i].size()));
  file_ = -1;
  files_[i].DoneWith();
  if (hash_.Finish() != source_.files[i].digest)
    return Error(kErrAdapterChanged, "%s is not what was registered: its content has another SHA-256",
                 files_[i].path().c_str());
  is_proved_[i] = true;
  return Ok();
}

}  // namespace openlora
