// Code points: what they are, and how the tokenizers package changes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fllm {

// One character of a text on its way to the model, and the characters [start, end) of the original that it stands for.
struct Glyph {
  char32_t code;
  std::uint32_t start;
  std::uint32_t end;
};

using GlyphText = std::vector<Glyph>;

// Throws Error(Status::usage): the bytes are not UTF-8; `what` names the text.
GlyphText decode_utf8(std::string_view text, const std::string& what);

void append_utf8(std::string& bytes, char32_t code);
std::string encode_utf8(const GlyphText& text);

bool is_letter(char32_t code);       // \p{L}
bool is_number(char32_t code);       // \p{N}
bool is_space(char32_t code);        // \s
bool is_digit(char32_t code);        // what the pre-tokenizer Digits isolates
bool is_punctuation(char32_t code);  // what BertPreTokenizer isolates
bool is_removed(char32_t code);      // what clean_text removes
bool is_ideograph(char32_t code);    // what handle_chinese_chars surrounds with spaces
bool is_accent(char32_t code);       // what strip_accents removes after decomposition

// Canonical decomposition and composition (NFD, NFC).
GlyphText decompose(const GlyphText& text);
GlyphText compose(const GlyphText& text);

// Each character's lower case, without regard to its neighbours.
GlyphText lower_case(const GlyphText& text);

}  // namespace fllm
