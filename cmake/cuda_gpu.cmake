# What runs on a GPU, for each toolkit of OPENLORA_CUDA_TOOLKIT: the addon, target openlora_addon_cuda12 or
# openlora_addon_cuda13, as variants/cuda<major>/openlora.node with its images beside it; of the first, openlora_gpu_tests,
# openlora_gpu_kernel and openlora_gpu_decode. Host code is plain C++; kernels are the images of cuda_images.cmake, the runtime is static.

include(cmake/cuda_images.cmake)
file(GLOB cuda_gpu_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/gpu/*.cc" "${PROJECT_SOURCE_DIR}/cuda/ops/*.cc"
  "${PROJECT_SOURCE_DIR}/cuda/bench/*.cc")

# openlora_cuda_variant(<toolkit> <name>): the library openlora_<name>, cuda12 or cuda13; <name> is set.
function(openlora_cuda_variant toolkit name)
  find_library(runtime NAMES libcudart_static.a REQUIRED NO_DEFAULT_PATH NO_CACHE
    PATHS "${toolkit}" PATH_SUFFIXES lib lib64 targets/x86_64-linux/lib targets/sbsa-linux/lib)
  find_path(include NAMES cuda_runtime_api.h REQUIRED NO_DEFAULT_PATH NO_CACHE
    PATHS "${toolkit}" PATH_SUFFIXES include targets/x86_64-linux/include targets/sbsa-linux/include)
  file(STRINGS "${include}/cuda_runtime_api.h" version REGEX "^#define CUDART_VERSION +[0-9]+" LIMIT_COUNT 1)
  string(REGEX REPLACE "^#define CUDART_VERSION +([0-9]+)[0-9][0-9][0-9]$" "\\1" major "${version}")
  set(variant cuda${major})
  set(${name} ${variant} PARENT_SCOPE)
  set(folder "${PROJECT_BINARY_DIR}/variants/${variant}")

  add_library(openlora_${variant} STATIC ${cuda_gpu_sources})
  target_compile_definitions(openlora_${variant} PUBLIC DEV_GPU_HOST)
  target_include_directories(openlora_${variant} PUBLIC "${PROJECT_SOURCE_DIR}/cuda" "${PROJECT_SOURCE_DIR}/cpp")
  target_include_directories(openlora_${variant} SYSTEM PRIVATE "${include}")
  target_link_libraries(openlora_${variant} PUBLIC "${runtime}" openlora_core Threads::Threads ${CMAKE_DL_LIBS} rt
    PRIVATE openlora_warnings)
  if(NOT OPENLORA_CUDA_IMAGES)
    openlora_cuda_images(openlora_images_${variant} "${toolkit}" "${folder}/cuda_images")
    add_dependencies(openlora_${variant} openlora_images_${variant})
  endif()
  if(COMMAND openlora_node_addon)
    openlora_node_addon(openlora_addon_${variant} "${folder}")
    target_link_libraries(openlora_addon_${variant} PRIVATE openlora_${variant})
  endif()
endfunction()

set(cuda_variants)
foreach(toolkit ${OPENLORA_CUDA_TOOLKIT})
  openlora_cuda_variant("${toolkit}" cuda_variant)
  list(APPEND cuda_variants ${cuda_variant})
endforeach()
list(GET cuda_variants 0 cuda_variant)

if(NOT EXISTS "${PROJECT_SOURCE_DIR}/test/gpu") # in the npm package
  return()
endif()

# What kernels are compared with, among the images of the first variant.
if(NOT OPENLORA_CUDA_IMAGES)
  list(GET OPENLORA_CUDA_TOOLKIT 0 toolkit)
  openlora_cuda_images(openlora_images_bench "${toolkit}" "${PROJECT_BINARY_DIR}/variants/${cuda_variant}/cuda_images"
    "${PROJECT_SOURCE_DIR}/bench/gpu")
endif()

# The tests of test/cuda, without GoogleTest: test/gpu/gtest/gtest.h is what they need of it. Without a driver they say so and
# end with status 77.
file(GLOB cuda_gpu_test_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/test/cuda/*_test.cc")
list(FILTER cuda_gpu_test_sources EXCLUDE REGEX "/machine_test\\.cc$") # of the simulator
add_executable(openlora_gpu_tests EXCLUDE_FROM_ALL "${PROJECT_SOURCE_DIR}/test/gpu/main.cc" ${cuda_gpu_test_sources})
target_include_directories(openlora_gpu_tests PRIVATE "${PROJECT_SOURCE_DIR}/test/gpu" "${PROJECT_SOURCE_DIR}/test"
  "${PROJECT_SOURCE_DIR}/test/native" "${PROJECT_SOURCE_DIR}/bench/gpu")
target_link_libraries(openlora_gpu_tests PRIVATE openlora_${cuda_variant} openlora_warnings)
if(TARGET openlora_images_bench)
  add_dependencies(openlora_gpu_tests openlora_images_bench)
endif()

# From bench/gpu: what kernels reach, and whole steps that decode.
foreach(bench kernel decode)
  set(target openlora_gpu_${bench})
  add_executable(${target} EXCLUDE_FROM_ALL "${PROJECT_SOURCE_DIR}/bench/gpu/${bench}_bench.cc")
  target_include_directories(${target} PRIVATE
    "${PROJECT_SOURCE_DIR}/test/gpu" "${PROJECT_SOURCE_DIR}/test" "${PROJECT_SOURCE_DIR}/test/native")
  target_link_libraries(${target} PRIVATE openlora_${cuda_variant} openlora_warnings)
  if(TARGET openlora_images_bench)
    add_dependencies(${target} openlora_images_bench)
  endif()
endforeach()
