#include "encoder/tokenizer.hpp"

#include <utility>

#include "status.hpp"

namespace fllm {

Tokenizer::Tokenizer(const std::string& path) : Tokenizer(JsonObject::load(path)) {}

Tokenizer::Tokenizer(const JsonObject& file)
    : normalizer_(file),
      pre_tokenizer_(file),
      model_(Model::read(file)),
      added_tokens_(file, *model_, normalizer_),
      post_processor_(file) {
  if (model_->byte_level() != pre_tokenizer_.byte_level()) {
    file.unsupported("pre_tokenizer",
                     model_->byte_level() ? "ByteLevel, at its end, for BPE" : "no ByteLevel for WordPiece");
  }
}

std::vector<Token> Tokenizer::encode(const GlyphText& text) const {
  std::vector<Token> tokens;
  for (AddedTokens::Part& part : added_tokens_.split(text, normalizer_)) {
    if (part.token) {
      tokens.push_back(*part.token);
      continue;
    }
    for (const GlyphText& piece : pre_tokenizer_(std::move(part.text))) model_->tokenize(piece, tokens);
  }
  post_processor_(tokens);
  return tokens;
}

}  // namespace fllm
