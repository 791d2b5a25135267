# GPUs. The host's side is part of the library; the kernels and the CUDA runtime make up libfllm_cuda, which is loaded
# when the engine cuda is asked for, so that libfllm depends on nothing of CUDA's.
target_sources(fllm_objects PRIVATE
  cuda/host/device.cpp cuda/host/device_filters.cpp cuda/host/device_table.cpp cuda/host/item_room.cpp
  cuda/host/staging.cpp cuda/host/device_scan.cpp cuda/host/library.cpp cuda/host/cuda_engine.cpp)
target_link_libraries(fllm_objects PUBLIC ${CMAKE_DL_LIBS})

if(FLLM_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 86 89 90a 120)
  endif()
  enable_language(CUDA)
  add_library(fllm_cuda SHARED cuda/driver.cu)
  target_include_directories(fllm_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  # Older CMakes do not know that nvcc has C++20.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set_target_properties(fllm_cuda PROPERTIES CUDA_STANDARD 20 CUDA_RUNTIME_LIBRARY Static)
endif()

# The same source on an emulation of the runtime, for tests where there is no GPU.
if(FLLM_BUILD_TESTS)
  add_library(fllm_cuda_emulated SHARED cuda/emulation/driver.cpp)
  target_include_directories(fllm_cuda_emulated PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_options(fllm_cuda_emulated PRIVATE -Wall -Wextra -ffp-contract=off)
  if(FLLM_SANITIZE)
    target_compile_options(fllm_cuda_emulated PRIVATE -fsanitize=${FLLM_SANITIZE} -fno-sanitize-recover=all -g)
    target_link_options(fllm_cuda_emulated PRIVATE -fsanitize=${FLLM_SANITIZE})
  endif()
endif()
