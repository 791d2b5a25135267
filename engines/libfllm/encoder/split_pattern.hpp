// The regular expressions by which byte-level tokenizers cut a text into words, as hand-written scanners.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "encoder/unicode.hpp"

namespace fllm {

// The end of the word that begins at `start`, which is inside the text. Every character belongs to some word.
using WordEnd = std::function<std::size_t(const GlyphText& text, std::size_t start)>;

// The scanner of a pattern, known by its exact text; empty where it is not known.
WordEnd known_pattern(const std::string& regex);

// The pattern that the pre-tokenizer ByteLevel brings along, GPT-2's.
WordEnd byte_level_pattern();

}  // namespace fllm
