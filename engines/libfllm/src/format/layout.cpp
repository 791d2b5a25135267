#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <stdexcept>

#include "fllm/json.hpp"
#include "format/json_text.hpp"
#include "format/table.hpp"
#include "machine/file.hpp"
#include "status.hpp"

namespace fllm {

namespace {

using nlohmann::json;

constexpr std::uint64_t kFormatVersion = 1;
constexpr std::size_t kFileBytesMax = std::size_t{64} << 20;
constexpr std::uint64_t kCountEnd = std::uint64_t{1} << 48;  // more than any file holds; sums of two fit

[[noreturn]] void refuse(const std::string& found, const std::string& expected = "", const std::string& fix = "") {
  throw Error(Status::bundle, sentence(found, expected, fix));
}

const json& member(const json& object, const char* key) {
  static const json absent;
  const auto found = object.find(key);
  return found == object.end() ? absent : *found;
}

[[noreturn]] void refuse_type(const std::string& path, const char* key, const json& value, const char* type) {
  refuse(path + ": `" + key + "` is " + shown(value), std::string("a value of type ") + type);
}

std::int64_t integer(const json& object, const char* key, const std::string& path) {
  const json& value = member(object, key);
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX});
  if (!fits) refuse_type(path, key, value, "int");
  return value.get<std::int64_t>();
}

std::string string(const json& object, const char* key, const std::string& path) {
  const json& value = member(object, key);
  if (!value.is_string()) refuse_type(path, key, value, "str");
  return value.get<std::string>();
}

bool boolean(const json& object, const char* key, const std::string& path) {
  const json& value = member(object, key);
  if (!value.is_boolean()) refuse_type(path, key, value, "bool");
  return value.get<bool>();
}

// A count as far as files go. `found` says whose it is.
std::uint64_t count(std::int64_t value, std::int64_t least, const std::string& found) {
  if (value < least) refuse(found, "at least " + std::to_string(least));
  if (static_cast<std::uint64_t>(value) >= kCountEnd) refuse(found, "less than " + std::to_string(kCountEnd));
  return static_cast<std::uint64_t>(value);
}

std::uint64_t count(const json& document, const char* key, const std::string& path) {
  const std::int64_t value = integer(document, key, path);
  return count(value, 1, path + ": " + key + " is " + std::to_string(value));
}

Codec codec_of(const std::string& name, const std::string& path) {
  std::string all;
  for (const CodecFacts& facts : kCodecs) {
    if (name == facts.name) return facts.codec;
    all += (all.empty() ? "" : ", ") + std::string(facts.name);
  }
  refuse(path + ": codec is " + shown(name), "one of " + all);
}

void check_file_name(const std::string& name, const std::string& kind, const std::string& path) {
  // A zero byte would end the name for the system, and another file would be opened.
  const bool folders = name.find('/') != std::string::npos || name.find('\0') != std::string::npos;
  if (folders || name.empty() || name == "." || name == "..") {
    refuse(path + ": " + kind + " name " + shown(name), "a file name without folders");
  }
}

ShardEntry read_entry(const json& shard, std::size_t number, const std::string& path) {
  if (!shard.is_object()) refuse(path + ": shards[" + std::to_string(number) + "] is " + shown(shard), "an object");
  ShardEntry entry;
  entry.name = string(shard, "name", path);
  const std::int64_t rows = integer(shard, "rows", path), bytes = integer(shard, "bytes", path);
  entry.sha256 = string(shard, "sha256", path);
  check_file_name(entry.name, "shard", path);
  const std::string whose = path + ": shard " + entry.name + " has ";
  entry.rows = count(rows, 1, whose + std::to_string(rows) + " rows");
  entry.bytes = count(bytes, 0, whose + std::to_string(bytes) + " bytes");
  return entry;
}

// Rows that are stored in blocks: the sketch's, or the codec's own.
void check_blocks(const Layout& layout, const std::string& path) {
  if (layout.tile_rows % kernels::kPlaneRows == 0) return;
  refuse(path + ": tile_rows is " + std::to_string(layout.tile_rows),
         "a multiple of " + std::to_string(kernels::kPlaneRows));
}

void read_sketch(const json& document, const std::string& path, Layout& layout) {
  const bool in_blocks = facts_of(layout.codec).planes > 0;
  if (in_blocks) check_blocks(layout, path);
  if (!document.contains("sketch_dims")) return;
  constexpr std::uint64_t kGroup = kernels::kPlaneDims;
  const std::int64_t dims = integer(document, "sketch_dims", path);
  const std::uint64_t most = (layout.dim + kGroup - 1) / kGroup * kGroup;
  if (dims < 0 || static_cast<std::uint64_t>(dims) > most || static_cast<std::uint64_t>(dims) % kGroup != 0) {
    refuse(path + ": sketch_dims is " + std::to_string(dims),
           "a multiple of " + std::to_string(kGroup) + " from 0 to " + std::to_string(most));
  }
  if (in_blocks && dims > 0) {
    refuse(path + ": sketch_dims is " + std::to_string(dims),
           std::string("0, as codec is ") + codec_name(layout.codec));
  }
  if (dims > 0) check_blocks(layout, path);
  layout.sketch_dims = static_cast<std::size_t>(dims);
}

constexpr const char *kLink = "link", *kRefinement = "refinement", *kTileEnds = "tile_ends",
                     *kTombstones = "tombstones";

// What a reader must know to read a table right.
void check_features(const json& document, const std::string& path) {
  constexpr std::array<std::string_view, 4> kKnown{kLink, kRefinement, kTileEnds, kTombstones};
  if (!document.contains("reader_features")) return;
  const json& needed = member(document, "reader_features");
  std::set<std::string> unknown;
  bool names = needed.is_array();
  for (const json& feature : names ? needed : json::array()) {
    names = names && feature.is_string();
    if (!names) break;
    const std::string name = feature.get<std::string>();
    if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) unknown.insert(name);
  }
  if (!names) refuse(path + ": reader_features is " + shown(needed), "a list of names");
  if (unknown.empty()) return;
  std::string all;
  for (const std::string& name : unknown) all += (all.empty() ? "" : ", ") + name;
  refuse(path + " needs the reader features " + all, "none that this fllm-export does not know", "Upgrade fllm-export");
}

bool is_object(std::string_view text) {
  try {
    return parse_json(text).is_object();
  } catch (const std::invalid_argument&) {
    return false;
  }
}

json read_versioned(std::string_view text, const std::string& path) {
  json document;
  try {
    document = parse_json(text);
  } catch (const std::invalid_argument& error) {
    refuse(path + " is not JSON (" + error.what() + ")", "", "Build it again");
  }
  const json version = document.is_object() ? member(document, "format_version") : json();
  // The parser holds a number as unsigned unless it has a sign.
  const std::uint64_t number = version.is_number_unsigned() ? version.get<std::uint64_t>() : 0;
  if (number < 1) {
    refuse(path + ": format_version is " + shown(version), "an integer from 1 to " + std::to_string(kFormatVersion));
  }
  if (number > kFormatVersion) {
    refuse(path + " has format version " + shown(version),
           "at most " + std::to_string(kFormatVersion) + ", the newest that this fllm-export reads",
           "Upgrade fllm-export, or build again with this one");
  }
  check_features(document, path);
  return document;
}

// Whether the features, which are checked already, hold a name.
bool announces(const json& document, const char* feature) {
  const json& needed = member(document, "reader_features");
  return needed.is_array() && std::find(needed.begin(), needed.end(), feature) != needed.end();
}

std::vector<ShardEntry> read_entries(const json& object, const std::string& path) {
  const json& shards = member(object, "shards");
  if (!shards.is_array()) refuse_type(path, "shards", shards, "list");
  std::vector<ShardEntry> entries;
  entries.reserve(shards.size());
  for (const json& shard : shards) entries.push_back(read_entry(shard, entries.size(), path));
  return entries;
}

// Which rows are deleted; known are the rows of all shards.
void read_tombstones(const json& document, const std::string& path, Layout& layout) {
  const json& listed = member(document, kTombstones);
  const bool named = announces(document, kTombstones);
  if (named == listed.is_null() || (named && !listed.is_object())) {
    refuse(path + ": `tombstones` is " + shown(listed),
           std::string("an object, and only with the reader feature ") + kTombstones);
  }
  if (!named) return;
  TombstonesEntry& entry = layout.tombstones;
  entry.name = string(listed, "name", path);
  check_file_name(entry.name, "tombstones", path);
  string(listed, "sha256", path);
  const std::int64_t rows = integer(listed, "rows", path), deleted = integer(listed, "deleted", path);
  const std::int64_t bytes = integer(listed, "bytes", path);
  entry.rows = count(rows, 1, path + ": tombstones of " + std::to_string(rows) + " rows");
  entry.deleted = count(deleted, 1, path + ": tombstones of " + std::to_string(deleted) + " deleted rows");
  entry.bytes = count(bytes, 0, path + ": tombstones of " + std::to_string(bytes) + " bytes");
  if (entry.rows > layout.stored_rows || entry.deleted > entry.rows) {
    refuse(path + ": " + std::to_string(deleted) + " of " + std::to_string(rows) + " rows are deleted",
           "at most the " + std::to_string(layout.stored_rows) + " rows of all shards");
  }
}

// After everything else: a reader that does not know it would take item vectors of another dimension.
void read_refinement(const json& document, const std::string& path, Layout& layout) {
  const bool announced = announces(document, kRefinement);
  if (announced != document.contains(kRefinement)) {
    refuse(path + ": `refinement` is " + (announced ? "missing" : "not one of the reader features"), "both or neither");
  }
  if (!announced) return;
  const json& found = member(document, kRefinement);
  if (!found.is_object()) refuse_type(path, kRefinement, found, "dict");
  RefinementLayout refinement;
  refinement.codec = codec_of(string(found, "codec", path), path);
  if (refinement.codec != Codec::int8 && refinement.codec != Codec::fp16) {
    refuse(path + ": the codec of the refinement is '" + codec_name(refinement.codec) + "'", "one of int8, fp16");
  }
  refinement.dim = static_cast<std::size_t>(count(found, "dim", path));
  if (refinement.dim < layout.dim) {
    refuse(path + ": the refinement has " + std::to_string(refinement.dim) + " dimensions",
           "at least the " + std::to_string(layout.dim) + " of the rows");
  }
  refinement.shards = read_entries(found, path);
  const auto same_rows = [](const ShardEntry& a, const ShardEntry& b) { return a.rows == b.rows; };
  if (!std::equal(refinement.shards.begin(), refinement.shards.end(), layout.shards.begin(), layout.shards.end(),
                  same_rows)) {
    refuse(path + ": the shards of the refinement hold other rows than those of the table",
           "a shard of as many rows for each shard of the table");
  }
  layout.refinement = std::move(refinement);
}

// A reader that does not know it would give other probabilities.
void read_link(const json& document, const std::string& path, Layout& layout) {
  const bool announced = announces(document, kLink);
  if (announced != document.contains(kLink)) {
    refuse(path + ": `link` is " + (announced ? "missing" : "not one of the reader features"), "both or neither");
  }
  if (!announced) return;
  const json& found = member(document, kLink);
  if (!found.is_object()) refuse_type(path, kLink, found, "dict");
  const std::string kind = string(found, "kind", path);
  if (kind != "power") refuse(path + ": the kind of `link` is " + shown(kind), "power", "Upgrade fllm-export");
  const std::int64_t exponent = integer(found, "exponent", path);
  if (exponent < 1 || exponent > Link::kLargestExponent || found.size() != 2) {
    refuse(path + ": `link` is " + shown(found),
           "kind, and an exponent from 1 to " + std::to_string(Link::kLargestExponent));
  }
  layout.link.exponent = static_cast<int>(exponent);
}

// A reader that does not know it would cut other tiles.
void read_tile_ends(const json& document, const std::string& path, Layout& layout) {
  const bool announced = announces(document, kTileEnds);
  if (announced != document.contains(kTileEnds)) {
    refuse(path + ": `tile_ends` is " + (announced ? "missing" : "not one of the reader features"), "both or neither");
  }
  if (!announced) return;
  for (const char* key : {kTileEnds, "tile_bounds"}) {
    const json& value = member(document, key);
    if (value != true) refuse(path + ": `" + key + "` is " + shown(value), "true, as tiles have ends");
  }
  layout.tile_ends = true;
}

}  // namespace

Layout Layout::parse(std::string_view text, const std::string& path) {
  const json document = read_versioned(text, path);
  std::vector<ShardEntry> shards = read_entries(document, path);
  Layout layout;
  layout.codec = codec_of(string(document, "codec", path), path);
  layout.dim = static_cast<std::size_t>(count(document, "dim", path));
  layout.rows = count(document, "rows", path);
  layout.tile_rows = count(document, "tile_rows", path);
  layout.bias = boolean(document, "bias", path);
  layout.generation = integer(document, "generation", path);
  if (layout.generation < 1) refuse(path + ": generation is " + std::to_string(layout.generation), "at least 1");
  read_sketch(document, path, layout);
  if (document.contains("tile_bounds")) layout.tile_bounds = boolean(document, "tile_bounds", path);
  read_tile_ends(document, path, layout);
  layout.shards = std::move(shards);
  for (const ShardEntry& shard : layout.shards) {
    layout.stored_rows = std::min(layout.stored_rows + shard.rows, kCountEnd);
  }
  read_tombstones(document, path, layout);
  const std::uint64_t total = layout.stored_rows - layout.tombstones.deleted;
  if (total != layout.rows) {
    refuse(path + ": the shards hold " + std::to_string(total) + " rows",
           std::to_string(layout.rows) + ", as `rows` says");
  }
  read_refinement(document, path, layout);
  read_link(document, path, layout);
  return layout;
}

std::uint64_t Layout::keep_part(std::uint32_t part, std::uint32_t parts) {
  std::vector<ShardEntry> kept, finer;
  std::uint64_t row = 0, first = 0, rows = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    // In double, as in Python: every reader comes to the same parts.
    const double middle = static_cast<double>(2 * row + shards[i].rows) / static_cast<double>(2 * stored_rows);
    if (static_cast<std::uint32_t>(middle * parts) == part) {
      if (kept.empty()) first = row;
      rows += shards[i].rows;
      kept.push_back(shards[i]);
      if (refinement) finer.push_back(refinement->shards[i]);
    }
    row += shards[i].rows;
  }
  shards = std::move(kept);
  if (refinement) refinement->shards = std::move(finer);
  stored_rows = rows;
  return first;
}

Layout Layout::load(const std::string& directory) {
  const std::string path = (std::filesystem::path(directory) / kFileName).string();
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code)) {
    refuse(directory + " holds no " + kFileName, "a user table", "Name the directory that holds it");
  }
  const std::string text = File(path, "a user table").text(kFileBytesMax);
  if (const std::string before = (std::filesystem::path(directory) / kPreviousName).string();
      !is_object(text) && std::filesystem::is_regular_file(before, code)) {
    Layout layout = parse(File(before, "a user table").text(kFileBytesMax), before);
    layout.recovered = true;
    return layout;
  }
  return parse(text, path);
}

}  // namespace fllm
