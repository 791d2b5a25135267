# libFuzzer targets. Run one for two minutes from a copy of its seeds, which it adds to:
#   cp -r fuzz/corpus/shard /tmp/shard && build/shard_fuzzer -max_total_time=120 /tmp/shard
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "FLLM_BUILD_FUZZERS needs Clang, found ${CMAKE_CXX_COMPILER_ID}. Set CMAKE_CXX_COMPILER=clang++.")
endif()

# The sources once more, as the fuzzer must see their branches.
set(server ${CMAKE_CURRENT_SOURCE_DIR}/../../examples/cpp_server)
foreach(name shard layout)
  set(${name}_sources src/status.cpp src/format/json_text.cpp src/format/layout.cpp
    src/format/safetensors.cpp src/format/shard.cpp src/machine/file.cpp)
endforeach()
set(tombstones_sources src/status.cpp src/format/safetensors.cpp src/format/json_text.cpp src/format/tombstones.cpp
  src/machine/file.cpp src/machine/mapping.cpp src/machine/memory.cpp)
set(request_sources ${server}/request.cpp)

foreach(name shard layout tombstones request)
  add_executable(${name}_fuzzer fuzz/${name}_fuzzer.cpp ${${name}_sources})
  target_include_directories(${name}_fuzzer PRIVATE include src ${CMAKE_CURRENT_SOURCE_DIR} ${server})
  target_include_directories(${name}_fuzzer SYSTEM PRIVATE ${NLOHMANN_JSON_INCLUDE_DIR})
  target_compile_options(${name}_fuzzer PRIVATE
    -Wall -Wextra -Wpedantic -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
  target_link_options(${name}_fuzzer PRIVATE -fsanitize=fuzzer,address,undefined)
endforeach()
