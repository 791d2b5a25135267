// The normaliser of a tokenizer.json: null, NFC, BertNormalizer, or a sequence of these.
#pragma once

#include <functional>
#include <vector>

#include "encoder/json_field.hpp"
#include "encoder/unicode.hpp"

namespace fllm {

class Normalizer {
 public:
  // Reads the field "normalizer". Throws Error(Status::bundle): one of another kind.
  explicit Normalizer(const JsonObject& tokenizer);

  GlyphText operator()(GlyphText text) const;

 private:
  void add(const JsonObject& step);
  void add_bert(const JsonObject& step);

  std::vector<std::function<GlyphText(const GlyphText&)>> steps_;
};

}  // namespace fllm
