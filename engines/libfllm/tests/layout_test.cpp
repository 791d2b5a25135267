// table.json: what is read from a good one, and how each lie is refused.
#include <filesystem>

#include "format/table.hpp"
#include "refusal.hpp"
#include "shard_writer.hpp"

namespace {

using fllm::Status;
using writer::Json;

const std::string kPath = "users/table.json";

Json good() { return writer::table_json({200, 7}, 16, 128); }

void parse(const Json& document) { fllm::Layout::parse(document.dump(), kPath); }

template <typename Value>
Json with(const char* key, const Value& value) {
  Json document = good();
  document[key] = value;
  return document;
}

template <typename Value>
Json with_entry(const char* key, const Value& value) {
  Json document = good();
  document["shards"][1][key] = value;
  return document;
}

void a_good_layout() {
  Json document = with("codec", "fp8");
  document["bias"] = true;
  document["generation"] = INT64_MAX;
  document["shards"][0]["sha256"] = "ab";
  document["shards"][0]["bytes"] = 12345;
  document["of a later version"] = {1, 2};
  const fllm::Layout layout = fllm::Layout::parse(document.dump(), kPath);
  CHECK(layout.codec == fllm::Codec::fp8 && layout.dim == 16 && layout.rows == 207 && layout.tile_rows == 128);
  CHECK(layout.bias && layout.generation == INT64_MAX && layout.shards.size() == 2);
  CHECK(layout.shards[0].name == "00000.safetensors" && layout.shards[0].rows == 200);
  CHECK(layout.shards[0].bytes == 12345 && layout.shards[0].sha256 == "ab");
  CHECK(layout.shards[1].name == "00001.safetensors" && layout.shards[1].rows == 7);
}

void documents_and_versions() {
  const auto parse_text = [](const std::string& text) { fllm::Layout::parse(text, kPath); };
  for (const std::string text : {"", "{", "{\"a\": \"\xff\"}", "{} x", "[[", "\xff\xfe"}) {
    REFUSED(parse_text(text), Status::bundle, "users/table.json is not JSON (");
  }
  REFUSED(parse_text(std::string(1 << 20, '[')), Status::bundle, "nested deeper than 64). Build it again.");
  REFUSED(parse_text(R"({"rows":1,"rows":2})"), Status::bundle, "the name 'rows' stands twice in one object");
  REFUSED(parse_text("[]"), Status::bundle, "format_version is None; expected an integer from 1 to 1.");
  REFUSED(parse(with("format_version", "1")), Status::bundle, "format_version is '1'");
  REFUSED(parse(with("format_version", true)), Status::bundle, "format_version is True");
  REFUSED(parse(with("format_version", 1.0)), Status::bundle, "format_version is 1.0");
  REFUSED(parse(with("format_version", 0)), Status::bundle, "format_version is 0");
  REFUSED(parse(with("format_version", -3)), Status::bundle, "format_version is -3");
  const std::string newest =
      ", the newest that this fllm-export reads. Upgrade fllm-export, or build again with this one.";
  REFUSED(parse(with("format_version", 2)), Status::bundle, "has format version 2; expected at most 1" + newest);
  REFUSED(parse(with("format_version", UINT64_MAX)), Status::bundle, "has format version 18446744073709551615");
  parse(with("reader_features", Json::array()));
  REFUSED(parse(with("reader_features", Json::array({"wings", "segments", "wings"}))), Status::bundle,
          "users/table.json needs the reader features segments, wings; expected none that this fllm-export does not "
          "know. Upgrade fllm-export.");
  REFUSED(parse(with("reader_features", "tombstones")), Status::bundle,
          "users/table.json: reader_features is 'tombstones'; expected a list of names.");
  REFUSED(parse(with("reader_features", Json::array({1}))), Status::bundle, "expected a list of names");
  REFUSED(parse(with("reader_features", nullptr)), Status::bundle, "reader_features is None");
}

void fields() {
  for (const char* key : {"codec", "dim", "rows", "tile_rows", "bias", "generation", "shards"}) {
    Json document = good();
    document.erase(key);
    REFUSED(parse(document), Status::bundle,
            "users/table.json: `" + std::string(key) + "` is None; expected a value of type");
  }
  REFUSED(parse(with("codec", "int3")), Status::bundle,
          "users/table.json: codec is 'int3'; expected one of fp32, fp16, int8, fp8, int4, int4row, int2, int1.");
  REFUSED(parse(with("codec", 8)), Status::bundle, "`codec` is 8; expected a value of type str.");
  REFUSED(parse(with("dim", 0)), Status::bundle, "users/table.json: dim is 0; expected at least 1.");
  REFUSED(parse(with("dim", 2.5)), Status::bundle, "`dim` is 2.5; expected a value of type int.");
  REFUSED(parse(with("dim", true)), Status::bundle, "`dim` is True; expected a value of type int.");
  REFUSED(parse(with("dim", std::uint64_t{1} << 48)), Status::bundle, "dim is 281474976710656; expected less than");
  REFUSED(parse(with("dim", UINT64_MAX)), Status::bundle, "`dim` is 18446744073709551615; expected a value of type");
  REFUSED(parse(with("tile_rows", -1)), Status::bundle, "tile_rows is -1; expected at least 1.");
  REFUSED(parse(with("generation", 0)), Status::bundle, "generation is 0; expected at least 1.");
  REFUSED(parse(with("bias", 1)), Status::bundle, "`bias` is 1; expected a value of type bool.");
  REFUSED(parse(with("rows", 7)), Status::bundle, "the shards hold 207 rows; expected 7, as `rows` says.");
  REFUSED(parse(with("shards", "none")), Status::bundle, "`shards` is 'none'; expected a value of type list.");
  REFUSED(parse(with("shards", Json::array())), Status::bundle, "the shards hold 0 rows; expected 207");
  REFUSED(parse(with("shards", Json::array({5}))), Status::bundle, "shards[0] is 5; expected an object.");
}

void entries() {
  for (const char* key : {"name", "rows", "bytes", "sha256"}) {
    REFUSED(parse(with_entry(key, nullptr)), Status::bundle, "`" + std::string(key) + "` is None; expected a value of");
  }
  const std::string zero("a\0b", 3);
  for (const std::string& name : {std::string(), std::string("."), std::string(".."), std::string("../a"),
                                  std::string("a/"), std::string("/a"), zero}) {
    REFUSED(parse(with_entry("name", name)), Status::bundle, "; expected a file name without folders.");
  }
  REFUSED(parse(with_entry("name", "a/b")), Status::bundle, "users/table.json: shard name 'a/b'; expected");
  REFUSED(parse(with_entry("rows", 0)), Status::bundle, "shard 00001.safetensors has 0 rows; expected at least 1.");
  REFUSED(parse(with_entry("bytes", -1)), Status::bundle, "shard 00001.safetensors has -1 bytes; expected at least 0.");
  REFUSED(parse(with_entry("rows", INT64_MAX)), Status::bundle, "9223372036854775807 rows; expected less than");
  // A sum that wraps around must not pass.
  Json document = good();
  const std::uint64_t most = (std::uint64_t{1} << 48) - 1;
  document["shards"] = Json::array();
  const Json entry = {{"name", "a"}, {"rows", most}, {"bytes", 0}, {"sha256", ""}};
  for (int i = 0; i < 70000; ++i) document["shards"].push_back(entry);
  REFUSED(parse(document), Status::bundle, "the shards hold 281474976710656 rows; expected 207");
}

void files() {
  const writer::Directory directory;
  const auto load = [&] { fllm::Layout::load(directory.path()); };
  REFUSED(load(), Status::bundle, directory.path() + " holds no table.json; expected a user table. Name the directory");
  REFUSED(fllm::Layout::load("/nonexistent"), Status::bundle, "/nonexistent holds no table.json");
  std::filesystem::create_directory(directory.path("table.json"));
  REFUSED(load(), Status::bundle, "holds no table.json");
  std::filesystem::remove(directory.path("table.json"));
  directory.write("table.json", good().dump());
  CHECK(fllm::Layout::load(directory.path() + "/").rows == 207);
  std::filesystem::resize_file(directory.path("table.json"), std::uintmax_t{1} << 40);
  REFUSED(load(), Status::bundle, "table.json has 1099511627776 bytes; expected at most 67108864.");
}

void rows_in_blocks() {
  for (const char* codec : {"int1", "int2", "int4row"}) {
    Json document = with("codec", codec);
    CHECK(std::string(fllm::codec_name(fllm::Layout::parse(document.dump(), kPath).codec)) == codec);
    document["sketch_dims"] = 0;
    parse(document);
    document["sketch_dims"] = 16;
    REFUSED(parse(document), Status::bundle,
            "users/table.json: sketch_dims is 16; expected 0, as codec is " + std::string(codec) + ".");
    document = with("codec", codec);
    document["tile_rows"] = 120;
    REFUSED(parse(document), Status::bundle, "users/table.json: tile_rows is 120; expected a multiple of 16.");
  }
  Json sketched = with("sketch_dims", 16);
  parse(sketched);
  sketched["tile_rows"] = 120;
  REFUSED(parse(sketched), Status::bundle, "users/table.json: tile_rows is 120; expected a multiple of 16.");
}

void codec_sizes() {
  using fllm::Codec;
  CHECK(fllm::code_bytes(Codec::fp32, 5) == 20 && fllm::code_bytes(Codec::fp16, 5) == 10);
  CHECK(fllm::code_bytes(Codec::int8, 5) == 5 && fllm::code_bytes(Codec::fp8, 5) == 5);
  CHECK(fllm::code_bytes(Codec::int4, 5) == 3 && fllm::code_bytes(Codec::int4, 6) == 3);
  CHECK(fllm::group_bytes(Codec::int4, 32) == 1 && fllm::group_bytes(Codec::int4, 33) == 2);
  CHECK(fllm::group_bytes(Codec::int8, 33) == 0);
  CHECK(fllm::code_bytes(Codec::int2, 256) == 64 && fllm::code_bytes(Codec::int2, 17) == 8);
  CHECK(fllm::code_bytes(Codec::int4row, 256) == 128 && fllm::code_bytes(Codec::int4row, 1) == 8);
  CHECK(fllm::code_dims(Codec::int2, 17) == 32 && fllm::code_dims(Codec::int8, 17) == 17);
  CHECK(fllm::code_bytes(Codec::int1, 256) == 32 && fllm::code_bytes(Codec::int1, 33) == 8);
  CHECK(fllm::code_dims(Codec::int1, 33) == 64 && fllm::plane_places(Codec::int1, 33) == 2);
}

Json linked(const Json& link) {
  Json document = with("reader_features", Json::array({"link"}));
  document["link"] = link;
  return document;
}

void links() {
  CHECK(fllm::Layout::parse(good().dump(), kPath).link.exponential());
  for (int exponent = 1; exponent <= 4; ++exponent) {
    const Json document = linked({{"kind", "power"}, {"exponent", exponent}});
    CHECK(fllm::Layout::parse(document.dump(), kPath).link.exponent == exponent);
  }
  for (const Json& exponent : {Json(0), Json(5), Json(99), Json(-1), Json(UINT64_MAX), Json(2.5), Json(2.0), Json("2"),
                               Json(true), Json(nullptr), Json::array({2})}) {
    REFUSED(parse(linked({{"kind", "power"}, {"exponent", exponent}})), Status::bundle, "users/table.json: `");
  }
  for (const Json& kind : {Json("exponential"), Json("sigmoid"), Json("Power")}) {
    REFUSED(parse(linked({{"kind", kind}, {"exponent", 2}})), Status::bundle, "the kind of `link` is");
  }
  for (const Json& kind : {Json(1), Json(nullptr), Json::object()}) {
    REFUSED(parse(linked({{"kind", kind}, {"exponent", 2}})), Status::bundle, "`kind` is");
  }
  REFUSED(parse(linked({{"kind", "power"}})), Status::bundle, "`exponent` is None");
  REFUSED(parse(linked({{"kind", "power"}, {"exponent", 2}, {"offset", 1}})), Status::bundle, "`link` is");
  REFUSED(parse(linked("power")), Status::bundle, "`link` is 'power'");
  REFUSED(parse(with("link", Json{{"kind", "power"}, {"exponent", 2}})), Status::bundle,
          "`link` is not one of the reader features; expected both or neither");
  REFUSED(parse(with("reader_features", Json::array({"link"}))), Status::bundle, "`link` is missing");
}

}  // namespace

int main() {
  links();
  a_good_layout();
  documents_and_versions();
  fields();
  entries();
  files();
  rows_in_blocks();
  codec_sizes();
  return check::result();
}
