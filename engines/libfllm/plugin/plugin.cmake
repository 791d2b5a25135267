# The scan as a plugin of TensorRT: libfllm_plugin, which TensorRT loads. It needs TensorRT's headers and nothing of its
# libraries.
set(plugin_sources plugin/library.cpp plugin/log.cpp plugin/scan_plugin.cpp plugin/scan_plugin_creator.cpp
  plugin/tile_room.cpp)

if(FLLM_TENSORRT_ROOT AND FLLM_CUDA)
  find_path(tensorrt_include NvInferRuntime.h PATHS ${FLLM_TENSORRT_ROOT}/include NO_DEFAULT_PATH NO_CACHE REQUIRED)
  add_library(fllm_plugin SHARED ${plugin_sources} plugin/tile_scan.cu)
  target_include_directories(fllm_plugin PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_include_directories(fllm_plugin SYSTEM PRIVATE
    ${tensorrt_include} ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(fllm_plugin PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -ffp-contract=off>)
  set_target_properties(fllm_plugin PROPERTIES CUDA_STANDARD 20 CUDA_RUNTIME_LIBRARY Static)
elseif(FLLM_TENSORRT_ROOT)
  message(STATUS "libfllm_plugin is left out: its kernels need FLLM_CUDA=ON and nvcc")
endif()

# The same source on an emulation of TensorRT's interface and of the CUDA runtime.
if(FLLM_BUILD_TESTS)
  add_library(fllm_plugin_emulated OBJECT ${plugin_sources} plugin/emulation/tile_scan.cpp)
  target_include_directories(fllm_plugin_emulated PUBLIC
    ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/plugin/emulation)
  target_compile_options(fllm_plugin_emulated PRIVATE -Wall -Wextra -ffp-contract=off)
  if(FLLM_SANITIZE)
    target_compile_options(fllm_plugin_emulated PRIVATE -fsanitize=${FLLM_SANITIZE} -fno-sanitize-recover=all -g)
  endif()
endif()
