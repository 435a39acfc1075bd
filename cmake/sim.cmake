# openlora_sim from test/sim/*.cc: the seeded simulator, a GoogleTest program of its own, since it needs the engine built
# with simulated time and planted bugs (OPENLORA_SIM), and no kernels.

set(sim_core_sources)
foreach(layer base tensor memory model engine)
  file(GLOB_RECURSE layer_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/${layer}/*.cc")
  list(APPEND sim_core_sources ${layer_sources})
endforeach()
list(FILTER sim_core_sources EXCLUDE REGEX "/cpp/base/check\\.cc$") # test/sim has its own

file(GLOB sim_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/test/sim/*.cc")
add_executable(openlora_sim ${sim_sources} ${sim_core_sources})
target_include_directories(openlora_sim PRIVATE
  "${PROJECT_SOURCE_DIR}/cpp" "${PROJECT_SOURCE_DIR}/test" "${PROJECT_SOURCE_DIR}/test/native")
target_compile_definitions(openlora_sim PRIVATE OPENLORA_SIM OPENLORA_VERSION="${PROJECT_VERSION}")
target_compile_options(openlora_sim PRIVATE -O1) # a copy of the engine that is built in every check
target_link_libraries(openlora_sim PRIVATE Threads::Threads openlora_warnings GTest::gtest)

add_test(NAME openlora_sim COMMAND openlora_sim WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
