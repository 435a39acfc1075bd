# openlora.node from cpp/napi. Headers come from cmake-js (CMAKE_JS_INC), from the two folders named below, or from
# node_modules; nothing is downloaded.

file(GLOB addon_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/napi/*.cc")
if(NOT addon_sources)
  message(STATUS "openlora: cpp/napi is empty, openlora.node left out")
  return()
endif()

set(OPENLORA_NODE_ADDON_API "" CACHE PATH "Folder with napi.h; empty = ask node")
set(OPENLORA_NODE_API_HEADERS "" CACHE PATH "Folder with node_api.h; empty = ask node")

# openlora_node_folder(<variable> <module>): include_dir of an installed npm module, or empty.
function(openlora_node_folder variable module)
  execute_process(
    COMMAND node -p "require('path').resolve(require('${module}').include_dir)"
    WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    set(folder "")
  endif()
  set(${variable} "${folder}" PARENT_SCOPE)
endfunction()

set(napi_folder "${OPENLORA_NODE_ADDON_API}")
if(NOT napi_folder)
  openlora_node_folder(napi_folder node-addon-api)
endif()
set(node_folder "${OPENLORA_NODE_API_HEADERS}")
if(NOT node_folder AND CMAKE_JS_INC)
  set(node_folder "${CMAKE_JS_INC}")
endif()
if(NOT node_folder)
  openlora_node_folder(node_folder node-api-headers)
endif()
if(NOT napi_folder OR NOT node_folder)
  message(WARNING "openlora: node-addon-api or node-api-headers not found (npm ci installs them): openlora.node left out")
  return()
endif()

add_library(openlora_addon MODULE ${addon_sources})
target_include_directories(openlora_addon SYSTEM PRIVATE ${napi_folder} ${node_folder})
target_compile_definitions(openlora_addon PRIVATE
  NAPI_VERSION=9 NAPI_DISABLE_CPP_EXCEPTIONS NODE_ADDON_API_DISABLE_DEPRECATED
  # Without it a worker that is terminated with work in flight aborts the process.
  NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS)
target_link_libraries(openlora_addon PRIVATE openlora_measure openlora_core openlora_warnings)
set_target_properties(openlora_addon PROPERTIES PREFIX "" SUFFIX ".node" OUTPUT_NAME openlora)

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
