#include "encoder/added_tokens.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "status.hpp"

namespace fllm {

namespace {

constexpr char32_t kByteSpace = 0x120;  // what stands for a space in byte-level vocabularies

bool counts_as_space(const Glyph& glyph) { return glyph.code == kByteSpace || is_space(glyph.code); }

Token whole_token(TokenId id, const GlyphText& text) {
  Token token{id, text.front().start, text.back().end};
  const auto first = std::find_if_not(text.begin(), text.end(), counts_as_space);
  const auto last = std::find_if_not(text.rbegin(), text.rend(), counts_as_space);
  token.spaces_before = static_cast<std::uint32_t>(first - text.begin());
  token.spaces_after = static_cast<std::uint32_t>(last - text.rbegin());
  return token;
}

// Gives ids as the tokenizers package does, which does not trust the file's: the model's own, or the next free one.
class IdGiver {
 public:
  explicit IdGiver(const Model& model)
      : model_(model), next_(static_cast<TokenId>(model.vocabulary_size())), least_(next_) {}

  void check(const JsonObject& token) {
    const std::string content = token.text("content");
    if (!seen_.insert(content).second) {
      throw Error(Status::bundle, sentence(token.name() + " lists '" + content + "' twice", "each token once"));
    }
    const TokenId given = model_.id_of(content).value_or(next_);
    if (given != token.integer("id")) {
      throw Error(Status::bundle,
                  sentence(token.name() + ": '" + content + "' has the id " + std::to_string(token.integer("id")),
                           std::to_string(given) + ", the id in the model's vocabulary or else the next free id"));
    }
    next_ = std::max({next_, least_, given + 1});
  }

 private:
  const Model& model_;
  TokenId next_, least_;
  std::unordered_set<std::string> seen_;
};

}  // namespace

AddedTokens::AddedTokens(const JsonObject& tokenizer, const Model& model, const Normalizer& normalizer) {
  if (!tokenizer.has("added_tokens")) return;
  IdGiver ids(model);
  for (const auto& entry : tokenizer.array("added_tokens")) {
    const JsonObject token(entry, tokenizer.name() + ": added_tokens");
    const std::string content = token.text("content");
    if (content.empty()) continue;
    ids.check(token);
    token.must_be_off("single_word");
    const bool normalized = token.flag("normalized", !token.flag("special", false));
    GlyphText text = decode_utf8(content, token.name());
    if (normalized) text = normalizer(std::move(text));
    if (text.empty()) continue;
    Added added{{}, token.integer("id"), token.flag("lstrip", false), token.flag("rstrip", false)};
    for (const Glyph& glyph : text) added.content += glyph.code;
    insert(normalized ? in_normalized_text_ : in_raw_text_, std::move(added));
  }
}

void AddedTokens::insert(Index& index, Added token) {
  auto& same_start = index[token.content[0]];
  const auto shorter = std::find_if(same_start.begin(), same_start.end(),
                                    [&](const Added& other) { return other.content.size() < token.content.size(); });
  same_start.insert(shorter, std::move(token));
}

std::optional<AddedTokens::Match> AddedTokens::next_match(const Index& index, const GlyphText& text, std::size_t from) {
  for (std::size_t start = from; start < text.size(); ++start) {
    const auto found = index.find(text[start].code);
    if (found == index.end()) continue;
    for (const Added& token : found->second) {
      if (token.content.size() > text.size() - start) continue;
      const auto begin = text.begin() + static_cast<std::ptrdiff_t>(start);
      const bool same = std::equal(token.content.begin(), token.content.end(), begin,
                                   [](char32_t wanted, const Glyph& glyph) { return wanted == glyph.code; });
      if (same) return Match{start, start + token.content.size(), &token};
    }
  }
  return std::nullopt;
}

std::vector<AddedTokens::Part> AddedTokens::cut(const Index& index, const GlyphText& text) {
  std::vector<Part> parts;
  const auto slice = [&](std::size_t start, std::size_t end) {
    const auto begin = text.begin();
    return GlyphText(begin + static_cast<std::ptrdiff_t>(start), begin + static_cast<std::ptrdiff_t>(end));
  };
  std::size_t done = 0;
  for (auto match = next_match(index, text, 0); match; match = next_match(index, text, match->end)) {
    std::size_t start = match->start, end = match->end;
    if (match->token->takes_space_before) {
      while (start > done && is_space(text[start - 1].code)) --start;
    }
    if (match->token->takes_space_after) {
      while (end < text.size() && is_space(text[end].code)) ++end;
    }
    if (done < start) parts.push_back({slice(done, start), std::nullopt});
    GlyphText own = slice(start, end);
    const Token token = whole_token(match->token->id, own);
    parts.push_back({std::move(own), token});
    done = end;
  }
  if (done < text.size()) parts.push_back({slice(done, text.size()), std::nullopt});
  return parts;
}

std::vector<AddedTokens::Part> AddedTokens::split(const GlyphText& text, const Normalizer& normalizer) const {
  std::vector<Part> parts;
  for (Part& raw : cut(in_raw_text_, text)) {
    if (raw.token) {
      parts.push_back(std::move(raw));
      continue;
    }
    for (Part& part : cut(in_normalized_text_, normalizer(std::move(raw.text)))) parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace fllm
