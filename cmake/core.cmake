# openlora_core: everything under cpp/ but the addon, and one object library per SIMD level.

set(core_sources)
foreach(layer base tensor ops memory model engine)
  file(GLOB_RECURSE layer_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/${layer}/*.cc")
  list(APPEND core_sources ${layer_sources})
endforeach()
list(FILTER core_sources EXCLUDE REGEX "/cpp/ops/cpu/level_[a-z0-9_]+\\.cc$")
if(NOT core_sources)
  message(FATAL_ERROR "no sources under ${PROJECT_SOURCE_DIR}/cpp")
endif()

add_library(openlora_core STATIC ${core_sources})
target_include_directories(openlora_core PUBLIC "${PROJECT_SOURCE_DIR}/cpp")
target_compile_definitions(openlora_core PUBLIC OPENLORA_VERSION="${PROJECT_VERSION}")
target_link_libraries(openlora_core PUBLIC Threads::Threads PRIVATE openlora_warnings)
openlora_precompile(openlora_core)

# openlora_level(<name> <flags>...): cpp/ops/cpu/level_<name>.cc with its own flags, OPENLORA_HAS_<NAME> for the rest.
function(openlora_level name)
  set(source "${PROJECT_SOURCE_DIR}/cpp/ops/cpu/level_${name}.cc")
  if(NOT EXISTS "${source}")
    message(STATUS "openlora: no ${source}, level ${name} left out")
    return()
  endif()
  set(target openlora_level_${name})
  add_library(${target} OBJECT "${source}")
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/cpp")
  target_compile_options(${target} PRIVATE ${ARGN} ${OPENLORA_SANITIZE_LEVEL_FLAGS})
  target_link_libraries(${target} PRIVATE openlora_warnings)
  target_sources(openlora_core PRIVATE $<TARGET_OBJECTS:${target}>)
  string(TOUPPER "${name}" macro)
  target_compile_definitions(openlora_core PUBLIC OPENLORA_HAS_${macro}=1)
endfunction()

# gcc 12's AVX-512 headers pass undefined values on purpose and warn about it at -O2.
set(false_warnings)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(false_warnings -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

openlora_level(scalar)
if(OPENLORA_SANITIZE MATCHES "address")
  # gcc 12 takes four times as long for its checks at -O1.
  target_compile_options(openlora_level_scalar PRIVATE -O0)
endif()
# gcc 12 takes a minute for the checks of the widest level: left out where it can't run, and under ThreadSanitizer, since a
# race is one at any level.
set(has_wide_levels ON)
if(OPENLORA_SANITIZE AND EXISTS /proc/cpuinfo)
  file(STRINGS /proc/cpuinfo has_wide_levels REGEX " avx512f( |$)" LIMIT_COUNT 1)
endif()
if(OPENLORA_SANITIZE STREQUAL "thread")
  set(has_wide_levels OFF)
endif()
if(OPENLORA_FUZZ)
  # Kernels are not what is fuzzed: without checks the engine's target is several times as fast, and clang 14 would spend
  # minutes on those of the wide levels. Tests run the machine's levels under AddressSanitizer.
  target_compile_options(openlora_level_scalar PRIVATE -fno-sanitize=all -O2)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(avx2_flags -mavx2 -mfma -mf16c)
  openlora_level(avx2 ${avx2_flags})
  set(avx512_flags -mavx512f -mavx512bw -mavx512dq -mavx512vl ${avx2_flags} ${false_warnings})
  if(has_wide_levels)
    openlora_level(avx512 ${avx512_flags})
    openlora_level(avx512vnni -mavx512vnni ${avx512_flags})
    openlora_level(avx512bf16 -mavx512bf16 ${avx512_flags})
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  openlora_level(neon)
  openlora_level(neon_dotprod -march=armv8.2-a+dotprod)
endif()

# openlora_measure: cpp/bench, for the addon and for openlora_bench. Its op cases are those of the tests.
file(GLOB measure_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/bench/*.cc")
add_library(openlora_measure STATIC EXCLUDE_FROM_ALL ${measure_sources})
target_include_directories(openlora_measure PUBLIC "${PROJECT_SOURCE_DIR}/test")
target_compile_options(openlora_measure PRIVATE ${OPENLORA_SANITIZE_TEST_FLAGS})
target_link_libraries(openlora_measure PUBLIC openlora_core PRIVATE openlora_warnings)
