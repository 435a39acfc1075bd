#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"

namespace openlora::cuda_gpu {

// Kernels compiled for devices, as cuda/images/compile_images.cc writes them: modules, one for each kernel file, each
// with an image for every architecture, and one in PTX.
struct Module {
  std::map<int, std::vector<char>> cubins;   // by architecture: 90 for compute capability 9.0
  std::vector<char> ptx;                     // ends in 0
  std::map<std::string, std::string> names;  // "space::Name" to the name within the image
};

struct Images {
  std::map<std::string, Module> modules;  // by the kernel file's stem

  // ERR_IO: the folder can't be read, or holds no images.
  static Status Read(const std::string& folder, Images* images);
};

// The image that a device of compute capability `architecture` runs best: of the same major version the highest minor
// one that isn't above its own, else the PTX; null if there is neither.
const std::vector<char>* ImageFor(const Module& module, int architecture);

}  // namespace openlora::cuda_gpu
