// A tokenizer.json, as the tokenizers package would run it with padding and truncation switched off.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "encoder/added_tokens.hpp"
#include "encoder/model.hpp"
#include "encoder/normalizer.hpp"
#include "encoder/post_processor.hpp"
#include "encoder/pre_tokenizer.hpp"

namespace fllm {

// Immutable, safe to share between threads. Knows BERT's WordPiece and byte-level BPE; everything else is refused at
// opening, by the name of the field, never tokenised differently.
class Tokenizer {
 public:
  // Throws Error(Status::bundle): the file is missing, damaged, or of a kind that is not known.
  explicit Tokenizer(const std::string& path);

  // The tokens of a text, special tokens included.
  std::vector<Token> encode(const GlyphText& text) const;

 private:
  explicit Tokenizer(const JsonObject& file);

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<Model> model_;
  AddedTokens added_tokens_;
  PostProcessor post_processor_;
};

}  // namespace fllm
