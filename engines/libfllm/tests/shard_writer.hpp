// Writes shards and tables, good ones and others, without any code of the library.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "directory.hpp"

namespace writer {

using Json = nlohmann::ordered_json;

struct Piece {
  std::string name, dtype;
  std::vector<std::uint64_t> shape;
  std::string bytes;
};

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// A safetensors file of a header, as text, and data. The header is padded with spaces to a page if `pad`.
inline std::string file_of(std::string header, const std::string& data, bool pad = true) {
  if (pad) header.append((4096 - (8 + header.size()) % 4096) % 4096, ' ');
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(std::uint64_t{header.size()} >> (8 * i) & 255);
  return file + header + data;
}

// Header and data of tensors, each of which starts on a page.
inline std::pair<Json, std::string> layout_of(const std::vector<Piece>& pieces) {
  Json header = {{"__metadata__", {{"format", "fllm-users"}}}};
  std::string data;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    const std::size_t begin = data.size();
    data += piece.bytes;
    header[piece.name] = {{"dtype", piece.dtype}, {"shape", piece.shape}, {"data_offsets", {begin, data.size()}}};
    const std::size_t end = data.size(), gap = (4096 - end % 4096) % 4096;
    if (gap == 0 || i + 1 == pieces.size()) continue;
    data.append(gap, '\0');
    header["padding." + std::to_string(i)] = {{"dtype", "U8"}, {"shape", {gap}}, {"data_offsets", {end, end + gap}}};
  }
  return {header, data};
}

inline std::string shard_of(const std::vector<Piece>& pieces) {
  const auto [header, data] = layout_of(pieces);
  return file_of(header.dump(), data);
}

// int8 rows [rows, dim] with scales and ids that follow from the row's number in the table.
inline std::vector<Piece> int8_pieces(std::uint64_t first_row, std::uint64_t rows, std::uint64_t dim) {
  std::vector<std::int8_t> codes(rows * dim);
  std::vector<float> scales(rows);
  std::vector<std::int64_t> ids(rows);
  for (std::uint64_t r = 0; r < rows; ++r) {
    for (std::uint64_t j = 0; j < dim; ++j) {
      codes[r * dim + j] = static_cast<std::int8_t>(((first_row + r) * 31 + j * 7) % 255 - 127);
    }
    scales[r] = 0.25f + static_cast<float>(first_row + r);
    ids[r] = static_cast<std::int64_t>(3 * (first_row + r));
  }
  return {{"codes", "I8", {rows, dim}, bytes_of(codes)},
          {"scales", "F32", {rows}, bytes_of(scales)},
          {"ids", "I64", {rows}, bytes_of(ids)}};
}

inline std::string shard_name(std::size_t number) {
  const std::string digits = std::to_string(number);
  return std::string(5 - digits.size(), '0') + digits + ".safetensors";
}

// table.json of an int8 table whose shards hold so many rows.
inline Json table_json(const std::vector<std::uint64_t>& shard_rows, std::uint64_t dim, std::uint64_t tile_rows) {
  Json shards = Json::array();
  std::uint64_t rows = 0;
  for (std::size_t i = 0; i < shard_rows.size(); ++i) {
    shards.push_back({{"name", shard_name(i)}, {"rows", shard_rows[i]}, {"bytes", 0}, {"sha256", ""}});
    rows += shard_rows[i];
  }
  return {{"format_version", 1},    {"codec", "int8"}, {"dim", dim},      {"rows", rows},
          {"tile_rows", tile_rows}, {"bias", false},   {"generation", 1}, {"shards", shards}};
}

inline void write_table(const Directory& directory, const std::vector<std::uint64_t>& shard_rows, std::uint64_t dim,
                        std::uint64_t tile_rows) {
  std::uint64_t row = 0;
  for (std::size_t i = 0; i < shard_rows.size(); ++i) {
    directory.write(shard_name(i), shard_of(int8_pieces(row, shard_rows[i], dim)));
    row += shard_rows[i];
  }
  directory.write("table.json", table_json(shard_rows, dim, tile_rows).dump());
}

}  // namespace writer
