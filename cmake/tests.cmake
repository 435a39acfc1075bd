# openlora_tests: one GoogleTest program from test/native/**/*_test.cc.

file(GLOB_RECURSE test_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/test/native/*.cc")
if(NOT test_sources)
  message(STATUS "openlora: test/native is empty, openlora_tests left out")
  return()
endif()

if(OPENLORA_SANITIZE STREQUAL "thread")
  # Those that run more than one thread.
  list(FILTER test_sources INCLUDE REGEX
    "/(base|engine|ops)/|/cpu/elementwise_test|/memory/adapter_(manifest|store|store_process)_test|/model/weight_cache_test")
endif()

# A cross build compiles GoogleTest too: Debian ships its source beside the library.
set(gtest_source /usr/src/googletest)
if(CMAKE_CROSSCOMPILING AND EXISTS "${gtest_source}/CMakeLists.txt")
  set(BUILD_GMOCK OFF CACHE BOOL "" FORCE)
  set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
  add_subdirectory("${gtest_source}" "${CMAKE_BINARY_DIR}/googletest" EXCLUDE_FROM_ALL)
  if(NOT TARGET GTest::gtest_main)
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
else()
  find_package(GTest)
endif()
if(NOT TARGET GTest::gtest_main)
  message(WARNING "openlora: GoogleTest not found (Debian: libgtest-dev): openlora_tests left out")
  return()
endif()

add_executable(openlora_tests ${test_sources})
target_include_directories(openlora_tests PRIVATE "${PROJECT_SOURCE_DIR}/test" "${PROJECT_SOURCE_DIR}/test/native")
target_compile_definitions(openlora_tests PRIVATE OPENLORA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
# Kernels are in the libraries: what is here need not be fast.
target_compile_options(openlora_tests PRIVATE -O1 ${OPENLORA_SANITIZE_TEST_FLAGS})
openlora_precompile(openlora_tests <gtest/gtest.h>)
openlora_batch(openlora_tests)
file(GLOB own_names CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/test/native/cpu/*.cc"
  "${PROJECT_SOURCE_DIR}/test/native/model/*.cc")
set_source_files_properties(${own_names} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
target_link_libraries(openlora_tests PRIVATE openlora_measure openlora_core openlora_warnings GTest::gtest_main)

add_test(NAME openlora_tests COMMAND openlora_tests WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")

if(OPENLORA_SIM)
  include(cmake/sim.cmake)
endif()
if(NOT OPENLORA_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
  include(cmake/cuda_sim.cmake)
endif()
