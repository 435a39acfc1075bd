# openlora_cuda_images(<target> <toolkit> <folder> [<root>]): device images of <root>/kernels, by default cuda/kernels, in <folder>, compiled by the NVRTC of a
# toolkit (scripts/cuda/fetch.mjs makes such folders). Of each kernel file <stem>: <stem>.sm_90.cubin, …, <stem>.ptx and
# <stem>.names; cuda/images/compile_images.cc describes them. OPENLORA_CUDA_ARCHITECTURES, such as 80,90, makes fewer: the
# whole set takes minutes.

add_executable(openlora_compile_images EXCLUDE_FROM_ALL "${PROJECT_SOURCE_DIR}/cuda/images/compile_images.cc")
target_link_libraries(openlora_compile_images PRIVATE openlora_warnings ${CMAKE_DL_LIBS})

function(openlora_cuda_images target toolkit folder)
  set(root "${PROJECT_SOURCE_DIR}/cuda")
  if(ARGC GREATER 3)
    set(root "${ARGV3}")
  endif()
  file(GLOB nvrtc "${toolkit}/lib/libnvrtc.so.[0-9][0-9]" "${toolkit}/lib64/libnvrtc.so.[0-9][0-9]"
    "${toolkit}/targets/*/lib/libnvrtc.so.[0-9][0-9]")
  if(NOT nvrtc)
    message(FATAL_ERROR "openlora: no libnvrtc under ${toolkit}")
  endif()
  if(CMAKE_CROSSCOMPILING)
    message(FATAL_ERROR "openlora: device images are compiled by a program that runs on this machine, not by a cross build")
  endif()
  list(GET nvrtc 0 nvrtc)
  file(GLOB kernel_files CONFIGURE_DEPENDS "${root}/kernels/*.cuh")
  file(GLOB headers CONFIGURE_DEPENDS
    "${PROJECT_SOURCE_DIR}/cuda/device/*.h" "${PROJECT_SOURCE_DIR}/cuda/device/*.cuh" "${PROJECT_SOURCE_DIR}/cuda/kernels/*.h"
    "${root}/kernels/*.h")
  file(MAKE_DIRECTORY "${folder}")

  set(image_options)
  if(OPENLORA_CUDA_ARCHITECTURES)
    string(REPLACE ";" "," architectures "${OPENLORA_CUDA_ARCHITECTURES}")
    set(image_options --architectures "${architectures}")
  endif()
  if(OPENLORA_CUDA_LINE_INFO)
    list(APPEND image_options --line-info yes)
  endif()

  # One command for each kernel file: NVRTC uses one processor. The table comes with the exit status and goes with it.
  set(names)
  foreach(kernel_file ${kernel_files})
    get_filename_component(stem "${kernel_file}" NAME_WE)
    add_custom_command(
      OUTPUT "${folder}/${stem}.names"
      COMMAND openlora_compile_images --nvrtc "${nvrtc}" --root "${PROJECT_SOURCE_DIR}/cuda" --kernels "${root}"
        --out "${folder}" ${image_options} ${stem} > "${folder}/${stem}.table"
      DEPENDS openlora_compile_images "${nvrtc}" "${kernel_file}" ${headers}
      COMMENT "Compiling device images of ${stem}.cuh"
      VERBATIM)
    list(APPEND names "${folder}/${stem}.names")
  endforeach()
  add_custom_target(${target} DEPENDS ${names})
endfunction()
