#include "ops/backend.h"

#include "device/errors.h"

namespace openlora {

bool IsForCuda() { return false; }

Status CheckCuda() { return Status(kErrCudaDriver, "this openlora.node computes on CPUs: it was built without CUDA"); }

Status OpenCuda(const std::string&, WeightFormat, const std::string&, CudaBackend*) { return CheckCuda(); }

Status MeasureCudaCopies(const std::string&, int, std::string*, std::vector<double>*) { return CheckCuda(); }

Status MeasureCudaOps(const CudaBenchOptions&, const std::function<void(const std::string&)>&,
                      const std::function<void(const CudaOpResult&)>&) {
  return CheckCuda();
}

}  // namespace openlora
