// compile_images --nvrtc LIB --root DIR --out DIR [--kernels DIR] [--architectures 80,90] [--line-info yes] [STEM...]
//
// Compiles each DIR/kernels/STEM.cuh (all of them, where none is named) with the NVRTC library LIB into a module of its
// own: OUT/STEM.sm_XX.cubin for each architecture, OUT/STEM.ptx for the newest, and OUT/STEM.names, a line
// `space::Name lowered_name` for each DEV_KERNEL of STEM.h. Prints a table of what each kernel uses, then the
// architectures for which all is fine. Exit status 1, and no names, where the compiler says anything, a kernel spills,
// or the .h and the .cuh have different kernels. With --kernels the files are those of its folder `kernels`, which may
// include the root's headers. With line info, for compute-sanitizer and profilers, an image is twice
// as large.

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace openlora {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "compile_images: %s\n", message.c_str());
  std::exit(1);
}

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail("can't read " + path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void WriteFile(const fs::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) Fail("can't write " + path.string());
}

// An architecture of which images are made, and the first major version of NVRTC that they are made with: 10.3 and
// 12.1 run the images of 10.0 and 12.0 as well.
struct Target {
  int architecture;
  int nvrtc_major;
};
constexpr Target kTargets[] = {{80, 12},  {86, 12},  {89, 12},  {90, 12}, {100, 12},
                               {103, 13}, {110, 13}, {120, 12}, {121, 13}};

// The functions of nvrtc.h that are used here; each returns 0 or an error.
struct Nvrtc {
  using Program = struct ProgramOfNvrtc*;
  int major = 0, minor = 0;
  int (*Version)(int*, int*);
  int (*GetNumSupportedArchs)(int*);
  int (*GetSupportedArchs)(int*);
  const char* (*GetErrorString)(int);
  int (*CreateProgram)(Program*, const char* source, const char* name, int headers, const char* const* texts,
                       const char* const* names);
  int (*DestroyProgram)(Program*);
  int (*CompileProgram)(Program, int, const char* const* options);
  int (*AddNameExpression)(Program, const char*);
  int (*GetLoweredName)(Program, const char*, const char** lowered);
  int (*GetProgramLogSize)(Program, size_t*);
  int (*GetProgramLog)(Program, char*);
  int (*GetCUBINSize)(Program, size_t*);
  int (*GetCUBIN)(Program, char*);
  int (*GetPTXSize)(Program, size_t*);
  int (*GetPTX)(Program, char*);
};

template <class Function>
void FindSymbol(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) Fail(std::string("no ") + name + " in this NVRTC");
}

Nvrtc OpenNvrtc(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) Fail(dlerror());
  Nvrtc nvrtc;
  FindSymbol(library, "nvrtcVersion", nvrtc.Version);
  FindSymbol(library, "nvrtcGetNumSupportedArchs", nvrtc.GetNumSupportedArchs);
  FindSymbol(library, "nvrtcGetSupportedArchs", nvrtc.GetSupportedArchs);
  FindSymbol(library, "nvrtcGetErrorString", nvrtc.GetErrorString);
  FindSymbol(library, "nvrtcCreateProgram", nvrtc.CreateProgram);
  FindSymbol(library, "nvrtcDestroyProgram", nvrtc.DestroyProgram);
  FindSymbol(library, "nvrtcCompileProgram", nvrtc.CompileProgram);
  FindSymbol(library, "nvrtcAddNameExpression", nvrtc.AddNameExpression);
  FindSymbol(library, "nvrtcGetLoweredName", nvrtc.GetLoweredName);
  FindSymbol(library, "nvrtcGetProgramLogSize", nvrtc.GetProgramLogSize);
  FindSymbol(library, "nvrtcGetProgramLog", nvrtc.GetProgramLog);
  FindSymbol(library, "nvrtcGetCUBINSize", nvrtc.GetCUBINSize);
  FindSymbol(library, "nvrtcGetCUBIN", nvrtc.GetCUBIN);
  FindSymbol(library, "nvrtcGetPTXSize", nvrtc.GetPTXSize);
  FindSymbol(library, "nvrtcGetPTX", nvrtc.GetPTX);
  if (nvrtc.Version(&nvrtc.major, &nvrtc.minor) != 0) Fail("NVRTC doesn't tell its version");
  return nvrtc;
}

// Those of kTargets for this version, less what an older minor version doesn't know. Ascending.
std::vector<int> DefaultArchitectures(const Nvrtc& nvrtc) {
  int count = 0;
  if (nvrtc.GetNumSupportedArchs(&count) != 0) Fail("NVRTC doesn't tell its architectures");
  std::vector<int> supported(static_cast<size_t>(count));
  if (nvrtc.GetSupportedArchs(supported.data()) != 0) Fail("NVRTC doesn't tell its architectures");
  std::vector<int> architectures;
  for (const Target& target : kTargets) {
    const bool is_known = std::find(supported.begin(), supported.end(), target.architecture) != supported.end();
    if (is_known && nvrtc.major >= target.nvrtc_major) architectures.push_back(target.architecture);
  }
  return architectures;
}

// Handed to NVRTC in memory, by the names that #include has: so an image doesn't depend on where the repository lies.
struct Headers {
  std::vector<std::string> names;
  std::vector<std::string> texts;
};

void ReadHeaders(const fs::path& root, const std::string& folder, Headers& headers) {
  if (!fs::is_directory(root / folder)) Fail((root / folder).string() + " isn't there");
  for (const fs::directory_entry& entry : fs::directory_iterator(root / folder)) {
    const bool is_kernel_file = folder == "kernels" && entry.path().extension() == ".cuh";
    if (!entry.is_regular_file() || is_kernel_file) continue;
    headers.names.push_back(folder + "/" + entry.path().filename().string());
    headers.texts.push_back(ReadFile(entry.path()));
  }
}

// `space::Name` of each DEV_KERNEL(space, Name, Params) outside comments.
std::vector<std::string> KernelsIn(std::string text) {
  for (size_t at = text.find("//"); at != std::string::npos; at = text.find("//", at))
    text.erase(at, text.find('\n', at) - at);
  text.erase(std::remove_if(text.begin(), text.end(), [](char c) { return c == ' ' || c == '\n'; }), text.end());
  constexpr std::string_view kMark = "DEV_KERNEL(";
  std::vector<std::string> kernels;
  for (size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark, at)) {
    at += kMark.size();
    const size_t comma = text.find(',', at), end = text.find(',', comma + 1);
    if (comma == std::string::npos || end == std::string::npos) Fail("a DEV_KERNEL without three arguments");
    kernels.push_back(text.substr(at, comma - at) + "::" + text.substr(comma + 1, end - comma - 1));
  }
  return kernels;
}

struct Module {
  std::string stem;
  std::string source;
  std::vector<std::string> kernels;  // space::Name
};

std::vector<Module> ReadModules(const fs::path& root, const std::vector<std::string>& wanted) {
  std::vector<Module> modules;
  for (const fs::directory_entry& entry : fs::directory_iterator(root / "kernels")) {
    const fs::path& path = entry.path();
    const std::string stem = path.stem().string();
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), stem) == wanted.end()) continue;
    const fs::path kernel_file = fs::path(path).replace_extension(".cuh"),
                   header = fs::path(path).replace_extension(".h");
    if (path.extension() == ".h" && !fs::exists(kernel_file) && !KernelsIn(ReadFile(path)).empty())
      Fail("kernels/" + stem + ".h declares kernels, but there is no " + stem + ".cuh");
    if (path.extension() != ".cuh") continue;
    modules.push_back(
        {stem, ReadFile(path), fs::exists(header) ? KernelsIn(ReadFile(header)) : std::vector<std::string>()});
    if (modules.back().kernels.empty()) Fail("kernels/" + stem + ".h declares no kernel with DEV_KERNEL");
  }
  if (modules.empty() || modules.size() < wanted.size())
    Fail("not all kernel files are in " + (root / "kernels").string());
  std::sort(modules.begin(), modules.end(), [](const Module& a, const Module& b) { return a.stem < b.stem; });
  return modules;
}

struct Usage {
  bool is_kernel = false;  // else a function that wasn't inlined
  int registers = 0;       // of a thread
  int shared_bytes = 0;    // static; what a launch adds isn't known here
  int stack_bytes = 0;
  int spill_bytes = 0;  // stores and loads, in the code
};

// The number that stands before `unit`, 0 without.
int NumberBefore(std::string_view line, std::string_view unit) {
  const size_t end = line.find(unit);
  if (end == std::string_view::npos) return 0;
  size_t begin = end;
  while (begin > 0 && line[begin - 1] >= '0' && line[begin - 1] <= '9') --begin;
  return std::atoi(std::string(line.substr(begin, end - begin)).c_str());
}

// What --ptxas-options=-v prints, by lowered name; `rest` gets every other line.
std::map<std::string, Usage> ParseLog(const std::string& log, std::string& rest) {
  constexpr std::string_view kEntry = "Compiling entry function '", kProperties = "Function properties for ";
  std::map<std::string, Usage> usages;
  std::string entry, function;
  for (size_t begin = 0; begin < log.size();) {
    const size_t end = std::min(log.find('\n', begin), log.size());
    const std::string line = log.substr(begin, end - begin);
    begin = end + 1;
    if (!line.starts_with("ptxas info") && !line.starts_with("ptxas  ")) {
      if (line.find_first_not_of(" \t\r\0") != std::string::npos) rest += line + "\n";
    } else if (const size_t named = line.find(kEntry); named != std::string::npos) {
      entry = line.substr(named + kEntry.size());
      entry.resize(entry.find('\''));
      usages[entry].is_kernel = true;
    } else if (const size_t of = line.find(kProperties); of != std::string::npos) {
      function = line.substr(of + kProperties.size());
    } else if (line.find("bytes stack frame") != std::string::npos) {
      usages[function].stack_bytes = NumberBefore(line, " bytes stack frame");
      usages[function].spill_bytes =
          NumberBefore(line, " bytes spill stores") + NumberBefore(line, " bytes spill loads");
    } else if (line.find(" registers") != std::string::npos) {
      usages[entry].registers = NumberBefore(line, " registers");
      usages[entry].shared_bytes = NumberBefore(line, " bytes smem");
    }
  }
  return usages;
}

struct Image {
  std::string log;
  std::string cubin;
  std::string ptx;
  std::vector<std::string> lowered_names;  // of Module::kernels
};

template <class Size, class Get>
std::string TextOf(Nvrtc::Program program, Size size, Get get) {
  size_t bytes = 0;
  if (size(program, &bytes) != 0) return {};
  std::string text(bytes, '\0');
  if (get(program, text.data()) != 0) return {};
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

std::vector<const char*> PointersTo(const std::vector<std::string>& strings) {
  std::vector<const char*> pointers;
  for (const std::string& string : strings) pointers.push_back(string.c_str());
  return pointers;
}

// No cubin if the compiler found an error, which the log then tells.
Image Compile(const Nvrtc& nvrtc, const Headers& headers, const Module& module, int architecture, bool has_line_info) {
  const std::string file = "kernels/" + module.stem + ".cuh";
  const auto check = [&](int result) {
    if (result != 0) Fail(file + ": " + nvrtc.GetErrorString(result));
  };
  Nvrtc::Program program = nullptr;
  check(nvrtc.CreateProgram(&program, module.source.c_str(), file.c_str(), static_cast<int>(headers.names.size()),
                            PointersTo(headers.texts).data(), PointersTo(headers.names).data()));
  for (const std::string& kernel : module.kernels)
    check(nvrtc.AddNameExpression(program, ("openlora::" + kernel).c_str()));
  const std::string target = "--gpu-architecture=sm_" + std::to_string(architecture);
  std::vector<const char*> options = {target.c_str(), "--std=c++20", "--ptxas-options=-v"};
  if (has_line_info) options.push_back("--generate-line-info");
  const int result = nvrtc.CompileProgram(program, static_cast<int>(options.size()), options.data());
  Image image;
  image.log = TextOf(program, nvrtc.GetProgramLogSize, nvrtc.GetProgramLog);
  if (result != 0) {
    if (image.log.empty()) image.log = nvrtc.GetErrorString(result);
  } else {
    size_t bytes = 0;
    check(nvrtc.GetCUBINSize(program, &bytes));
    image.cubin.resize(bytes);
    check(nvrtc.GetCUBIN(program, image.cubin.data()));
    image.ptx = TextOf(program, nvrtc.GetPTXSize, nvrtc.GetPTX);
    for (const std::string& kernel : module.kernels) {
      const char* lowered = nullptr;
      check(nvrtc.GetLoweredName(program, ("openlora::" + kernel).c_str(), &lowered));
      image.lowered_names.emplace_back(lowered);
    }
  }
  nvrtc.DestroyProgram(&program);
  return image;
}

void PrintUsage(const std::string& name, int architecture, const Usage& usage) {
  std::printf("%-28s sm_%-9d %9d %7d %6d %7d\n", name.c_str(), architecture, usage.registers, usage.shared_bytes,
              usage.stack_bytes, usage.spill_bytes);
}

// Prints a line for each kernel; returns what is wrong.
std::vector<std::string> Report(const Image& image, const Module& module, int architecture) {
  std::string rest;
  std::map<std::string, Usage> usages = ParseLog(image.log, rest);
  std::vector<std::string> problems;
  if (!rest.empty()) problems.push_back("the compiler says:\n" + rest);
  const auto check_spills = [&](const std::string& name, const Usage& usage) {
    if (usage.spill_bytes > 0) problems.push_back(name + " spills " + std::to_string(usage.spill_bytes) + " bytes\n");
  };
  for (size_t i = 0; i < image.lowered_names.size(); ++i) {
    const std::string& name = module.kernels[i];
    const auto found = usages.find(image.lowered_names[i]);
    if (found == usages.end()) {
      problems.push_back("DEV_KERNEL declares " + name + ", which isn't defined\n");
      continue;
    }
    PrintUsage(name, architecture, found->second);
    check_spills(name, found->second);
    usages.erase(found);
  }
  for (const auto& [lowered, usage] : usages) {
    if (usage.is_kernel) problems.push_back("no DEV_KERNEL declares the kernel " + lowered + "\n");
    if (!usage.is_kernel) PrintUsage(lowered, architecture, usage);
    check_spills(lowered, usage);
  }
  return problems;
}

// What an earlier run made of this kernel file.
void RemoveImages(const fs::path& out, const std::string& stem) {
  std::vector<fs::path> old;
  for (const fs::directory_entry& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string(), kind = entry.path().extension().string();
    const bool is_image = kind == ".cubin" || kind == ".ptx" || kind == ".names";
    if (is_image && name.starts_with(stem + ".")) old.push_back(entry.path());
  }
  for (const fs::path& path : old) fs::remove(path);
}

// Returns the architectures for which nothing is wrong. An error of the compiler would be told again for each of them.
std::vector<int> CompileModule(const Nvrtc& nvrtc, const Headers& headers, const Module& module,
                               const std::vector<int>& architectures, bool has_line_info, const fs::path& out) {
  RemoveImages(out, module.stem);
  std::vector<int> fine;
  std::string names;
  for (const int architecture : architectures) {
    const Image image = Compile(nvrtc, headers, module, architecture, has_line_info);
    const std::string target = "sm_" + std::to_string(architecture);
    const std::vector<std::string> problems = Report(image, module, architecture);
    for (const std::string& problem : problems)
      std::fprintf(stderr, "%s kernels/%s.cuh: %s", target.c_str(), module.stem.c_str(), problem.c_str());
    if (image.cubin.empty()) break;
    if (problems.empty()) fine.push_back(architecture);
    WriteFile(out / (module.stem + "." + target + ".cubin"), image.cubin);
    if (architecture != architectures.back()) continue;
    WriteFile(out / (module.stem + ".ptx"), image.ptx);
    for (size_t i = 0; i < module.kernels.size(); ++i)
      names.append(module.kernels[i]).append(" ").append(image.lowered_names[i]).append("\n");
  }
  if (fine.size() == architectures.size()) WriteFile(out / (module.stem + ".names"), names);
  return fine;
}

void PrintArchitectures(const char* what, const std::vector<int>& architectures) {
  std::printf("%s:", what);
  for (const int architecture : architectures) std::printf(" sm_%d", architecture);
  std::printf("\n");
}

struct Options {
  std::string nvrtc;
  std::string root;
  std::string kernels;
  std::string out;
  std::vector<int> architectures;
  bool has_line_info = false;
  std::vector<std::string> stems;
};

Options ParseOptions(const std::vector<std::string>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (!name.starts_with("--")) {
      options.stems.push_back(name);
      continue;
    }
    if (++i == arguments.size()) Fail(name + " needs a value");
    const std::string& value = arguments[i];
    if (name == "--nvrtc") {
      options.nvrtc = value;
    } else if (name == "--root") {
      options.root = value;
    } else if (name == "--kernels") {
      options.kernels = value;
    } else if (name == "--out") {
      options.out = value;
    } else if (name == "--line-info") {
      options.has_line_info = value == "yes";
    } else if (name == "--architectures") {
      for (size_t at = 0; at < value.size(); at = std::min(value.find(',', at), value.size() - 1) + 1)
        options.architectures.push_back(std::atoi(value.c_str() + at));
    } else {
      Fail("no option is called " + name);
    }
  }
  if (options.nvrtc.empty() || options.root.empty() || options.out.empty()) Fail("needs --nvrtc, --root and --out");
  std::sort(options.architectures.begin(), options.architectures.end());
  return options;
}

int Run(const std::vector<std::string>& arguments) {
  const Options options = ParseOptions(arguments);
  const fs::path root = fs::absolute(options.root), out = fs::absolute(options.out);
  const fs::path kernels = options.kernels.empty() ? root : fs::absolute(options.kernels);
  const Nvrtc nvrtc = OpenNvrtc(fs::absolute(options.nvrtc).string());
  Headers headers;
  ReadHeaders(root, "device", headers);
  ReadHeaders(root, "kernels", headers);
  if (kernels != root) ReadHeaders(kernels, "kernels", headers);
  const std::vector<Module> modules = ReadModules(kernels, options.stems);
  const std::vector<int> architectures =
      options.architectures.empty() ? DefaultArchitectures(nvrtc) : options.architectures;
  if (architectures.empty()) Fail("this NVRTC is too old");
  fs::create_directories(out);
  if (chdir("/") != 0)
    Fail("can't leave this folder");  // NVRTC puts its name before the names of files, into the image
  std::printf("NVRTC %d.%d\n", nvrtc.major, nvrtc.minor);
  PrintArchitectures("architectures", architectures);
  std::printf("%-28s %-12s %9s %7s %6s %7s\n", "kernel", "architecture", "registers", "shared", "stack", "spills");
  std::vector<int> fine = architectures;
  for (const Module& module : modules) {
    const std::vector<int> fine_here = CompileModule(nvrtc, headers, module, architectures, options.has_line_info, out);
    std::erase_if(fine, [&](int one) { return std::find(fine_here.begin(), fine_here.end(), one) == fine_here.end(); });
  }
  PrintArchitectures("fine", fine);
  return fine.size() == architectures.size() ? 0 : 1;
}

}  // namespace
}  // namespace openlora

int main(int argc, char** argv) { return openlora::Run(std::vector<std::string>(argv + 1, argv + argc)); }
