# libFuzzer targets. Run one for two minutes from a copy of its seeds, which it adds to:
#   cp -r fuzz/corpus/shard /tmp/shard && build/shard_fuzzer -max_total_time=120 /tmp/shard
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "FLLM_BUILD_FUZZERS needs Clang, found ${CMAKE_CXX_COMPILER_ID}. Set CMAKE_CXX_COMPILER=clang++.")
endif()

foreach(name shard layout)
  # The library's sources once more, as the fuzzer must see their branches.
  add_executable(${name}_fuzzer fuzz/${name}_fuzzer.cpp
    src/status.cpp src/format/codec.cpp src/format/json_text.cpp src/format/layout.cpp src/format/safetensors.cpp
    src/format/shard.cpp)
  target_include_directories(${name}_fuzzer PRIVATE src ${CMAKE_CURRENT_SOURCE_DIR})
  target_include_directories(${name}_fuzzer SYSTEM PRIVATE ${NLOHMANN_JSON_INCLUDE_DIR})
  target_compile_options(${name}_fuzzer PRIVATE
    -Wall -Wextra -Wpedantic -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
  target_link_options(${name}_fuzzer PRIVATE -fsanitize=fuzzer,address,undefined)
endforeach()
