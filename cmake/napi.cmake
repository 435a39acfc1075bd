# openlora_napi: the headers of Node-API and node-addon-api, for what includes napi.h. They come from the
# two folders named below, from node_modules, or from cmake-js (CMAKE_JS_INC); nothing is downloaded.

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
if(NOT node_folder)
  openlora_node_folder(node_folder node-api-headers)
endif()
if(NOT node_folder AND CMAKE_JS_INC)
  set(node_folder "${CMAKE_JS_INC}")
endif()
if(NOT napi_folder OR NOT node_folder)
  message(WARNING "openlora: node-addon-api or node-api-headers not found (npm ci installs them): openlora.node and the "
    "fuzz target of marshalling left out")
  return()
endif()

add_library(openlora_napi INTERFACE)
target_include_directories(openlora_napi SYSTEM INTERFACE ${napi_folder} ${node_folder})
target_compile_definitions(openlora_napi INTERFACE
  NAPI_VERSION=9 NAPI_DISABLE_CPP_EXCEPTIONS NODE_ADDON_API_DISABLE_DEPRECATED
  # Without it a worker that is terminated with work in flight aborts the process.
  NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS)
