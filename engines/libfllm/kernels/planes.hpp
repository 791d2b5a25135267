// How numbers of few bits of rows lie in blocks: in the sketch, and in rows of the codecs int1, int2 and int4row. Plain
// data and plain pointers, as in kernels.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fllm::kernels {

// A block is 16 rows. In each 64 bytes of one of its planes, byte 4 * row + j holds two bits of four dimensions of a
// row: dimension 16 g + 4 s + j of the g-th 64 bytes at bits 2 s. So every 32-bit lane of a vector belongs to one row.
inline constexpr std::size_t kPlaneRows = 16;
inline constexpr std::size_t kPlaneDims = 16;
inline constexpr std::size_t kPlaneBytes = 64;

// Rows of the codecs int1, int2 (one plane each) and int4row (two, the upper bits first). A value is 2 * level -
// largest, with the level that a row's bits make. Two groups of int1 share 64 bytes: a two-bit number is a dimension of
// the first group plus twice that of the second, so that the kernels of two bits multiply single bits too.
struct PlaneBlocks {
  std::size_t count;          // of blocks
  std::size_t bits;           // of a number: 1, 2 or 4
  std::size_t groups;         // of 16 dimensions; of one bit an even number
  const std::uint8_t* codes;  // [count, planes, groups, 64]; of one bit [count, groups / 2, 64]
};

static constexpr std::int32_t largest_value(std::size_t bits) { return (1 << bits) - 1; }

static inline std::size_t plane_bytes(const PlaneBlocks& blocks) {
  return (blocks.bits == 1 ? blocks.groups / 2 : blocks.groups) * kPlaneBytes;
}

static inline std::size_t block_bytes(const PlaneBlocks& blocks) {
  return (blocks.bits == 4 ? 2 : 1) * plane_bytes(blocks);
}

static inline const std::uint8_t* block_of(const PlaneBlocks& blocks, std::size_t number) {
  return blocks.codes + number * block_bytes(blocks);
}

}  // namespace fllm::kernels
