// Tokenizers on small vocabularies whose ids can be told by hand, and the refusals of damaged files. That ids equal
// those of the tokenizers package on real vocabularies is tested from Python.
#include "encoder/tokenizer.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "check.hpp"
#include "directory.hpp"
#include "encoder/prompt.hpp"
#include "status.hpp"

namespace {

using fllm::TokenId;
using nlohmann::json;
using Ids = std::vector<TokenId>;

// The path of a file with this content.
std::string written(const writer::Directory& directory, const std::string& content) {
  directory.write("tokenizer.json", content);
  return directory.path("tokenizer.json");
}

Ids encode(const json& description, const std::string& text) {
  const writer::Directory directory;
  const fllm::Tokenizer tokenizer(written(directory, description.dump()));
  Ids ids;
  for (const fllm::Token& token : tokenizer.encode(fllm::decode_utf8(text, "text"))) {
    ids.push_back(token.id);
  }
  return ids;
}

json wordpiece() {
  const json vocabulary = {{"[UNK]", 0}, {"[CLS]", 1},  {"cafe", 2},  {"play", 3}, {"##ing", 4},    {"##ed", 5},
                           {"!", 6},     {"\u6f22", 7}, {"play!", 8}, {"i", 9},    {"##\u0307", 10}};
  return {{"normalizer", {{"type", "BertNormalizer"}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"model", {{"type", "WordPiece"}, {"vocab", vocabulary}, {"max_input_chars_per_word", 10}}},
          {"added_tokens", json::array({{{"id", 1}, {"content", "[CLS]"}, {"special", true}}})}};
}

void wordpiece_ids() {
  CHECK((encode(wordpiece(), "playing  played!") == Ids{3, 4, 3, 5, 6}));
  CHECK((encode(wordpiece(), "CAF\u00c9 cafe\u0301") == Ids{2, 2}));
  CHECK((encode(wordpiece(), "\u6f22\u6f22") == Ids{7, 7}));
  CHECK((encode(wordpiece(), "unknown playx") == Ids{0, 0}));
  CHECK((encode(wordpiece(), "playingplaying") == Ids{0}));  // longer than ten characters
  CHECK((encode(wordpiece(), "a[CLS]play") == Ids{0, 1, 3}));
  CHECK(encode(wordpiece(), "").empty());
  CHECK(encode(wordpiece(), " \t\u200b").empty());
}

// Single bytes have the ids 0 to 255 in the order of the alphabet that byte-level vocabularies use.
json byte_bpe(const std::vector<std::string>& merges) {
  json vocabulary = json::object();
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    std::string name;
    fllm::append_utf8(name, printable ? byte : next++);
    vocabulary[name] = byte;
  }
  TokenId id = 256;
  for (const std::string& merge : merges) {
    std::string both = merge;
    both.erase(both.find(' '), 1);
    vocabulary[both] = id++;
  }
  return {{"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
}

void byte_bpe_ids() {
  const json made = byte_bpe({"a b", "b c", "ab c", "\u0120 a"});
  CHECK((encode(made, "abc") == Ids{258}));        // the lower rank merges first: ab, then abc
  CHECK((encode(made, "bcab") == Ids{257, 256}));  // though b c comes first from the left
  CHECK((encode(made, "x abc") == Ids{'x', ' ', 258}));
  CHECK((encode(made, "x a") == Ids{'x', 259}));
  CHECK((encode(made, "\u00e9\n") == Ids{0xC3, 0xA9, '\n'}));
  CHECK(encode(made, "").empty());
}

TokenId first_with(const json& made, const std::string& text) { return encode(made, text).at(0); }

void ignored_merges() {
  json made = byte_bpe({"a b", "ab c", "abc d"});
  made["model"]["merges"] = json::array({"a b"});
  CHECK(first_with(made, "abcd") == 256);
  made["model"]["ignore_merges"] = true;
  CHECK(first_with(made, "abcd") == 258);
}

fllm::Status refusal(const std::string& content) {
  const writer::Directory directory;
  try {
    const fllm::Tokenizer tokenizer(written(directory, content));
  } catch (const fllm::Error& failure) {
    return failure.status();
  }
  return fllm::Status::ok;
}

void damaged_files_are_refused() {
  CHECK(refusal(byte_bpe({}).dump()) == fllm::Status::ok);
  CHECK(refusal("") == fllm::Status::bundle);
  CHECK(refusal("[]") == fllm::Status::bundle);
  CHECK(refusal("{}") == fllm::Status::bundle);
  for (const char* field : {"vocab", "merges"}) {
    json made = byte_bpe({"a b"});
    for (const json& value : {json(3), json("x"), json(json::array({3})), json({{"a", -1}}), json({{"a", 1.5}})}) {
      made["model"][field] = value;
      CHECK(refusal(made.dump()) == fllm::Status::bundle);
    }
  }
  json unknown = wordpiece();
  unknown["model"]["unk_token"] = "[NONE]";
  CHECK(refusal(unknown.dump()) == fllm::Status::bundle);
  json twice = wordpiece();
  twice["added_tokens"].push_back(twice["added_tokens"][0]);
  CHECK(refusal(twice.dump()) == fllm::Status::bundle);
}

void composition() {
  const auto composed = [](const char* text) {
    return fllm::encode_utf8(fllm::compose(fllm::decode_utf8(text, "text")));
  };
  CHECK(composed("e\u0301") == "\u00e9");
  CHECK(composed("e\u0301\u0323") == "\u1eb9\u0301");  // the mark below goes first
  CHECK(composed("\u1112\u1161\u11ab") == "\ud55c");
  CHECK(composed("\u0344") == "\u0308\u0301");  // never composed again
  CHECK(composed("a\u0300\u0301") == "\u00e0\u0301");
}

void padding() {
  for (const bool left : {true, false}) {
    const json manifest = {
        {"prompt",
         {{"template", "{text}"}, {"max_length", 4}, {"padding_side", left ? "left" : "right"}, {"pad_id", 9}}}};
    const fllm::Prompt prompt(fllm::JsonObject(manifest, "manifest"));
    const Ids longer{1, 2, 3}, shorter{4};
    const std::vector<const Ids*> rows{&longer, &shorter};
    const fllm::Prompt::Batch batch = prompt.batch(rows);
    CHECK(batch.items == 2 && batch.longest == 3);
    CHECK((batch.input_ids == (left ? Ids{1, 2, 3, 9, 9, 4} : Ids{1, 2, 3, 4, 9, 9})));
    CHECK((batch.attention_mask == (left ? Ids{1, 1, 1, 0, 0, 1} : Ids{1, 1, 1, 1, 0, 0})));
  }
}

}  // namespace

int main() {
  wordpiece_ids();
  byte_bpe_ids();
  ignored_merges();
  damaged_files_are_refused();
  composition();
  padding();
  return check::result();
}
