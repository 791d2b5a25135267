// The model of a tokenizer.json: from the pieces of a text to the ids of its tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "encoder/json_field.hpp"
#include "encoder/unicode.hpp"

namespace fllm {

using TokenId = std::int64_t;

struct Token {
  TokenId id;
  std::uint32_t start, end;         // characters of the text that it stands for; both 0 for a token of the template
  std::uint32_t spaces_before = 0;  // leading and trailing spaces of the token's own text
  std::uint32_t spaces_after = 0;
};

// Immutable, safe to share between threads.
class Model {
 public:
  virtual ~Model() = default;

  // The id of a token by its text in the vocabulary, if it is there.
  virtual std::optional<TokenId> id_of(const std::string& token) const = 0;
  virtual std::size_t vocabulary_size() const = 0;

  // Whether it works on bytes, as ByteLevel gives them.
  virtual bool byte_level() const = 0;

  // Appends the tokens of one piece, which is not empty.
  virtual void tokenize(const GlyphText& piece, std::vector<Token>& tokens) const = 0;

  // Reads the field "model": WordPiece or BPE. Throws Error(Status::bundle): another kind, or a damaged one.
  static std::unique_ptr<Model> read(const JsonObject& tokenizer);
};

std::unique_ptr<Model> read_wordpiece(const JsonObject& model);
std::unique_ptr<Model> read_byte_bpe(const JsonObject& model);

}  // namespace fllm
