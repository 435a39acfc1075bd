# openlora.node from cpp/napi.

file(GLOB addon_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/napi/*.cc")
if(NOT addon_sources)
  message(STATUS "openlora: cpp/napi is empty, openlora.node left out")
  return()
endif()

include(cmake/napi.cmake)
if(NOT TARGET openlora_napi)
  return()
endif()

add_library(openlora_addon MODULE ${addon_sources})
target_link_libraries(openlora_addon PRIVATE openlora_measure openlora_core openlora_napi openlora_warnings)
# What of CUDA is in it: cmake/cuda_gpu.cmake, or a word that there is none.
target_include_directories(openlora_addon PRIVATE "${PROJECT_SOURCE_DIR}")
if(OPENLORA_CUDA_TOOLKIT)
  target_link_libraries(openlora_addon PRIVATE openlora_cuda_gpu)
else()
  target_sources(openlora_addon PRIVATE "${PROJECT_SOURCE_DIR}/cuda/none/backend.cc")
  set_source_files_properties("${PROJECT_SOURCE_DIR}/cuda/none/backend.cc" PROPERTIES
    INCLUDE_DIRECTORIES "${PROJECT_SOURCE_DIR}/cuda")
endif()
# cmake-js would have it in a folder Release.
set_target_properties(openlora_addon PROPERTIES PREFIX "" SUFFIX ".node" OUTPUT_NAME openlora
  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}" LIBRARY_OUTPUT_DIRECTORY_RELEASE "${CMAKE_BINARY_DIR}")

if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  # The C++ run time travels inside, so that only glibc's version decides where the file loads. libgcc stays shared: the
  # static one of gcc 12 needs glibc 2.35 (_dl_find_object), the rest 2.34, and wherever node runs there is a libgcc_s.
  target_link_options(openlora_addon PRIVATE -Wl,--exclude-libs,ALL -Wl,--gc-sections
    "-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/addon.map")
  if(NOT OPENLORA_SANITIZE)
    target_link_options(openlora_addon PRIVATE -static-libstdc++)
  endif()
  if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT OPENLORA_SANITIZE)
    target_link_options(openlora_addon PRIVATE -s)
  endif()
endif()
