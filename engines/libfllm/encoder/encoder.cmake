# libfllm_encoder: tokenizers and the encoder. ONNX Runtime is opened at run time; its headers alone are needed here.
find_package(OnnxRuntimeHeaders REQUIRED)

add_library(fllm_encoder SHARED
  encoder/onnx_session.cpp encoder/encoder.cpp encoder/c_encoder.cpp
  src/status.cpp src/format/json_text.cpp src/machine/environment.cpp src/machine/file.cpp src/machine/fork.cpp
  src/machine/thread_count.cpp)
target_link_libraries(fllm_encoder PRIVATE fllm_tokenizer_objects ${CMAKE_DL_LIBS})
target_include_directories(fllm_encoder SYSTEM PRIVATE ${ONNXRUNTIME_INCLUDE_DIR})
target_include_directories(fllm_encoder INTERFACE $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>)

if(NOT FLLM_BUILD_PYTHON)
  set_target_properties(fllm_encoder PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endif()
