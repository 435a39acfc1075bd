# fuzz_<name> from test/fuzz/<name>_fuzz.cc: libFuzzer targets, the whole library under AddressSanitizer and
# UndefinedBehaviorSanitizer. A build of its own (build/fuzz): sanitizers and coverage apply to everything in it.

if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "OPENLORA_FUZZ needs clang, whose libFuzzer drives the targets; the compiler is "
    "${CMAKE_CXX_COMPILER_ID} (${CMAKE_CXX_COMPILER}). scripts/setup installs clang; then configure a new folder with "
    "-DCMAKE_CXX_COMPILER=clang++")
endif()

include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_FLAGS "-fsanitize=fuzzer,address,undefined")
check_cxx_source_compiles("#include <cstddef>
#include <cstdint>
extern \"C\" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }" OPENLORA_HAS_LIBFUZZER)
unset(CMAKE_REQUIRED_FLAGS)
if(NOT OPENLORA_HAS_LIBFUZZER)
  message(FATAL_ERROR "OPENLORA_FUZZ: this clang links no program with -fsanitize=fuzzer,address,undefined; its run "
    "times are in the package libclang-rt-<version>-dev (scripts/setup installs it)")
endif()

# Marshalling reads JavaScript's values: the addon's own sources, against a stub of Node-API.
function(openlora_fuzz_marshal)
  include(cmake/napi.cmake)
  target_sources(fuzz_marshal PRIVATE "${PROJECT_SOURCE_DIR}/cpp/napi/marshal.cc"
    "${PROJECT_SOURCE_DIR}/cpp/napi/object_reader.cc" "${PROJECT_SOURCE_DIR}/test/fuzz/napi_stub.cc")
  target_link_libraries(fuzz_marshal PRIVATE openlora_napi)
endfunction()

function(openlora_fuzz_targets)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/test/fuzz/*_fuzz.cc")
  foreach(source ${sources})
    get_filename_component(name "${source}" NAME_WE)
    string(REGEX REPLACE "_fuzz$" "" name "${name}")
    add_executable(fuzz_${name} "${source}")
    target_include_directories(fuzz_${name} PRIVATE "${PROJECT_SOURCE_DIR}/test")
    target_link_libraries(fuzz_${name} PRIVATE openlora_core openlora_warnings)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  endforeach()
  openlora_fuzz_marshal()
endfunction()

set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")
set(fuzz_flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
add_compile_options(-fsanitize=fuzzer-no-link ${fuzz_flags})
add_link_options(${fuzz_flags})
