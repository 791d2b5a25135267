#include "encoder/unicode.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "status.hpp"

namespace fllm {

namespace {

struct CodeRange {
  char32_t first, last;
};
struct CodeStep {
  char32_t first, last;
  std::int32_t stride, difference;
};
struct CodeValue {
  char32_t first, last;
  int value;
};
struct CodePair {
  char32_t composed, first, second;
};

#include "encoder/unicode_tables.inc"

// The run that may hold the code: the last one that begins at or before it.
template <typename Run, std::size_t n>
const Run* run_of(const Run (&runs)[n], char32_t code) {
  const Run* after =
      std::upper_bound(std::begin(runs), std::end(runs), code, [](char32_t c, const Run& r) { return c < r.first; });
  if (after == std::begin(runs) || (after - 1)->last < code) return nullptr;
  return after - 1;
}

template <std::size_t n>
const CodePair* pair_of(const CodePair (&pairs)[n], char32_t code) {
  const CodePair* found = std::lower_bound(std::begin(pairs), std::end(pairs), code,
                                           [](const CodePair& pair, char32_t c) { return pair.composed < c; });
  return found != std::end(pairs) && found->composed == code ? found : nullptr;
}

int combining_class(char32_t code) {
  const CodeValue* run = run_of(kCombiningClasses, code);
  return run == nullptr ? 0 : run->value;
}

// Hangul syllables are composed by arithmetic: 19 leading, 21 vowel and 28 trailing jamo (the first means none).
constexpr char32_t kSyllables = 0xAC00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11A7;
constexpr char32_t kLeadingCount = 19, kVowelCount = 21, kTrailingCount = 28;
constexpr char32_t kSyllableCount = kLeadingCount * kVowelCount * kTrailingCount;

void append_decomposed(GlyphText& text, char32_t code, std::uint32_t start, std::uint32_t end) {
  if (code >= kSyllables && code < kSyllables + kSyllableCount) {
    const char32_t index = code - kSyllables;
    text.push_back({kLeading + index / (kVowelCount * kTrailingCount), start, end});
    text.push_back({kVowels + index / kTrailingCount % kVowelCount, start, end});
    if (index % kTrailingCount != 0) text.push_back({kTrailing + index % kTrailingCount, start, end});
    return;
  }
  const CodePair* pair = pair_of(kCompositions, code);
  if (pair == nullptr) pair = pair_of(kDecompositions, code);
  if (pair == nullptr) {
    text.push_back({code, start, end});
    return;
  }
  append_decomposed(text, pair->first, start, end);
  if (pair->second != 0) append_decomposed(text, pair->second, start, end);
}

// Puts marks in the order of their classes. The tokenizers package leaves the spans where they were, one a place; so
// does this, because spans decide what truncation drops.
void sort_marks(GlyphText::iterator first, GlyphText::iterator last) {
  std::vector<char32_t> codes;
  for (auto mark = first; mark != last; ++mark) codes.push_back(mark->code);
  std::stable_sort(codes.begin(), codes.end(),
                   [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
  for (const char32_t code : codes) (first++)->code = code;
}

const std::map<std::pair<char32_t, char32_t>, char32_t>& compositions() {
  static const auto map = [] {
    std::map<std::pair<char32_t, char32_t>, char32_t> made;
    for (const CodePair& pair : kCompositions) made.emplace(std::pair{pair.first, pair.second}, pair.composed);
    return made;
  }();
  return map;
}

// The character that a starter and what follows it compose to, or 0.
char32_t composed(char32_t starter, char32_t next) {
  if (starter >= kLeading && starter < kLeading + kLeadingCount && next >= kVowels && next < kVowels + kVowelCount) {
    return kSyllables + ((starter - kLeading) * kVowelCount + (next - kVowels)) * kTrailingCount;
  }
  const bool without_trailing =
      starter >= kSyllables && starter < kSyllables + kSyllableCount && (starter - kSyllables) % kTrailingCount == 0;
  if (without_trailing && next > kTrailing && next < kTrailing + kTrailingCount) return starter + (next - kTrailing);
  const auto found = compositions().find({starter, next});
  return found == compositions().end() ? 0 : found->second;
}

constexpr char32_t kCapitalIWithDot = 0x130;  // the one letter whose lower case is two characters: i and U+0307

// Bytes of a UTF-8 sequence by its first byte; 0 where none begins so.
int sequence_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first < 0xE0) return 2;
  if (first >= 0xE0 && first < 0xF0) return 3;
  if (first >= 0xF0 && first < 0xF5) return 4;
  return 0;
}

}  // namespace

GlyphText decode_utf8(std::string_view text, const std::string& what) {
  static constexpr char32_t kLowest[] = {0, 0, 0x80, 0x800, 0x10000};
  GlyphText glyphs;
  glyphs.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const int length = sequence_length(first);
    bool valid = length != 0 && i + static_cast<std::size_t>(length) <= text.size();
    char32_t code = length <= 1 ? first : static_cast<char32_t>(first & (0x7F >> length));
    for (int j = 1; valid && j < length; ++j) {
      const auto byte = static_cast<unsigned char>(text[i + static_cast<std::size_t>(j)]);
      valid = (byte & 0xC0) == 0x80;
      code = (code << 6) | (byte & 0x3F);
    }
    if (!valid || code < kLowest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      throw Error(Status::usage, sentence(what + " is not UTF-8 at byte " + std::to_string(i), "a text in UTF-8"));
    }
    const auto position = static_cast<std::uint32_t>(glyphs.size());
    glyphs.push_back({code, position, position + 1});
    i += static_cast<std::size_t>(length);
  }
  return glyphs;
}

void append_utf8(std::string& bytes, char32_t code) {
  const auto low = [](char32_t bits) { return static_cast<char>(0x80 | (bits & 0x3F)); };
  if (code < 0x80) {
    bytes += static_cast<char>(code);
  } else if (code < 0x800) {
    bytes += {static_cast<char>(0xC0 | (code >> 6)), low(code)};
  } else if (code < 0x10000) {
    bytes += {static_cast<char>(0xE0 | (code >> 12)), low(code >> 6), low(code)};
  } else {
    bytes += {static_cast<char>(0xF0 | (code >> 18)), low(code >> 12), low(code >> 6), low(code)};
  }
}

std::string encode_utf8(const GlyphText& text) {
  std::string bytes;
  for (const Glyph& glyph : text) append_utf8(bytes, glyph.code);
  return bytes;
}

bool is_letter(char32_t code) { return run_of(kLetters, code) != nullptr; }
bool is_number(char32_t code) { return run_of(kNumbers, code) != nullptr; }
bool is_space(char32_t code) { return run_of(kSpaces, code) != nullptr; }
bool is_digit(char32_t code) { return run_of(kDigits, code) != nullptr; }
bool is_punctuation(char32_t code) { return run_of(kPunctuation, code) != nullptr; }
bool is_removed(char32_t code) { return run_of(kRemoved, code) != nullptr; }
bool is_ideograph(char32_t code) { return run_of(kIdeographs, code) != nullptr; }
bool is_accent(char32_t code) { return run_of(kAccents, code) != nullptr; }

GlyphText decompose(const GlyphText& text) {
  GlyphText out;
  out.reserve(text.size());
  for (const Glyph& glyph : text) append_decomposed(out, glyph.code, glyph.start, glyph.end);
  // Marks between two starters stand in the order of their classes.
  for (auto first = out.begin(); first != out.end();) {
    if (combining_class(first->code) == 0) {
      ++first;
      continue;
    }
    const auto last = std::find_if(first, out.end(), [](const Glyph& g) { return combining_class(g.code) == 0; });
    sort_marks(first, last);
    first = last;
  }
  return out;
}

GlyphText compose(const GlyphText& text) {
  GlyphText out;
  std::size_t starter = 0;
  bool has_starter = false;
  int previous_class = 0;
  for (const Glyph& glyph : decompose(text)) {
    const int own_class = combining_class(glyph.code);
    const bool adjacent = has_starter && out.size() == starter + 1;
    // A mark is blocked from the starter by one of its own or a higher class in between, a starter by anything.
    if (has_starter && (adjacent || previous_class < own_class)) {
      const char32_t whole = composed(out[starter].code, glyph.code);
      if (whole != 0) {
        out[starter].code = whole;
        // What composes gives up the place after the starter; marks that stand between move on by one.
        for (std::size_t i = starter + 1; i < out.size(); ++i) {
          const Glyph& after = i + 1 < out.size() ? out[i + 1] : glyph;
          out[i].start = after.start;
          out[i].end = after.end;
        }
        continue;
      }
    }
    if (own_class == 0) {
      starter = out.size();
      has_starter = true;
    }
    previous_class = own_class;
    out.push_back(glyph);
  }
  return out;
}

GlyphText lower_case(const GlyphText& text) {
  GlyphText out;
  out.reserve(text.size());
  for (const Glyph& glyph : text) {
    if (glyph.code == kCapitalIWithDot) {
      out.push_back({U'i', glyph.start, glyph.end});
      out.push_back({0x307, glyph.start, glyph.end});
      continue;
    }
    const CodeStep* step = run_of(kLowerCase, glyph.code);
    const bool changes = step != nullptr && (glyph.code - step->first) % static_cast<char32_t>(step->stride) == 0;
    const std::int32_t difference = changes ? step->difference : 0;
    out.push_back({static_cast<char32_t>(static_cast<std::int32_t>(glyph.code) + difference), glyph.start, glyph.end});
  }
  return out;
}

}  // namespace fllm
