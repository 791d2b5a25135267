// Many int8 items with the tile instructions of AMX. A test compiles this file a second time with the instructions in
// software, which proves its packing and indexing; a run on a processor that has them is still needed.
#if defined(FLLM_AMX_EMULATION)
#include "tests/amx_emulation.hpp"
#else
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kTileRows = 16;

// Tiles 0 to 3 are sums, [first rows, second rows] x [first group, second group]; 4 and 5 are the codes of the first
// and of the second rows; 6 and 7 are the quads of the first and of the second group.
struct alignas(kLine) Config {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// GCC does not know that the tile instructions read memory; what was written before this call stays before it.
void written(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

// Tiles read and write no more rows than there are; those that stay unused keep a valid shape.
void configure(std::size_t rows) {
  const std::size_t first = rows < kTileRows ? rows : kTileRows;
  const std::size_t second = rows > kTileRows ? rows - kTileRows : kTileRows;
  Config config;
  config.rows[0] = config.rows[1] = config.rows[4] = static_cast<std::uint8_t>(first);
  config.rows[2] = config.rows[3] = config.rows[5] = static_cast<std::uint8_t>(second);
  written(&config);
  _tile_loadconfig(&config);
}

// Up to 32 rows, and a copy of what is left of them behind their last whole line, padded with zeros.
struct Rows {
  const std::int8_t* codes;
  std::size_t dim;
  std::size_t count;
  alignas(kLine) std::int8_t rest[2 * kTileRows][kLine];

  Rows(const std::int8_t* first, std::size_t dim_, std::size_t count_) : codes(first), dim(dim_), count(count_) {
    const std::size_t whole = dim / kLine * kLine;
    if (whole == dim) return;
    __builtin_memset(rest, 0, sizeof rest);
    for (std::size_t r = 0; r < count; ++r) __builtin_memcpy(rest[r], codes + r * dim + whole, dim - whole);
    written(rest);
  }
};

// Adds the products of a line of each row with 16 quads of each group.
template <bool SecondRows, bool SecondGroup>
inline void add_line(const std::int8_t* codes, std::size_t stride, const std::int8_t* quads, std::size_t group_stride) {
  _tile_loadd(4, codes, stride);
  _tile_loadd(6, quads, kLine);
  _tile_dpbssd(0, 4, 6);
  if constexpr (SecondGroup) {
    _tile_loadd(7, quads + group_stride, kLine);
    _tile_dpbssd(1, 4, 7);
  }
  if constexpr (SecondRows) {
    _tile_loadd(5, codes + kTileRows * stride, stride);
    _tile_dpbssd(2, 5, 6);
    if constexpr (SecondGroup) _tile_dpbssd(3, 5, 7);
  }
}

template <bool SecondRows, bool SecondGroup>
void block(const Rows& rows, std::size_t items, const std::int8_t* packed, std::int32_t* out) {
  const std::size_t group_stride = group_bytes(rows.dim);
  const std::int8_t* quads = packed + kLine;
  _tile_zero(0);
  if constexpr (SecondGroup) _tile_zero(1);
  if constexpr (SecondRows) _tile_zero(2);
  if constexpr (SecondRows && SecondGroup) _tile_zero(3);
  std::size_t j = 0;
  for (; j + kLine <= rows.dim; j += kLine) {
    add_line<SecondRows, SecondGroup>(rows.codes + j, rows.dim, quads + j * kItemLanes, group_stride);
  }
  if (j < rows.dim) add_line<SecondRows, SecondGroup>(rows.rest[0], kLine, quads + j * kItemLanes, group_stride);
  const std::size_t stride = items * sizeof(std::int32_t);
  std::int32_t* second = out + kTileRows * items;
  _tile_stored(0, out, stride);
  if constexpr (SecondGroup) _tile_stored(1, out + kItemLanes, stride);
  if constexpr (SecondRows) _tile_stored(2, second, stride);
  if constexpr (SecondRows && SecondGroup) _tile_stored(3, second + kItemLanes, stride);
}

template <bool SecondRows>
void groups(const Rows& rows, std::size_t items, const void* packed, std::int32_t* out) {
  std::size_t i = 0;
  for (; i + 2 * kItemLanes <= items; i += 2 * kItemLanes) {
    block<SecondRows, true>(rows, items, group_of(packed, rows.dim, i / kItemLanes), out + i);
  }
  if (i < items) block<SecondRows, false>(rows, items, group_of(packed, rows.dim, i / kItemLanes), out + i);
}

void all_groups(const Rows& rows, std::size_t items, const void* packed, std::int32_t* out) {
  if (rows.count > kTileRows) {
    groups<true>(rows, items, packed, out);
  } else {
    groups<false>(rows, items, packed, out);
  }
}

void many(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items, const void* packed_high,
          const void* packed_low, std::int32_t* high, std::int32_t* low) {
  std::size_t configured = 0;
  for (std::size_t r = 0; r < rows; r += 2 * kTileRows) {
    const std::size_t count = rows - r < 2 * kTileRows ? rows - r : 2 * kTileRows;
    if (count != configured) configure(count);
    configured = count;
    const Rows part(codes + r * dim, dim, count);
    all_groups(part, items, packed_high, high + r * items);
    if (packed_low != nullptr) all_groups(part, items, packed_low, low + r * items);
  }
  _tile_release();
}

}  // namespace

void fill_int8_amx(Kernels& kernels) { kernels.int8_many = many; }

}  // namespace fllm::kernels
