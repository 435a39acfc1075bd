#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "base/status.h"

namespace openlora {

// GB/s of copies within a GPU's memory, one for each round.
using MeasureCopies = Status (*)(const std::string& device, int rounds, std::vector<double>* gbs);

// NativeAddon.bench of src/native/binding.ts: a measurement in a thread of its own, which ends with its environment.
Napi::Value StartBench(const Napi::CallbackInfo& info, MeasureCopies of_gpu);

}  // namespace openlora
