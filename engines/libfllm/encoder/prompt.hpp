// From an item's text to token ids: the prompt template, truncation and padding, as fllm_export.prompt does it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "encoder/json_field.hpp"
#include "encoder/tokenizer.hpp"

namespace fllm {

using TokenIds = std::vector<TokenId>;

class Prompt {
 public:
  // Reads the field "prompt" of a manifest. Throws Error(Status::bundle): it is incomplete or has no meaning.
  explicit Prompt(const JsonObject& manifest);

  // An item's token ids, max_length of them at most. Only the item's own text is ever shortened.
  // Throws Error(Status::usage): the text is blank or not UTF-8, or the template leaves no room for any text.
  TokenIds tokenize(const Tokenizer& tokenizer, std::string_view text, std::size_t number) const;

  std::size_t max_length() const { return max_length_; }

  // Token ids and attention mask, [items, longest], padded on the side that the model expects.
  struct Batch {
    std::size_t items, longest;
    std::vector<std::int64_t> input_ids, attention_mask;
  };
  Batch batch(std::span<const TokenIds* const> ids) const;

 private:
  TokenIds truncate(const std::vector<Token>& tokens, std::size_t text_start, std::size_t text_end) const;

  GlyphText before_, after_;  // the template around the text
  std::size_t max_length_ = 0;
  bool pad_left_ = false;
  TokenId pad_id_ = 0;
};

}  // namespace fllm
