# openlora_cuda_tests from test/cuda/*.cc: the CUDA kernels, executed on the CPU by the machine of cuda/sim. A program of its
# own, since its kernels call the hooks of that machine in place of a sanitizer's.

# openlora_sim_kernels(<target> <file.cuh>...): kernel files, every load and store of which is checked. At most -O1: more
# leaves out accesses.
function(openlora_sim_kernels target)
  add_library(${target} OBJECT ${ARGN})
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX)
  target_include_directories(${target} PRIVATE
    "${PROJECT_SOURCE_DIR}/cuda" "${PROJECT_SOURCE_DIR}/test" "${PROJECT_SOURCE_DIR}/bench/gpu")
  target_compile_options(${target} PRIVATE
    -x c++ -O1 -g1 -Wno-unknown-pragmas
    -fsanitize=thread,alignment,bounds,shift,integer-divide-by-zero,signed-integer-overflow
    $<$<CXX_COMPILER_ID:GNU>:--param=tsan-instrument-func-entry-exit=0>)
  target_link_libraries(${target} PRIVATE openlora_warnings)
  if(OPENLORA_CUDA_COVERAGE)
    target_compile_options(${target} PRIVATE --coverage -fprofile-update=atomic)
  endif()
endfunction()

file(GLOB cuda_sim_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/sim/*.cc")
file(GLOB cuda_kernels CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/kernels/*.cuh" "${PROJECT_SOURCE_DIR}/test/cuda/*.cuh"
  "${PROJECT_SOURCE_DIR}/bench/gpu/kernels/*.cuh")
file(GLOB cuda_test_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/test/cuda/*.cc")

add_library(openlora_cuda_sim STATIC ${cuda_sim_sources})
target_include_directories(openlora_cuda_sim PUBLIC "${PROJECT_SOURCE_DIR}/cuda" "${PROJECT_SOURCE_DIR}/cpp")
target_link_libraries(openlora_cuda_sim PRIVATE openlora_warnings)

openlora_sim_kernels(openlora_cuda_kernels ${cuda_kernels})

# The op table, which launches them on that machine.
file(GLOB cuda_ops_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/ops/*.cc"
  "${PROJECT_SOURCE_DIR}/cuda/bench/*.cc")
add_library(openlora_cuda_ops_sim STATIC ${cuda_ops_sources})
target_link_libraries(openlora_cuda_ops_sim PUBLIC openlora_cuda_sim openlora_core PRIVATE openlora_warnings)

add_executable(openlora_cuda_tests ${cuda_test_sources} $<TARGET_OBJECTS:openlora_cuda_kernels>)
target_include_directories(openlora_cuda_tests PRIVATE
  "${PROJECT_SOURCE_DIR}/test" "${PROJECT_SOURCE_DIR}/test/native" "${PROJECT_SOURCE_DIR}/bench/gpu")
openlora_batch(openlora_cuda_tests)
target_link_libraries(openlora_cuda_tests PRIVATE openlora_cuda_ops_sim openlora_warnings GTest::gtest_main)

if(OPENLORA_CUDA_COVERAGE)
  target_link_options(openlora_cuda_tests PRIVATE --coverage)
endif()

add_test(NAME openlora_cuda_tests COMMAND openlora_cuda_tests WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
