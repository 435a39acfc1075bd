# openlora.node from cpp/napi: the target openlora_addon, for CPUs. cuda_gpu.cmake makes those for GPUs.

file(GLOB addon_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/napi/*.cc")
if(NOT addon_sources)
  message(STATUS "openlora: cpp/napi is empty, openlora.node left out")
  return()
endif()

include(cmake/napi.cmake)
if(NOT TARGET openlora_napi)
  return()
endif()

# What the addon's variants share.
add_library(openlora_addon_objects OBJECT ${addon_sources})
target_include_directories(openlora_addon_objects PRIVATE "${PROJECT_SOURCE_DIR}")
target_link_libraries(openlora_addon_objects PRIVATE openlora_measure openlora_core openlora_napi openlora_warnings)

# openlora_node_addon(<target> <folder>): <folder>/openlora.node, but for cuda/ops/backend.h.
function(openlora_node_addon target folder)
  add_library(${target} MODULE $<TARGET_OBJECTS:openlora_addon_objects>)
  target_link_libraries(${target} PRIVATE openlora_measure openlora_core openlora_napi openlora_warnings)
  # cmake-js would have it in a folder Release.
  set_target_properties(${target} PROPERTIES PREFIX "" SUFFIX ".node" OUTPUT_NAME openlora
    LIBRARY_OUTPUT_DIRECTORY "${folder}" LIBRARY_OUTPUT_DIRECTORY_RELEASE "${folder}")

  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    # The C++ run time travels inside, so that only glibc's version decides where the file loads. libgcc stays shared: the
    # static one of gcc 12 needs glibc 2.35 (_dl_find_object), the rest 2.34, and wherever node runs there is a libgcc_s.
    target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL -Wl,--gc-sections
      "-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/addon.map")
    if(NOT OPENLORA_SANITIZE)
      target_link_options(${target} PRIVATE -static-libstdc++)
    endif()
    if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT OPENLORA_SANITIZE)
      target_link_options(${target} PRIVATE -s)
    endif()
  endif()
endfunction()

openlora_node_addon(openlora_addon "${CMAKE_BINARY_DIR}")
target_sources(openlora_addon PRIVATE "${PROJECT_SOURCE_DIR}/cuda/none/backend.cc")
set_source_files_properties("${PROJECT_SOURCE_DIR}/cuda/none/backend.cc" PROPERTIES
  INCLUDE_DIRECTORIES "${PROJECT_SOURCE_DIR}/cuda")
