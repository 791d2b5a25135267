// Byte-pair encoding over bytes: a word starts as its bytes, and the neighbours of the lowest rank merge first.
#include <array>
#include <cstddef>
#include <queue>
#include <unordered_map>
#include <utility>

#include "encoder/model.hpp"
#include "encoder/vocabulary.hpp"
#include "status.hpp"

namespace fllm {

namespace {

// The printable character that stands for each byte in vocabularies: itself where it is printable in Latin-1, and
// the characters from U+0100 on, in order, for the rest.
std::array<std::string, 256> byte_alphabet() {
  std::array<std::string, 256> alphabet;
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    append_utf8(alphabet[byte], printable ? byte : next++);
  }
  return alphabet;
}

struct Merge {
  std::size_t rank;
  TokenId id;
};

// A part of the word: its bytes are [start, start + length); length 0 once it has merged into the one before it.
struct Symbol {
  TokenId id;
  std::size_t start, length;
  std::ptrdiff_t previous, next;
};

// Two neighbours that could merge. Lowest rank first, then leftmost.
struct Candidate {
  std::size_t rank, left;
  TokenId id;
  bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
};

class ByteBpe : public Model {
 public:
  explicit ByteBpe(const JsonObject& model)
      : vocabulary_(model), alphabet_(byte_alphabet()), ignore_merges_(model.flag("ignore_merges", false)) {
    for (const char* field : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) model.must_be_off(field);
    for (std::size_t byte = 0; byte < 256; ++byte) {
      byte_ids_[byte] = vocabulary_.find(alphabet_[byte]).value_or(kAbsent);
      if (byte_ids_[byte] != kAbsent) continue;
      // Without an unknown token the tokenizers package passes over a byte that the vocabulary lacks.
      model.must_be_off("unk_token");
      model.must_be_off("byte_fallback");
    }
    read_merges(model);
  }

  std::optional<TokenId> id_of(const std::string& token) const override { return vocabulary_.find(token); }
  std::size_t vocabulary_size() const override { return vocabulary_.size(); }
  bool byte_level() const override { return true; }

  void tokenize(const GlyphText& piece, std::vector<Token>& tokens) const override {
    std::string bytes;
    std::vector<std::size_t> glyphs;  // the glyph of each byte
    for (std::size_t i = 0; i < piece.size(); ++i) {
      append_utf8(bytes, piece[i].code);
      glyphs.resize(bytes.size(), i);
    }
    if (ignore_merges_) {
      std::string whole;
      for (const char byte : bytes) whole += alphabet_[static_cast<unsigned char>(byte)];
      if (const auto id = vocabulary_.find(whole)) {
        tokens.push_back(token(*id, piece, bytes, glyphs, 0, bytes.size()));
        return;
      }
    }
    std::vector<Symbol> symbols = split(bytes);
    merge(symbols);
    for (const Symbol& symbol : symbols) {
      if (symbol.length != 0) tokens.push_back(token(symbol.id, piece, bytes, glyphs, symbol.start, symbol.length));
    }
  }

 private:
  static constexpr TokenId kAbsent = -1;

  void read_merges(const JsonObject& model) {
    const auto& merges = model.array("merges");
    merges_.reserve(merges.size());
    std::size_t rank = 0;
    for (const auto& entry : merges) {
      const auto [left, right] = pair_of(entry, model);
      const auto first = vocabulary_.find(left), second = vocabulary_.find(right);
      const auto both = vocabulary_.find(left + right);
      if (!first || !second || !both) {
        throw Error(Status::bundle, sentence(model.name() + ": merge " + std::to_string(rank) + " of '" + left +
                                             "' and '" + right + "' names a token that is not in vocab"));
      }
      merges_.insert_or_assign(key(*first, *second), Merge{rank++, *both});
    }
  }

  // A merge is ["a", "b"], or "a b" in older files.
  static std::pair<std::string, std::string> pair_of(const nlohmann::json& entry, const JsonObject& model) {
    if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      return {entry[0].get<std::string>(), entry[1].get<std::string>()};
    }
    if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        return {text.substr(0, space), text.substr(space + 1)};
      }
    }
    throw Error(Status::bundle, sentence(model.name() + ": an element of merges is not a pair of tokens"));
  }

  static std::uint64_t key(TokenId left, TokenId right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
  }

  const Merge* find_merge(const Symbol& left, const Symbol& right) const {
    const auto found = merges_.find(key(left.id, right.id));
    return found == merges_.end() ? nullptr : &found->second;
  }

  std::vector<Symbol> split(const std::string& bytes) const {
    std::vector<Symbol> symbols;
    std::size_t start = 0;  // counts the bytes that have an id only, as the tokenizers package does
    for (const char byte : bytes) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id == kAbsent) continue;
      const auto at = static_cast<std::ptrdiff_t>(symbols.size());
      symbols.push_back({id, start++, 1, at - 1, at + 1});
    }
    if (!symbols.empty()) symbols.back().next = -1;
    return symbols;
  }

  void merge(std::vector<Symbol>& symbols) const {
    std::priority_queue<Candidate> queue;
    const auto consider = [&](std::ptrdiff_t left, std::ptrdiff_t right) {
      if (left < 0 || right < 0) return;
      const auto at = static_cast<std::size_t>(left);
      const Merge* found = find_merge(symbols[at], symbols[static_cast<std::size_t>(right)]);
      if (found != nullptr) queue.push({found->rank, at, found->id});
    };
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      consider(static_cast<std::ptrdiff_t>(i), static_cast<std::ptrdiff_t>(i) + 1);
    }
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      Symbol& left = symbols[best.left];
      if (left.length == 0 || left.next < 0) continue;
      Symbol& right = symbols[static_cast<std::size_t>(left.next)];
      // The neighbours may have changed since they were queued.
      const Merge* current = find_merge(left, right);
      if (current == nullptr || current->id != best.id) continue;
      left.id = best.id;
      left.length += right.length;
      left.next = right.next;
      right.length = 0;
      const auto at = static_cast<std::ptrdiff_t>(best.left);
      if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = at;
      consider(left.previous, at);
      consider(at, left.next);
    }
  }

  static Token token(TokenId id, const GlyphText& piece, const std::string& bytes,
                     const std::vector<std::size_t>& glyphs, std::size_t start, std::size_t length) {
    Token made{id, piece[glyphs[start]].start, piece[glyphs[start + length - 1]].end};
    const std::string_view text = std::string_view(bytes).substr(start, length);
    const std::size_t first = text.find_first_not_of(' '), last = text.find_last_not_of(' ');
    const bool blank = first == std::string_view::npos;
    made.spaces_before = static_cast<std::uint32_t>(blank ? length : first);
    made.spaces_after = static_cast<std::uint32_t>(blank ? length : length - 1 - last);
    return made;
  }

  Vocabulary vocabulary_;
  std::array<std::string, 256> alphabet_;
  std::array<TokenId, 256> byte_ids_{};
  std::unordered_map<std::uint64_t, Merge> merges_;
  bool ignore_merges_;
};

}  // namespace

std::unique_ptr<Model> read_byte_bpe(const JsonObject& model) { return std::make_unique<ByteBpe>(model); }

}  // namespace fllm
