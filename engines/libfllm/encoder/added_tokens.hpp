// The added tokens of a tokenizer.json: texts that are found before anything else and become one token each.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "encoder/json_field.hpp"
#include "encoder/model.hpp"
#include "encoder/normalizer.hpp"

namespace fllm {

class AddedTokens {
 public:
  // A stretch of a text: an added token, or normalised text in between.
  struct Part {
    GlyphText text;
    std::optional<Token> token;
  };

  // Reads the field "added_tokens". Throws Error(Status::bundle): a token has an id that the tokenizers package would
  // not give it, or a property that libfllm does not know.
  AddedTokens(const JsonObject& tokenizer, const Model& model, const Normalizer& normalizer);

  // Cuts a text at the added tokens and normalises what is in between.
  std::vector<Part> split(const GlyphText& text, const Normalizer& normalizer) const;

 private:
  struct Added {
    std::u32string content;
    TokenId id;
    bool takes_space_before, takes_space_after;
  };
  // By first character, the longest first.
  using Index = std::unordered_map<char32_t, std::vector<Added>>;

  struct Match {
    std::size_t start, end;
    const Added* token;
  };

  static void insert(Index& index, Added token);
  static std::optional<Match> next_match(const Index& index, const GlyphText& text, std::size_t from);
  static std::vector<Part> cut(const Index& index, const GlyphText& text);

  Index in_raw_text_;
  Index in_normalized_text_;
};

}  // namespace fllm
