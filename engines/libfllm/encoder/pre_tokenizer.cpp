#include "encoder/pre_tokenizer.hpp"

#include <utility>

#include "encoder/split_pattern.hpp"

namespace fllm {

namespace {

using Pieces = std::vector<GlyphText>;

GlyphText part(const GlyphText& text, std::size_t start, std::size_t end) {
  return {text.begin() + static_cast<std::ptrdiff_t>(start), text.begin() + static_cast<std::ptrdiff_t>(end)};
}

void split_words(const GlyphText& text, const WordEnd& word_end, Pieces& out) {
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = word_end(text, start);
    out.push_back(part(text, start, end));
    start = end;
  }
}

// White space ends a piece and is dropped, punctuation is a piece of its own.
void split_bert(const GlyphText& text, Pieces& out) {
  std::size_t start = 0;
  const auto end_piece = [&](std::size_t end) {
    if (start < end) out.push_back(part(text, start, end));
    start = end;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_space(text[i].code)) {
      end_piece(i);
      start = i + 1;
    } else if (is_punctuation(text[i].code)) {
      end_piece(i);
      end_piece(i + 1);
    }
  }
  end_piece(text.size());
}

// Digits are pieces of their own, one by one or a run at a time.
std::size_t digits_end(const GlyphText& text, std::size_t start, bool individual) {
  const bool digits = is_digit(text[start].code);
  std::size_t end = start + 1;
  while (end < text.size() && is_digit(text[end].code) == digits && !(digits && individual)) ++end;
  return end;
}

}  // namespace

PreTokenizer::PreTokenizer(const JsonObject& tokenizer) {
  if (tokenizer.has("pre_tokenizer")) add(tokenizer.object("pre_tokenizer"));
}

void PreTokenizer::add(const JsonObject& step) {
  if (byte_level_) step.unsupported("type", "nothing after ByteLevel");
  const std::string type = step.text("type");
  if (type == "BertPreTokenizer") {
    steps_.emplace_back(split_bert);
  } else if (type == "ByteLevel") {
    add_byte_level(step);
  } else if (type == "Split") {
    add_split(step);
  } else if (type == "Digits") {
    const bool individual = step.flag("individual_digits", false);
    steps_.emplace_back([individual](const GlyphText& piece, Pieces& out) {
      split_words(piece, [&](const GlyphText& text, std::size_t at) { return digits_end(text, at, individual); }, out);
    });
  } else if (type == "Sequence") {
    for (const auto& one : step.array("pretokenizers")) add(JsonObject(one, step.name() + ": pretokenizers"));
  } else {
    step.unsupported("type", "BertPreTokenizer, ByteLevel, Digits, Split or a Sequence of them");
  }
}

void PreTokenizer::add_byte_level(const JsonObject& step) {
  byte_level_ = true;
  const bool prefix = step.flag("add_prefix_space", true), split = step.flag("use_regex", true);
  steps_.emplace_back([prefix, split](const GlyphText& piece, Pieces& out) {
    GlyphText text = piece;
    if (prefix && text[0].code != U' ') text.insert(text.begin(), {U' ', text[0].start, text[0].end});
    if (split) {
      split_words(text, byte_level_pattern(), out);
    } else {
      out.push_back(std::move(text));
    }
  });
}

void PreTokenizer::add_split(const JsonObject& step) {
  if (step.text("behavior") != "Isolated") step.unsupported("behavior", "Isolated");
  step.must_be_off("invert");
  const JsonObject pattern = step.object("pattern");
  WordEnd word_end = pattern.has("Regex") ? known_pattern(pattern.text("Regex")) : WordEnd{};
  if (!word_end) step.unsupported("pattern", "the pattern of GPT-2, Llama 3 or Qwen 2");
  steps_.emplace_back(
      [word_end = std::move(word_end)](const GlyphText& piece, Pieces& out) { split_words(piece, word_end, out); });
}

std::vector<GlyphText> PreTokenizer::operator()(GlyphText text) const {
  if (text.empty()) return {};
  Pieces pieces;
  pieces.push_back(std::move(text));
  for (const Step& step : steps_) {
    Pieces finer;
    for (const GlyphText& piece : pieces) step(piece, finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace fllm
