// The post-processor of a tokenizer.json: the tokens around a text, and which spaces count as a token's own.
#pragma once

#include <functional>
#include <vector>

#include "encoder/json_field.hpp"
#include "encoder/model.hpp"

namespace fllm {

class PostProcessor {
 public:
  // Reads the field "post_processor": TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing, or a sequence
  // of these. Throws Error(Status::bundle): one of another kind.
  explicit PostProcessor(const JsonObject& tokenizer);

  void operator()(std::vector<Token>& tokens) const;

 private:
  void add(const JsonObject& step);
  void add_template(const JsonObject& step);
  void add_ends(const JsonObject& step);
  void add_trimming(const JsonObject& step);

  std::vector<std::function<void(std::vector<Token>&)>> steps_;
};

}  // namespace fllm
