#include "encoder/split_pattern.hpp"

#include <algorithm>
#include <string_view>

namespace fllm {

namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                                     R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

bool is_line_end(char32_t code) { return code == U'\r' || code == U'\n'; }
bool is_other(char32_t code) { return !is_space(code) && !is_letter(code) && !is_number(code); }

// The first position from `at` on, and before `at` + `most`, where the property does not hold.
template <typename Property>
std::size_t run_end(const GlyphText& text, std::size_t at, Property holds, std::size_t most = ~std::size_t{0}) {
  const std::size_t limit = std::min(text.size(), most > text.size() - at ? text.size() : at + most);
  while (at < limit && holds(text[at].code)) ++at;
  return at;
}

char32_t folded(char32_t code) {
  constexpr char32_t kLongS = 0x17F;  // its case folds to s
  if (code == kLongS) return U's';
  return code >= U'A' && code <= U'Z' ? code + (U'a' - U'A') : code;
}

// The end of 's, 't, 're, 've, 'm, 'll or 'd at `start`; `start` itself where there is none.
std::size_t contraction_end(const GlyphText& text, std::size_t start, bool any_case) {
  static constexpr std::u32string_view kEndings[] = {U"s", U"t", U"re", U"ve", U"m", U"ll", U"d"};
  if (text[start].code != U'\'') return start;
  for (const auto& ending : kEndings) {
    if (text.size() - start <= ending.size()) continue;
    const bool same = std::equal(
        ending.begin(), ending.end(), text.begin() + static_cast<std::ptrdiff_t>(start) + 1,
        [&](char32_t wanted, const Glyph& glyph) { return wanted == (any_case ? folded(glyph.code) : glyph.code); });
    if (same) return start + 1 + ending.size();
  }
  return start;
}

// \s+(?!\S)|\s+ : a run of white space leaves its last character to the word that follows, if it has two at least.
std::size_t space_end(const GlyphText& text, std::size_t start) {
  const std::size_t end = run_end(text, start, is_space);
  return end == text.size() || end - start == 1 ? end : end - 1;
}

std::size_t gpt2_end(const GlyphText& text, std::size_t start) {
  const std::size_t contraction = contraction_end(text, start, /*any_case=*/false);
  if (contraction != start) return contraction;
  const std::size_t word = start + (text[start].code == U' ' && start + 1 < text.size() ? 1 : 0);
  const char32_t code = text[word].code;
  if (is_letter(code)) return run_end(text, word, is_letter);
  if (is_number(code)) return run_end(text, word, is_number);
  if (is_other(code)) return run_end(text, word, is_other);
  return space_end(text, start);
}

// Llama 3's and Qwen 2's, which differ in how many digits make a word.
std::size_t llama3_end(const GlyphText& text, std::size_t start, std::size_t digits) {
  const std::size_t contraction = contraction_end(text, start, /*any_case=*/true);
  if (contraction != start) return contraction;
  const char32_t first = text[start].code;
  const bool more = start + 1 < text.size();
  if (is_letter(first)) return run_end(text, start, is_letter);
  if (is_number(first)) return run_end(text, start, is_number, digits);
  if (!is_line_end(first) && more && is_letter(text[start + 1].code)) return run_end(text, start + 1, is_letter);
  const std::size_t word = start + (first == U' ' && more ? 1 : 0);
  if (is_other(text[word].code)) return run_end(text, run_end(text, word, is_other), is_line_end);
  // \s*[\r\n]+ : up to the last line end of this run of white space.
  for (std::size_t end = run_end(text, start, is_space); end > start; --end) {
    if (is_line_end(text[end - 1].code)) return end;
  }
  return space_end(text, start);
}

WordEnd llama3(std::size_t digits) {
  return [digits](const GlyphText& text, std::size_t start) { return llama3_end(text, start, digits); };
}

}  // namespace

WordEnd known_pattern(const std::string& regex) {
  if (regex == kGpt2) return gpt2_end;
  if (regex == kLlama3) return llama3(3);
  if (regex == kQwen2) return llama3(1);
  return {};
}

WordEnd byte_level_pattern() { return gpt2_end; }

}  // namespace fllm
