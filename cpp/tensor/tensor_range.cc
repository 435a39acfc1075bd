#include "tensor/tensor_range.h"

namespace openlora {

Status CheckRange(const TensorRange& range, int64_t file_size, const std::string& path) {
  const int64_t element = static_cast<int64_t>(SizeOf(range.dtype));
  const bool has_shape = range.rows > 0 && range.cols > 0 && range.rows <= INT64_MAX / 8 / range.cols;
  if (!has_shape || range.bytes != range.rows * range.cols * element)
    return Error(kErrTensorRange, "%s: a %s tensor [%lld, %lld] has %lld bytes", path.c_str(), NameOf(range.dtype),
                 static_cast<long long>(range.rows), static_cast<long long>(range.cols),
                 static_cast<long long>(range.bytes));
  if (range.offset < 0 || range.offset > file_size || range.bytes > file_size - range.offset)
    return Error(kErrTensorRange, "%s: a tensor's %lld bytes from byte %lld on lie outside the file of %lld bytes",
                 path.c_str(), static_cast<long long>(range.bytes), static_cast<long long>(range.offset),
                 static_cast<long long>(file_size));
  return Ok();
}

}  // namespace openlora
