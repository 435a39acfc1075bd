# openlora_cuda_images: device images of cuda/kernels in ${PROJECT_BINARY_DIR}/cuda_images, compiled by NVRTC, which is
# found under OPENLORA_CUDA_TOOLKIT (scripts/cuda/fetch.mjs makes such folders). Of each kernel file <stem>:
# <stem>.sm_<architecture>.cubin, <stem>.ptx, <stem>.names, and <stem>.table, which says what each kernel uses.
# cuda/images/compile_images.cc describes them. OPENLORA_CUDA_ARCHITECTURES, such as 80,90, makes fewer: the whole set takes minutes.

file(GLOB cuda_nvrtc
  "${OPENLORA_CUDA_TOOLKIT}/lib/libnvrtc.so.[0-9][0-9]" "${OPENLORA_CUDA_TOOLKIT}/lib64/libnvrtc.so.[0-9][0-9]"
  "${OPENLORA_CUDA_TOOLKIT}/targets/*/lib/libnvrtc.so.[0-9][0-9]")
if(NOT cuda_nvrtc)
  message(FATAL_ERROR "openlora: no libnvrtc under OPENLORA_CUDA_TOOLKIT=${OPENLORA_CUDA_TOOLKIT}")
endif()
if(CMAKE_CROSSCOMPILING)
  message(FATAL_ERROR "openlora: device images are compiled by a program that runs on this machine, not by a cross build")
endif()
list(GET cuda_nvrtc 0 cuda_nvrtc)

add_executable(openlora_compile_images "${PROJECT_SOURCE_DIR}/cuda/images/compile_images.cc")
target_link_libraries(openlora_compile_images PRIVATE openlora_warnings ${CMAKE_DL_LIBS})

file(GLOB cuda_kernel_files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cuda/kernels/*.cuh")
file(GLOB cuda_kernel_headers CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/cuda/device/*.h" "${PROJECT_SOURCE_DIR}/cuda/device/*.cuh" "${PROJECT_SOURCE_DIR}/cuda/kernels/*.h")
set(cuda_images_folder "${PROJECT_BINARY_DIR}/cuda_images")
file(MAKE_DIRECTORY "${cuda_images_folder}")

set(cuda_architecture_options)
if(OPENLORA_CUDA_ARCHITECTURES)
  string(REPLACE ";" "," cuda_architectures "${OPENLORA_CUDA_ARCHITECTURES}")
  set(cuda_architecture_options --architectures "${cuda_architectures}")
endif()

# One command for each kernel file: NVRTC uses one processor. The table comes with the exit status and goes with it.
set(cuda_image_names)
foreach(kernel_file ${cuda_kernel_files})
  get_filename_component(stem "${kernel_file}" NAME_WE)
  add_custom_command(
    OUTPUT "${cuda_images_folder}/${stem}.names"
    COMMAND openlora_compile_images --nvrtc "${cuda_nvrtc}" --root "${PROJECT_SOURCE_DIR}/cuda"
      --out "${cuda_images_folder}" ${cuda_architecture_options} ${stem} > "${cuda_images_folder}/${stem}.table"
    DEPENDS openlora_compile_images "${cuda_nvrtc}" "${kernel_file}" ${cuda_kernel_headers}
    COMMENT "Compiling device images of cuda/kernels/${stem}.cuh"
    VERBATIM)
  list(APPEND cuda_image_names "${cuda_images_folder}/${stem}.names")
endforeach()
add_custom_target(openlora_cuda_images DEPENDS ${cuda_image_names})
