// Rows of the codecs int2 and int4row as docs/reference/format.md lays them out, without any code of the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// Bytes of a row's share of the blocks.
inline std::size_t plane_row_bytes(std::size_t planes, std::size_t dim) { return planes * ((dim + 15) / 16) * 4; }

// The values of rows [rows, dim], which are odd and at most 3 (one plane) or 15 (two) in magnitude, as blocks.
inline std::vector<std::uint8_t> plane_codes(std::size_t planes, std::size_t dim,
                                             const std::vector<std::int8_t>& values) {
  const std::size_t rows = values.size() / dim, groups = (dim + 15) / 16;
  std::vector<std::uint8_t> codes((rows + 15) / 16 * 16 * plane_row_bytes(planes, dim));
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t i = 0; i < dim; ++i) {
      const int level = (values[row * dim + i] + (planes == 1 ? 3 : 15)) / 2;
      for (std::size_t plane = 0; plane < planes; ++plane) {
        const std::size_t group = (row / 16 * planes + plane) * groups + i / 16;
        const int bits = plane + 1 == planes ? level & 3 : level >> 2;
        codes[group * 64 + row % 16 * 4 + i % 4] |= static_cast<std::uint8_t>(bits << (i % 16 / 4 * 2));
      }
    }
  }
  return codes;
}
