// Writes a table with refinement rows: int8 rows of 12 dimensions, of which the first 8 are scanned.
#pragma once

#include "shard_writer.hpp"

namespace writer {

inline constexpr std::uint64_t kScanDim = 8, kDim = 12, kRows = 1500;
inline const std::vector<std::uint64_t> kShards{1000, 500};

inline std::string refinement_name(std::size_t number) { return "refine-" + shard_name(number); }

inline std::vector<Piece> refinement_pieces(std::uint64_t first_row, std::uint64_t rows) {
  std::vector<Piece> pieces = int8_pieces(first_row, rows, kDim);
  pieces.pop_back();  // the ids, which the rows that are scanned have
  return pieces;
}

inline Json refined_json() {
  Json document = table_json(kShards, kScanDim, 256);
  Json shards = Json::array();
  for (std::size_t i = 0; i < kShards.size(); ++i) {
    shards.push_back({{"name", refinement_name(i)}, {"rows", kShards[i]}, {"bytes", 7}, {"sha256", ""}});
  }
  document["reader_features"] = {"refinement"};
  document["refinement"] = {{"codec", "int8"}, {"dim", kDim}, {"shards", shards}};
  return document;
}

// Rows of kDim dimensions, of which the first are scanned.
inline void write_refined(const Directory& directory) {
  write_table(directory, kShards, kScanDim, 256);
  std::uint64_t row = 0;
  for (std::size_t i = 0; i < kShards.size(); ++i) {
    directory.write(refinement_name(i), shard_of(refinement_pieces(row, kShards[i])));
    row += kShards[i];
  }
  directory.write("table.json", refined_json().dump());
}

}  // namespace writer
