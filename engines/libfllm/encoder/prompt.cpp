#include "encoder/prompt.hpp"

#include <algorithm>

#include "status.hpp"

namespace fllm {

namespace {

constexpr std::string_view kPlaceholder = "{text}";

// Python's str.strip() also takes the four information separators for white space.
bool is_blank(const Glyph& glyph) { return is_space(glyph.code) || (glyph.code >= 0x1C && glyph.code <= 0x1F); }

void append(GlyphText& whole, const GlyphText& part) {
  for (const Glyph& glyph : part) {
    const auto position = static_cast<std::uint32_t>(whole.size());
    whole.push_back({glyph.code, position, position + 1});
  }
}

}  // namespace

Prompt::Prompt(const JsonObject& manifest) {
  const JsonObject prompt = manifest.object("prompt");
  const std::string text = prompt.text("template");
  const std::size_t at = text.find(kPlaceholder);
  if (at == std::string::npos || text.find(kPlaceholder, at + 1) != std::string::npos) {
    prompt.unsupported("template", "the placeholder {text} exactly once");
  }
  before_ = decode_utf8(text.substr(0, at), prompt.name());
  after_ = decode_utf8(text.substr(at + kPlaceholder.size()), prompt.name());
  const std::int64_t max_length = prompt.integer("max_length");
  if (max_length < 1) prompt.unsupported("max_length", "at least 1 token");
  max_length_ = static_cast<std::size_t>(max_length);
  const std::string side = prompt.text("padding_side");
  if (side != "left" && side != "right") prompt.unsupported("padding_side", "left or right");
  pad_left_ = side == "left";
  pad_id_ = prompt.integer("pad_id");
}

TokenIds Prompt::tokenize(const Tokenizer& tokenizer, std::string_view text, std::size_t number) const {
  const std::string name = "text " + std::to_string(number);
  const GlyphText own = decode_utf8(text, name);
  if (std::all_of(own.begin(), own.end(), is_blank)) {
    throw Error(Status::usage, sentence(name + " is empty", "a text that is not empty"));
  }
  GlyphText whole;
  whole.reserve(before_.size() + own.size() + after_.size());
  append(whole, before_);
  append(whole, own);
  append(whole, after_);
  return truncate(tokenizer.encode(whole), before_.size(), before_.size() + own.size());
}

TokenIds Prompt::truncate(const std::vector<Token>& tokens, std::size_t text_start, std::size_t text_end) const {
  if (tokens.empty()) {
    throw Error(Status::usage, sentence("an item's prompt has no tokens", "at least one",
                                        "Give the item a text, or add words to the template"));
  }
  std::size_t excess = tokens.size() > max_length_ ? tokens.size() - max_length_ : 0;
  // Special tokens have the empty span (0, 0); a token that reaches past the text belongs to the question.
  const auto is_inside = [&](const Token& token) {
    return token.end > token.start && token.start >= text_start && token.end <= text_end;
  };
  const auto inside = static_cast<std::size_t>(std::count_if(tokens.begin(), tokens.end(), is_inside));
  if (inside < excess) {
    throw Error(Status::usage,
                sentence("the template needs " + std::to_string(tokens.size() - inside) + " tokens and max_length is " +
                             std::to_string(max_length_),
                         "more tokens than the template needs", "Raise max_length or shorten the template"));
  }
  TokenIds ids;
  for (auto token = tokens.rbegin(); token != tokens.rend(); ++token) {
    if (excess > 0 && is_inside(*token)) {
      --excess;
    } else {
      ids.push_back(token->id);
    }
  }
  std::reverse(ids.begin(), ids.end());
  return ids;
}

Prompt::Batch Prompt::batch(std::span<const TokenIds* const> ids) const {
  Batch made{ids.size(), 0, {}, {}};
  for (const TokenIds* row : ids) made.longest = std::max(made.longest, row->size());
  made.input_ids.assign(made.items * made.longest, pad_id_);
  made.attention_mask.assign(made.items * made.longest, 0);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::size_t length = ids[i]->size();
    const std::size_t start = i * made.longest + (pad_left_ ? made.longest - length : 0);
    const auto at = static_cast<std::ptrdiff_t>(start);
    std::copy(ids[i]->begin(), ids[i]->end(), made.input_ids.begin() + at);
    std::fill_n(made.attention_mask.begin() + at, length, 1);
  }
  return made;
}

}  // namespace fllm
