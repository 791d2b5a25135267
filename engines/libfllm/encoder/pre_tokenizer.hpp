// The pre-tokenizer of a tokenizer.json: how a text is cut into the pieces that the model sees one by one.
#pragma once

#include <functional>
#include <vector>

#include "encoder/json_field.hpp"
#include "encoder/unicode.hpp"

namespace fllm {

class PreTokenizer {
 public:
  // Reads the field "pre_tokenizer": BertPreTokenizer, ByteLevel, Digits, Split by a known pattern, or a sequence of
  // these. Throws Error(Status::bundle): one of another kind.
  explicit PreTokenizer(const JsonObject& tokenizer);

  // Whether the model sees the bytes of a piece instead of its characters.
  bool byte_level() const { return byte_level_; }

  // The pieces of a text, in order; empty ones are left out.
  std::vector<GlyphText> operator()(GlyphText text) const;

 private:
  using Pieces = std::vector<GlyphText>;
  using Step = std::function<void(const GlyphText& piece, Pieces& out)>;

  void add(const JsonObject& step);
  void add_byte_level(const JsonObject& step);
  void add_split(const JsonObject& step);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace fllm
