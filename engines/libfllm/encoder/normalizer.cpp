#include "encoder/normalizer.hpp"

namespace fllm {

namespace {

GlyphText cleaned(const GlyphText& text) {
  GlyphText out;
  for (const Glyph& glyph : text) {
    if (is_removed(glyph.code)) continue;
    out.push_back({is_space(glyph.code) ? U' ' : glyph.code, glyph.start, glyph.end});
  }
  return out;
}

GlyphText with_spaced_ideographs(const GlyphText& text) {
  GlyphText out;
  for (const Glyph& glyph : text) {
    const bool spaced = is_ideograph(glyph.code);
    if (spaced) out.push_back({U' ', glyph.start, glyph.end});
    out.push_back(glyph);
    if (spaced) out.push_back({U' ', glyph.start, glyph.end});
  }
  return out;
}

GlyphText without_accents(const GlyphText& text) {
  GlyphText out = decompose(text);
  std::erase_if(out, [](const Glyph& glyph) { return is_accent(glyph.code); });
  return out;
}

}  // namespace

Normalizer::Normalizer(const JsonObject& tokenizer) {
  if (tokenizer.has("normalizer")) add(tokenizer.object("normalizer"));
}

void Normalizer::add(const JsonObject& step) {
  const std::string type = step.text("type");
  if (type == "NFC") {
    steps_.emplace_back(compose);
  } else if (type == "BertNormalizer") {
    add_bert(step);
  } else if (type == "Sequence") {
    for (const auto& part : step.array("normalizers")) add(JsonObject(part, step.name() + ": normalizers"));
  } else {
    step.unsupported("type", "NFC, BertNormalizer or a Sequence of them");
  }
}

void Normalizer::add_bert(const JsonObject& step) {
  const bool lowercase = step.flag("lowercase", true);
  if (step.flag("clean_text", true)) steps_.emplace_back(cleaned);
  if (step.flag("handle_chinese_chars", true)) steps_.emplace_back(with_spaced_ideographs);
  if (step.flag("strip_accents", lowercase)) steps_.emplace_back(without_accents);
  if (lowercase) steps_.emplace_back(lower_case);
}

GlyphText Normalizer::operator()(GlyphText text) const {
  for (const auto& step : steps_) text = step(text);
  return text;
}

}  // namespace fllm
