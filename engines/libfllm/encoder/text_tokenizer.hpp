// What a bundle says about texts: its manifest, prompt and tokenizer.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "encoder/prompt.hpp"
#include "encoder/tokenizer.hpp"

namespace fllm {

// Immutable, safe to share between threads.
class TextTokenizer {
 public:
  // Throws Error(Status::bundle): manifest.json or tokenizer.json is missing, damaged, newer, or of an unknown kind.
  explicit TextTokenizer(const std::string& bundle);

  const Prompt& prompt() const { return prompt_; }
  std::size_t dim() const { return dim_; }

  // Token ids of one text; `number` names it in errors.
  TokenIds encode(std::string_view text, std::size_t number) const {
    return prompt_.tokenize(tokenizer_, text, number);
  }

 private:
  TextTokenizer(const std::string& bundle, const JsonObject& manifest);

  Prompt prompt_;
  std::size_t dim_;
  Tokenizer tokenizer_;
};

}  // namespace fllm
