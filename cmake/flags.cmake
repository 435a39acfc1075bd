# Flags that every target of this project shares.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
# The kernels were measured at -O2; our own checks do not depend on NDEBUG.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

# A fused multiply-add where the source has none would break bit-identity between paths: fma only where it is written.
add_compile_options(-ffp-contract=off)

add_library(openlora_warnings INTERFACE)
target_compile_options(openlora_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-qual -Wimplicit-fallthrough
  $<$<BOOL:${OPENLORA_WERROR}>:-Werror>)

if(OPENLORA_SANITIZE)
  # At -O2 gcc 12 spends minutes on the checks of level_avx512.cc alone; at -O1 33 s.
  set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")
  set(sanitize_flags -fsanitize=${OPENLORA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  add_compile_options(${sanitize_flags})
  add_link_options(${sanitize_flags})
  # What takes most of such a build is left out, or not inlined, where it finds least: in tests undefined behaviour of the
  # test itself, in kernels null pointers and the like.
  if(OPENLORA_SANITIZE MATCHES "undefined")
    set(OPENLORA_SANITIZE_TEST_FLAGS -fno-sanitize=undefined)
    set(OPENLORA_SANITIZE_LEVEL_FLAGS -fno-sanitize=null,object-size,pointer-overflow)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND OPENLORA_SANITIZE MATCHES "address")
    add_compile_options(--param=asan-instrumentation-with-call-threshold=50)
  endif()
endif()

# openlora_precompile(<target> <header>...): standard headers and these, read once. Only where the same files are compiled
# a second time: the other builds find an include that is missing.
function(openlora_precompile target)
  if(OPENLORA_SANITIZE OR OPENLORA_FUZZ)
    target_precompile_headers(${target} PRIVATE <algorithm> <atomic> <cmath> <condition_variable> <filesystem> <fstream>
      <functional> <map> <memory> <mutex> <set> <span> <string> <thread> <unordered_map> <unordered_set> <vector> ${ARGN})
  endif()
endfunction()

# openlora_batch(<target>): five files at a time, since headers take most of the time. For tests: names in the unnamed
# namespaces of files must be distinct, of overloads as well, which nothing else would find.
function(openlora_batch target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 5)
  # Included files look like headers, whose types may not have members of unnamed namespaces.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endfunction()
