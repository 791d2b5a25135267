// The tile instructions that int8_amx.cpp uses, in software, by their definition in Intel's architecture manual. What
// the processor would answer with an exception ends the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace amx_emulation {

struct Tile {
  std::size_t rows = 0, row_bytes = 0;
  std::int8_t bytes[16][64] = {};

  std::int32_t sum(std::size_t row, std::size_t column) const {
    std::int32_t value;
    std::memcpy(&value, &bytes[row][4 * column], sizeof value);
    return value;
  }
  void set_sum(std::size_t row, std::size_t column, std::int32_t value) {
    std::memcpy(&bytes[row][4 * column], &value, sizeof value);
  }
};

inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "a tile instruction would fault: %s\n", what);
  std::abort();
}

// 64 bytes: palette, first row, 14 reserved, 16 row lengths of two bytes, 16 numbers of rows.
inline void load_config(const void* memory) {
  std::uint8_t config[64];
  std::memcpy(config, memory, sizeof config);
  require(config[0] == 1, "unknown palette");
  for (int i = 1; i < 16; ++i) require(config[i] == 0, "reserved bytes are set");
  for (int t = 0; t < 16; ++t) {
    const std::size_t row_bytes = config[16 + 2 * t] + 256u * config[17 + 2 * t];
    const std::size_t rows = config[48 + t];
    require(row_bytes <= 64 && rows <= 16, "the tile is too large");
    require((row_bytes == 0) == (rows == 0), "half of a shape");
    require(t < 8 || rows == 0, "there are eight tiles");
    if (t >= 8) continue;
    tiles[t] = Tile{};
    tiles[t].rows = rows;
    tiles[t].row_bytes = row_bytes;
  }
  configured = true;
}

inline void release() { configured = false; }

inline Tile& tile(int number) {
  require(configured && number >= 0 && number < 8 && tiles[number].rows > 0, "the tile has no shape");
  return tiles[number];
}

inline void zero(int number) { std::memset(tile(number).bytes, 0, sizeof(Tile::bytes)); }

inline void load(int number, const void* memory, std::size_t stride) {
  zero(number);
  Tile& target = tile(number);
  for (std::size_t r = 0; r < target.rows; ++r) {
    std::memcpy(target.bytes[r], static_cast<const char*>(memory) + r * stride, target.row_bytes);
  }
}

inline void store(int number, void* memory, std::size_t stride) {
  const Tile& source = tile(number);
  for (std::size_t r = 0; r < source.rows; ++r) {
    std::memcpy(static_cast<char*>(memory) + r * stride, source.bytes[r], source.row_bytes);
  }
}

// sums[m][n] += the products of four signed bytes, a[m][4k + i] * b[k][4n + i], over all k.
inline void dot_product(int sums_number, int a_number, int b_number) {
  require(sums_number != a_number && sums_number != b_number && a_number != b_number, "a tile is named twice");
  Tile& sums = tile(sums_number);
  const Tile& a = tile(a_number);
  const Tile& b = tile(b_number);
  require(sums.row_bytes % 4 == 0 && a.row_bytes % 4 == 0 && b.row_bytes % 4 == 0, "a row is no whole number of quads");
  require(sums.rows == a.rows && sums.row_bytes == b.row_bytes && a.row_bytes == 4 * b.rows, "shapes do not match");
  for (std::size_t m = 0; m < sums.rows; ++m) {
    for (std::size_t n = 0; n < sums.row_bytes / 4; ++n) {
      std::int32_t sum = sums.sum(m, n);
      for (std::size_t k = 0; k < b.rows; ++k) {
        for (std::size_t i = 0; i < 4; ++i) sum += a.bytes[m][4 * k + i] * b.bytes[k][4 * n + i];
      }
      sums.set_sum(m, n, sum);
    }
  }
}

}  // namespace amx_emulation

#define _tile_loadconfig amx_emulation::load_config
#define _tile_release amx_emulation::release
#define _tile_zero amx_emulation::zero
#define _tile_loadd amx_emulation::load
#define _tile_stored amx_emulation::store
#define _tile_dpbssd amx_emulation::dot_product
