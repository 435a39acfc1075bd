# openlora_gpu_tests: the tests of kernels in test/cuda on a GPU. Host code is plain C++; kernels are the images of
# cuda_images.cmake, the runtime is static. Without a driver it starts, says so and ends with status 77.

if(NOT OPENLORA_CUDA_IMAGES)
  include(cmake/cuda_images.cmake)
endif()

find_library(cuda_runtime NAMES libcudart_static.a REQUIRED NO_DEFAULT_PATH
  PATHS "${OPENLORA_CUDA_TOOLKIT}" PATH_SUFFIXES lib lib64 targets/x86_64-linux/lib targets/sbsa-linux/lib)
find_path(cuda_include NAMES cuda_runtime_api.h REQUIRED NO_DEFAULT_PATH
  PATHS "${OPENLORA_CUDA_TOOLKIT}" PATH_SUFFIXES include targets/x86_64-linux/include targets/sbsa-linux/include)

# The machine, and the op table that launches kernels on it.
file(GLOB cuda_gpu_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/gpu/*.cc" "${PROJECT_SOURCE_DIR}/cuda/ops/*.cc")
add_library(openlora_cuda_gpu STATIC ${cuda_gpu_sources})
target_compile_definitions(openlora_cuda_gpu PUBLIC DEV_GPU_HOST)
target_include_directories(openlora_cuda_gpu PUBLIC "${PROJECT_SOURCE_DIR}/cuda" "${PROJECT_SOURCE_DIR}/cpp")
target_include_directories(openlora_cuda_gpu SYSTEM PRIVATE "${cuda_include}")
target_link_libraries(openlora_cuda_gpu PUBLIC "${cuda_runtime}" Threads::Threads ${CMAKE_DL_LIBS} rt
  PRIVATE openlora_core openlora_warnings)

file(GLOB cuda_gpu_test_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/test/cuda/*_test.cc")
list(FILTER cuda_gpu_test_sources EXCLUDE REGEX "/machine_test\\.cc$") # of the simulator
# Without GoogleTest: test/gpu/gtest/gtest.h is what they need of it.
add_executable(openlora_gpu_tests "${PROJECT_SOURCE_DIR}/test/gpu/main.cc" ${cuda_gpu_test_sources})
target_include_directories(openlora_gpu_tests PRIVATE
  "${PROJECT_SOURCE_DIR}/test/gpu" "${PROJECT_SOURCE_DIR}/test" "${PROJECT_SOURCE_DIR}/test/native")
target_link_libraries(openlora_gpu_tests PRIVATE openlora_cuda_gpu openlora_core openlora_warnings)
if(TARGET openlora_cuda_images)
  add_dependencies(openlora_gpu_tests openlora_cuda_images)
endif()

# openlora_gpu_bench from bench/gpu: what the kernels reach.
add_executable(openlora_gpu_bench "${PROJECT_SOURCE_DIR}/bench/gpu/kernel_bench.cc")
target_include_directories(openlora_gpu_bench PRIVATE
  "${PROJECT_SOURCE_DIR}/test/gpu" "${PROJECT_SOURCE_DIR}/test" "${PROJECT_SOURCE_DIR}/test/native")
target_link_libraries(openlora_gpu_bench PRIVATE openlora_cuda_gpu openlora_core openlora_warnings)
