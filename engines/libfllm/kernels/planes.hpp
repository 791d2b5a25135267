// How two-bit numbers of rows lie in blocks: in the sketch, and in rows of the codecs int2 and int4row. Plain data and
// plain pointers, as in kernels.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fllm::kernels {

// A block is 16 rows. In each 64 bytes of one of its planes, byte 4 * row + j holds two bits of four dimensions of a
// row: dimension 16 g + 4 s + j of the g-th 64 bytes at bits 2 s. So every 32-bit lane of a vector belongs to one row.
inline constexpr std::size_t kPlaneRows = 16;
inline constexpr std::size_t kPlaneDims = 16;
inline constexpr std::size_t kPlaneBytes = 64;

// Rows of the codecs int2 (one plane) and int4row (two, the upper bits first). A value is 2 * level - largest, with the
// level that a row's bits in all planes make.
struct PlaneBlocks {
  std::size_t count;          // of blocks
  std::size_t planes;         // 1 or 2
  std::size_t groups;         // of 16 dimensions
  const std::uint8_t* codes;  // [count, planes, groups, 64]
};

static constexpr std::int32_t largest_value(std::size_t planes) { return planes == 1 ? 3 : 15; }

static inline const std::uint8_t* block_of(const PlaneBlocks& blocks, std::size_t number) {
  return blocks.codes + number * blocks.planes * blocks.groups * kPlaneBytes;
}

}  // namespace fllm::kernels
