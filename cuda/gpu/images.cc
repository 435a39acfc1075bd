#include "gpu/images.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace openlora::cuda_gpu {
namespace {

namespace fs = std::filesystem;

Status ReadFile(const fs::path& path, std::vector<char>* bytes) {
  std::ifstream file(path, std::ios::binary);
  bytes->assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (!file || bytes->empty()) return Error(kErrIo, "cannot read the device image %s", path.c_str());
  return Ok();
}

// A line for each kernel: its name, and the one within the image.
Status ReadNames(const fs::path& path, std::map<std::string, std::string>* names) {
  std::ifstream file(path);
  std::string name, lowered;
  while (file >> name >> lowered) (*names)[name] = lowered;
  if (names->empty()) return Error(kErrIo, "no kernels in %s", path.c_str());
  return Ok();
}

}  // namespace

Status Images::Read(const std::string& folder, Images* images) {
  std::error_code failed;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failed)) {
    const fs::path& path = entry.path();
    const std::string stem = path.stem().stem().string(), extension = path.extension().string();
    if (extension == ".names") {
      OPENLORA_RETURN_IF_ERROR(ReadNames(path, &images->modules[stem].names));
    } else if (extension == ".ptx") {
      std::vector<char>& ptx = images->modules[stem].ptx;
      OPENLORA_RETURN_IF_ERROR(ReadFile(path, &ptx));
      if (ptx.back() != 0) ptx.push_back(0);
    } else if (extension == ".cubin") {
      const std::string architecture = path.stem().extension().string();  // ".sm_90"
      const int number = std::atoi(architecture.c_str() + std::string(".sm_").size());
      OPENLORA_RETURN_IF_ERROR(ReadFile(path, &images->modules[stem].cubins[number]));
    }
  }
  if (images->modules.empty()) return Error(kErrIo, "no device images in %s", folder.c_str());
  return Ok();
}

const std::vector<char>* ImageFor(const Module& module, int architecture) {
  const auto above = module.cubins.upper_bound(architecture);
  if (above != module.cubins.begin()) {
    const auto& [best, image] = *std::prev(above);
    if (best / 10 == architecture / 10) return &image;
  }
  return module.ptx.empty() ? nullptr : &module.ptx;
}

}  // namespace openlora::cuda_gpu
