# openlora_bench from bench/native/*.cc.

file(GLOB bench_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/bench/native/*.cc")
if(NOT bench_sources)
  message(STATUS "openlora: bench/native is empty, openlora_bench left out")
  return()
endif()

add_executable(openlora_bench ${bench_sources})
target_link_libraries(openlora_bench PRIVATE openlora_measure openlora_core openlora_warnings)
