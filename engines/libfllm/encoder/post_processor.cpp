#include "encoder/post_processor.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "status.hpp"

namespace fllm {

namespace {

using Tokens = std::vector<Token>;

// Takes the spaces at a token's ends out of its span; the first one stays where it was put there as a prefix.
void trim(Tokens& tokens, bool has_prefix) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    Token& token = tokens[i];
    std::uint32_t before = token.spaces_before;
    const bool prefixed = has_prefix && (i == 0 || token.start == 0);
    if (before > 0 && prefixed) --before;
    token.start = std::min(token.start + before, token.end);
    if (token.end >= token.spaces_after) token.end = std::max(token.end - token.spaces_after, token.start);
  }
}

// The id of a field such as ["[SEP]", 102].
TokenId named_id(const JsonObject& step, const char* field) {
  const auto& value = step.array(field);
  if (value.size() != 2 || !value[1].is_number_unsigned()) step.unsupported(field, "a token and its id");
  return value[1].get<TokenId>();
}

// The ids of a special token of a template.
std::vector<TokenId> special_ids(const JsonObject& step, const std::string& name) {
  const JsonObject token = step.object("special_tokens").object(name.c_str());
  std::vector<TokenId> ids;
  for (const auto& id : token.array("ids")) {
    if (!id.is_number_unsigned()) token.unsupported("ids", "token ids");
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

}  // namespace

PostProcessor::PostProcessor(const JsonObject& tokenizer) {
  if (tokenizer.has("post_processor")) add(tokenizer.object("post_processor"));
}

void PostProcessor::add(const JsonObject& step) {
  const std::string type = step.text("type");
  if (type == "TemplateProcessing") {
    add_template(step);
  } else if (type == "ByteLevel") {
    add_trimming(step);
  } else if (type == "BertProcessing") {
    add_ends(step);
  } else if (type == "RobertaProcessing") {
    add_trimming(step);
    add_ends(step);
  } else if (type == "Sequence") {
    for (const auto& part : step.array("processors")) add(JsonObject(part, step.name() + ": processors"));
  } else {
    step.unsupported("type", "TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing or a Sequence of them");
  }
}

void PostProcessor::add_template(const JsonObject& step) {
  // Nothing stands for the text itself.
  std::vector<std::optional<TokenId>> layout;
  for (const auto& entry : step.array("single")) {
    const JsonObject piece(entry, step.name() + ": single");
    if (piece.has("SpecialToken")) {
      for (const TokenId id : special_ids(step, piece.object("SpecialToken").text("id"))) layout.emplace_back(id);
    } else if (piece.object("Sequence").text("id") == "A") {
      layout.emplace_back(std::nullopt);
    } else {
      step.unsupported("single", "the sequence A and special tokens");
    }
  }
  steps_.emplace_back([layout](Tokens& tokens) {
    Tokens whole;
    for (const auto& id : layout) {
      if (id) {
        whole.push_back({*id, 0, 0});
      } else {
        whole.insert(whole.end(), tokens.begin(), tokens.end());
      }
    }
    tokens = std::move(whole);
  });
}

void PostProcessor::add_ends(const JsonObject& step) {
  const TokenId first = named_id(step, "cls"), last = named_id(step, "sep");
  steps_.emplace_back([first, last](Tokens& tokens) {
    tokens.insert(tokens.begin(), {first, 0, 0});
    tokens.push_back({last, 0, 0});
  });
}

void PostProcessor::add_trimming(const JsonObject& step) {
  if (!step.flag("trim_offsets", true)) return;
  steps_.emplace_back([has_prefix = step.flag("add_prefix_space", true)](Tokens& tokens) { trim(tokens, has_prefix); });
}

void PostProcessor::operator()(Tokens& tokens) const {
  for (const auto& step : steps_) step(tokens);
}

}  // namespace fllm
