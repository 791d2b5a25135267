// Tiles of uneven size: where a shard says that they end, and shards that lie about it.
#include <cstdint>
#include <limits>

#include "format/table.hpp"
#include "refusal.hpp"
#include "shard_writer.hpp"

namespace {

using fllm::Status;

constexpr std::uint64_t kRows = 700, kDim = 5, kTileRows = 256;

using Ends = std::vector<std::int64_t>;

// A table of one shard of as many bounds as there are ends.
void write_table(const writer::Directory& directory, const Ends& ends, const std::string& dtype = "I64") {
  std::vector<writer::Piece> pieces = writer::int8_pieces(0, kRows, kDim);
  const std::uint64_t item = dtype == "I64" ? 1 : 2;
  pieces.push_back({"tile_ends", dtype, {ends.size() * item}, writer::bytes_of(ends)});
  pieces.push_back(
      {"tile_directions", "F32", {ends.size(), kDim}, writer::bytes_of(std::vector<float>(ends.size() * kDim))});
  pieces.push_back({"tile_extents",
                    "F32",
                    {ends.size(), fllm::kTileExtents},
                    writer::bytes_of(std::vector<float>(ends.size() * fllm::kTileExtents))});
  directory.write(writer::shard_name(0), writer::shard_of(pieces));
  writer::Json json = writer::table_json({kRows}, kDim, kTileRows);
  json["tile_bounds"] = true;
  json["tile_ends"] = true;
  json["reader_features"] = {"tile_ends"};
  directory.write("table.json", json.dump());
}

void tiles_end_where_the_shard_says() {
  const writer::Directory directory;
  const Ends ends{16, 176, 688, 700};
  write_table(directory, ends);
  for (const bool resident : {false, true}) {
    const fllm::Table table(directory.path(), {resident});
    CHECK(table.layout().tile_ends);
    CHECK(table.tiles().size() == ends.size());
    std::uint64_t start = 0;
    for (std::size_t t = 0; t < ends.size(); ++t) {
      const fllm::Tile& tile = table.tiles()[t];
      CHECK(tile.first_row == start && tile.sketch_row == start);
      CHECK(tile.rows == static_cast<std::uint64_t>(ends[t]) - start);
      CHECK(tile.ids == table.tiles()[0].ids + start);
      CHECK(tile.codes == table.tiles()[0].codes + start * kDim);
      CHECK(tile.direction == table.tiles()[0].direction + t * kDim);
      CHECK(tile.extents == table.tiles()[0].extents + t * fllm::kTileExtents);
      start += tile.rows;
    }
  }
}

void a_shard_without_ends_has_full_tiles() {
  const writer::Directory directory;
  writer::Json json = writer::table_json({kRows}, kDim, kTileRows);
  std::vector<writer::Piece> pieces = writer::int8_pieces(0, kRows, kDim);
  pieces.push_back({"tile_directions", "F32", {3, kDim}, writer::bytes_of(std::vector<float>(3 * kDim))});
  pieces.push_back({"tile_extents", "F32", {3, 4}, writer::bytes_of(std::vector<float>(12))});
  directory.write(writer::shard_name(0), writer::shard_of(pieces));
  json["tile_bounds"] = true;
  json["tile_ends"] = true;
  json["reader_features"] = {"tile_ends"};
  directory.write("table.json", json.dump());
  const fllm::Table table(directory.path());
  CHECK(table.tiles().size() == 3 && table.tiles()[0].rows == kTileRows);
}

void ends_that_lie() {
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  const auto refuse = [](const Ends& ends, const std::string& found, const std::string& expected) {
    const writer::Directory directory;
    write_table(directory, ends);
    REFUSED(fllm::Table(directory.path()), Status::bundle,
            directory.path(writer::shard_name(0)) + ": " + found + "; expected " + expected);
  };
  const std::string ascending = "ends that ascend in multiples of 16, by at most 512. Build the table again.";
  refuse({0, 700}, "tile 0 is rows 0 to 0", ascending);
  refuse({-16, 700}, "tile 0 is rows 0 to -16", ascending);
  refuse({kLeast, 700}, "tile 0 is rows 0 to -9223372036854775808", ascending);
  refuse({kMost, 700}, "tile 0 is rows 0 to 9223372036854775807", ascending);
  refuse({256, kMost - 15}, "tile 1 is rows 256 to 9223372036854775792", ascending);
  refuse({256, 240, 700}, "tile 1 is rows 256 to 240", ascending);
  refuse({256, 256, 700}, "tile 1 is rows 256 to 256", ascending);
  refuse({250, 700}, "tile 1 is rows 250 to 700", ascending);
  refuse({176, 700}, "tile 1 is rows 176 to 700", ascending);
  refuse({700}, "tile 0 is rows 0 to 700", ascending);
  refuse({256, 704}, "tile 1 is rows 256 to 704", ascending);
  refuse({256, 700, 716}, "tile 2 is rows 700 to 716", ascending);
  refuse({256, 688}, "the last of 2 tiles ends at row 688", "row 700.");
}

void ends_of_another_type() {
  const writer::Directory directory;
  write_table(directory, {256, 700}, "F32");
  REFUSED(fllm::Table(directory.path()), Status::bundle,
          directory.path(writer::shard_name(0)) + ": tensor `tile_ends` is F32 [4]; expected I64 [n].");
}

}  // namespace

int main() {
  tiles_end_where_the_shard_says();
  a_shard_without_ends_has_full_tiles();
  ends_that_lie();
  ends_of_another_type();
  return check::result();
}
