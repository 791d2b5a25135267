# The tokenizers alone, as objects: they are built and tested without ONNX Runtime's headers.
add_library(fllm_tokenizer_objects OBJECT
  encoder/unicode.cpp encoder/json_field.cpp encoder/normalizer.cpp encoder/split_pattern.cpp
  encoder/pre_tokenizer.cpp encoder/vocabulary.cpp encoder/wordpiece.cpp encoder/byte_bpe.cpp encoder/model.cpp
  encoder/added_tokens.cpp encoder/post_processor.cpp encoder/tokenizer.cpp encoder/prompt.cpp
  encoder/text_tokenizer.cpp)
target_include_directories(fllm_tokenizer_objects PUBLIC
  ${CMAKE_CURRENT_SOURCE_DIR}/include ${CMAKE_CURRENT_SOURCE_DIR}/src ${CMAKE_CURRENT_SOURCE_DIR})
target_include_directories(fllm_tokenizer_objects SYSTEM PUBLIC ${NLOHMANN_JSON_INCLUDE_DIR})
target_compile_options(fllm_tokenizer_objects PUBLIC -Wall -Wextra -Wpedantic)
if(FLLM_SANITIZE)
  target_compile_options(fllm_tokenizer_objects PUBLIC -fsanitize=${FLLM_SANITIZE} -fno-sanitize-recover=all -g)
  target_link_options(fllm_tokenizer_objects PUBLIC -fsanitize=${FLLM_SANITIZE})
endif()
