// Shards that lie, one for each thing that the reader checks; and that good ones are read as they were written.
#include "format/safetensors.hpp"

#include <cstring>
#include <functional>
#include <memory>

#include "format/json_text.hpp"
#include "refusal.hpp"
#include "shard_writer.hpp"

namespace {

using fllm::Status;
using writer::Json;

// Reads from a buffer of exactly the file's size, so that a sanitizer sees every byte read beyond it.
template <typename Use>
void read(const std::string& file, Use&& use) {
  const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[file.size()]);
  std::copy(file.begin(), file.end(), exact.get());
  use(fllm::read_tensors(exact.get(), file.size(), "x.safetensors"), exact.get());
}

void read(const std::string& file) {
  read(file, [](const fllm::Tensors&, const std::uint8_t*) {});
}

void good_shards() {
  const std::vector<writer::Piece> pieces = writer::int8_pieces(5, 40, 12);
  const std::string file = writer::shard_of(pieces);
  read(file, [&](const fllm::Tensors& tensors, const std::uint8_t* begin) {
    for (const writer::Piece& piece : pieces) {
      const fllm::Tensor& tensor = tensors.at(piece.name);
      CHECK(tensor.dtype == piece.dtype && tensor.shape == piece.shape && tensor.bytes == piece.bytes.size());
      CHECK(std::memcmp(tensor.data, piece.bytes.data(), piece.bytes.size()) == 0);
      CHECK((tensor.data - begin) % 4096 == 0);
    }
    CHECK(tensors.size() == 5);  // two of padding
  });
  read(writer::file_of("{}", ""));
  read(writer::file_of(R"({"none":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})", ""));
  read(writer::file_of(R"({"one":{"dtype":"I64","shape":[],"data_offsets":[-0,8]}})", "12345678"));
}

void files_cut_short() {
  const std::string file = writer::shard_of(writer::int8_pieces(0, 40, 12));
  for (const std::size_t size : {0, 3, 7, 8, 100, 4095}) {
    REFUSED(read(file.substr(0, size)), Status::bundle,
            " has " + std::to_string(size) + " bytes and its header claims ");
  }
  REFUSED(read(file.substr(0, 4096)), Status::bundle, "holds 0 bytes of data; expected ");
  REFUSED(read(file.substr(0, file.size() - 1)), Status::bundle, "bytes of data; expected ");
  REFUSED(read(file + "x"), Status::bundle, "or something was added to it.");
}

void headers_that_are_none() {
  const std::string is_none = "x.safetensors: the header is not JSON (";
  std::string huge = writer::file_of("{}", "");
  huge[7] = '\x80';
  REFUSED(read(huge), Status::bundle, "its header claims 9223372036854779896; expected a complete file. Copy");
  REFUSED(read(writer::file_of(std::string(1 << 20, ' ') + "{}", "")), Status::bundle, "expected at most 1048576.");
  REFUSED(read(writer::file_of("{}", "", false)), Status::bundle, "the data starts at byte 10; expected a multiple of");
  for (const std::string text : {"", "{", "\xff", "{\"\xff\": 1}", "{} {}", "{'a': 1}", "[1e999]", "// x\n{}", "nan"}) {
    REFUSED(read(writer::file_of(text, "")), Status::bundle, is_none);
  }
  const std::string brackets(100000, '['), braces(1 << 19, '{');
  REFUSED(read(writer::file_of(brackets, "")), Status::bundle, is_none + "nested deeper than 64)");
  REFUSED(read(writer::file_of(braces, "")), Status::bundle, is_none);
  REFUSED(read(writer::file_of(R"({"a":1,"b":{"a":2},"a":3})", "")), Status::bundle, "the name 'a' stands twice");
  REFUSED(read(writer::file_of(std::string("{}\0 and more", 12), "")), Status::bundle, is_none + "zero byte at 2)");
  REFUSED(read(writer::file_of("[]", "")), Status::bundle, "the header is a list; expected a JSON object.");
  REFUSED(read(writer::file_of("\"a\"", "")), Status::bundle, "the header is a str;");
  REFUSED(read(writer::file_of("7", "")), Status::bundle, "the header is a int;");
  REFUSED(read(writer::file_of("-7.5", "")), Status::bundle, "the header is a float;");
  REFUSED(read(writer::file_of("null", "")), Status::bundle, "the header is a NoneType;");
  REFUSED(read(writer::file_of("true", "")), Status::bundle, "the header is a bool;");
}

// A good shard whose header was changed.
std::string changed(const std::function<void(Json&)>& change) {
  auto [header, data] = writer::layout_of(writer::int8_pieces(0, 200, 16));
  change(header);
  return writer::file_of(header.dump(), data);
}

void expect(const std::function<void(Json&)>& change, const std::string& words) {
  REFUSED(read(changed(change)), Status::bundle, words);
}

void entries_that_are_unreadable() {
  const std::string unreadable = "the header's entry of `codes` is unreadable (";
  expect([](Json& h) { h["codes"] = 7; }, unreadable + "a int)");
  expect([](Json& h) { h["codes"] = Json::array({1}); }, unreadable + "a list)");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    expect([&](Json& h) { h["codes"].erase(key); }, unreadable + "no `" + key + "`)");
  }
  expect([](Json& h) { h["codes"]["dtype"] = "F64"; }, unreadable + "dtype 'F64')");
  expect([](Json& h) { h["codes"]["dtype"] = nullptr; }, unreadable + "dtype None)");
  expect([](Json& h) { h["codes"]["shape"] = "16"; }, unreadable + "shape '16')");
  expect([](Json& h) { h["codes"]["data_offsets"] = {0}; }, unreadable + "data_offsets [0])");
  expect([](Json& h) { h["codes"]["data_offsets"] = {0, 1, 2}; }, unreadable);
}

void numbers_that_are_not_whole() {
  const std::string whole = "expected integers from 0 to 2^48 - 1.";
  expect([](Json& h) { h["codes"]["shape"] = {-200, -16}; }, "`codes` is [-200, -16] at 0..3200; " + whole);
  expect([](Json& h) { h["codes"]["shape"] = {true, 3200}; }, "`codes` is [True, 3200] at 0..3200; " + whole);
  expect([](Json& h) { h["codes"]["shape"] = {200.0, 16}; }, whole);
  expect([](Json& h) { h["codes"]["shape"] = {"200", 16}; }, "`codes` is ['200', 16] at");
  expect([](Json& h) { h["codes"]["shape"] = {std::uint64_t{1} << 48, 16}; }, whole);
  expect([](Json& h) { h["codes"]["data_offsets"] = {0, std::uint64_t{1} << 62}; }, whole);
  expect([](Json& h) { h["codes"]["data_offsets"] = {0, 1e30}; }, whole);
  expect([](Json& h) { h["codes"]["data_offsets"] = {nullptr, 3200}; }, "at None..3200; " + whole);
}

void sizes_and_places_that_lie() {
  expect([](Json& h) { h["codes"]["shape"] = {200, 17}; }, "spans 3200 bytes; expected 3400 for I8 [200, 17].");
  expect([](Json& h) { h["codes"]["data_offsets"] = {4096, 896}; }, "spans -3200 bytes; expected 3200 for I8");
  const std::uint64_t large = std::uint64_t{1} << 47;
  expect([&](Json& h) { h["codes"]["shape"] = {large, large}; }, "expected more than any file holds for I8");
  // 2^64 and a little: wraps around to the right number in careless arithmetic.
  expect([](Json& h) { h["codes"]["shape"] = {1 << 20, std::uint64_t{1} << 44, 3200}; }, "spans 3200 bytes; expected");
  expect([](Json& h) { h["scales"]["shape"] = {0, 200}; }, "spans 800 bytes; expected 0 for F32 [0, 200].");
  expect([](Json& h) { h["codes"]["data_offsets"] = {8, 3208}; }, "starts at byte 8; expected a multiple of 4096.");
  expect([](Json& h) { h.erase("codes"); }, "`padding.0` starts at data byte 3200; expected byte 0.");
  expect([](Json& h) { h["codes"]["data_offsets"] = {4096, 7296}; }, "starts at data byte");
  expect([](Json& h) { h["ids"] = h["codes"]; }, "tensor `ids` starts at data byte 0; expected byte 3200.");
  expect([](Json& h) { h.erase("ids"); }, "as the header says. Copy the file again");
}

void long_values_are_cut() {
  const std::string text = fllm::shown(nlohmann::json(std::string(1000, '\'')));
  CHECK(text.size() <= 203 && text.ends_with("..."));
  std::string word;
  for (int i = 0; i < 150; ++i) word += "\xc3\xa9";
  for (const std::string& prefix : {std::string(), std::string("x")}) {
    const std::string cut = fllm::shown(nlohmann::json(prefix + word));
    CHECK(nlohmann::json::accept("\"" + cut + "\""));  // still UTF-8
  }
  const nlohmann::json nested = nlohmann::json::parse(R"({"a":[1,-2.5,null,"b\n"],"c":{}})");
  CHECK(fllm::shown(nested) == "{'a': [1, -2.5, None, 'b\\x0a'], 'c': {}}");
}

}  // namespace

int main() {
  good_shards();
  files_cut_short();
  headers_that_are_none();
  entries_that_are_unreadable();
  numbers_that_are_not_whole();
  sizes_and_places_that_lie();
  long_values_are_cut();
  return check::result();
}
