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

}  // namespace fllm::kernels
