// WordPiece: the longest known beginning of a word, then the longest known continuation, and so on.
#include <cstddef>
#include <utility>

#include "encoder/model.hpp"
#include "encoder/vocabulary.hpp"
#include "status.hpp"

namespace fllm {

namespace {

class WordPiece : public Model {
 public:
  explicit WordPiece(const JsonObject& model)
      : vocabulary_(model), prefix_(model.text_or("continuing_subword_prefix", "##")) {
    const std::string unknown = model.text_or("unk_token", "[UNK]");
    const auto id = vocabulary_.find(unknown);
    if (!id) {
      throw Error(Status::bundle, sentence(model.name() + ": vocab does not contain the unknown token " + unknown));
    }
    unknown_ = *id;
    const std::int64_t longest = model.integer_or("max_input_chars_per_word", 100);
    if (longest < 0) model.unsupported("max_input_chars_per_word", "at least 0");
    max_characters_ = static_cast<std::size_t>(longest);
  }

  std::optional<TokenId> id_of(const std::string& token) const override { return vocabulary_.find(token); }
  std::size_t vocabulary_size() const override { return vocabulary_.size(); }
  bool byte_level() const override { return false; }

  void tokenize(const GlyphText& piece, std::vector<Token>& tokens) const override {
    const std::size_t before = tokens.size();
    bool known = piece.size() <= max_characters_;
    for (std::size_t start = 0; known && start < piece.size();) {
      const std::size_t end = longest_known(piece, start, tokens);
      known = end != start;
      start = end;
    }
    if (known) return;
    tokens.resize(before, Token{});
    tokens.push_back({unknown_, piece.front().start, piece.back().end});
  }

 private:
  // Appends the longest known token at `start` and returns its end; `start` itself where there is none.
  std::size_t longest_known(const GlyphText& piece, std::size_t start, std::vector<Token>& tokens) const {
    std::string text = start > 0 ? prefix_ : std::string();
    std::vector<std::size_t> lengths;  // of the text, after each character
    for (std::size_t i = start; i < piece.size(); ++i) {
      append_utf8(text, piece[i].code);
      lengths.push_back(text.size());
    }
    for (std::size_t end = piece.size(); end > start; --end) {
      const auto id = vocabulary_.find(std::string_view(text).substr(0, lengths[end - start - 1]));
      if (!id) continue;
      tokens.push_back({*id, piece[start].start, piece[end - 1].end});
      return end;
    }
    return start;
  }

  Vocabulary vocabulary_;
  std::string prefix_;
  TokenId unknown_ = 0;
  std::size_t max_characters_ = 0;
};

}  // namespace

std::unique_ptr<Model> read_wordpiece(const JsonObject& model) { return std::make_unique<WordPiece>(model); }

}  // namespace fllm
