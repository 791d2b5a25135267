#include "encoder/model.hpp"

namespace fllm {

std::unique_ptr<Model> Model::read(const JsonObject& tokenizer) {
  const JsonObject model = tokenizer.object("model");
  // Older files do not name the type; a list of merges gives BPE away.
  const std::string type = model.text_or("type", model.has("merges") ? "BPE" : "");
  if (type == "BPE") return read_byte_bpe(model);
  if (type == "WordPiece") return read_wordpiece(model);
  model.unsupported("type", "WordPiece or BPE");
}

}  // namespace fllm
