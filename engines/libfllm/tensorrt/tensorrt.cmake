# TensorRT's plans. The host's side is part of the library; libfllm_tensorrt alone is linked to TensorRT, or to
# TensorRT-RTX, and is loaded when the engine tensorrt is asked for. It needs libfllm_cuda beside it.
target_sources(fllm_objects PRIVATE
  tensorrt/host/library.cpp tensorrt/host/plan_header.cpp tensorrt/host/plan.cpp tensorrt/host/plan_context.cpp
  tensorrt/host/whole_item.cpp tensorrt/host/exact_rows.cpp tensorrt/host/plan_table.cpp tensorrt/host/lane.cpp
  tensorrt/host/item_search.cpp tensorrt/host/block_sizes.cpp tensorrt/host/head_scan.cpp
  tensorrt/host/tensorrt_engine.cpp)

if(FLLM_TENSORRT_ROOT)
  find_package(CUDAToolkit REQUIRED)  # TensorRT's headers include those of the CUDA runtime
  find_path(FLLM_TENSORRT_HEADERS NvInferRuntime.h PATHS ${FLLM_TENSORRT_ROOT} PATH_SUFFIXES include NO_DEFAULT_PATH)
  find_library(FLLM_TENSORRT_RUNTIME NAMES nvinfer tensorrt_rtx libnvinfer.so.11 libnvinfer.so.10 libtensorrt_rtx.so.1
    PATHS ${FLLM_TENSORRT_ROOT} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
  if(NOT FLLM_TENSORRT_HEADERS OR NOT FLLM_TENSORRT_RUNTIME)
    message(FATAL_ERROR "${FLLM_TENSORRT_ROOT} does not hold TensorRT; expected include/NvInferRuntime.h, and "
      "lib/libnvinfer.so or lib/libtensorrt_rtx.so. Set FLLM_TENSORRT_ROOT to the directory of an unpacked TensorRT.")
  endif()
  add_library(fllm_tensorrt SHARED tensorrt/plan_driver.cpp)
  target_include_directories(fllm_tensorrt PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_include_directories(fllm_tensorrt SYSTEM PRIVATE ${FLLM_TENSORRT_HEADERS} ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(fllm_tensorrt PRIVATE ${FLLM_TENSORRT_RUNTIME})
  set_target_properties(fllm_tensorrt PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
endif()

# The same source on an emulation of TensorRT-RTX and of TensorRT, for tests where there is no GPU.
if(FLLM_BUILD_TESTS)
  foreach(name fllm_tensorrt_emulated fllm_full_tensorrt_emulated)
    add_library(${name} SHARED tensorrt/emulation/driver.cpp)
    target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} tensorrt/emulation)
    target_compile_options(${name} PRIVATE -Wall -Wextra -ffp-contract=off)
    if(FLLM_SANITIZE)
      target_compile_options(${name} PRIVATE -fsanitize=${FLLM_SANITIZE} -fno-sanitize-recover=all -g)
      target_link_options(${name} PRIVATE -fsanitize=${FLLM_SANITIZE})
    endif()
  endforeach()
  target_compile_definitions(fllm_full_tensorrt_emulated PRIVATE FLLM_EMULATE_FULL_TENSORRT)
endif()
