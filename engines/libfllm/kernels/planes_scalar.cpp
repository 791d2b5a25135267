// The kernels of rows in bit planes in plain C++: the definition that the others are held to.
#include "kernels/planes_scalar.hpp"
#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

std::int32_t dot(const PlaneBlocks& blocks, const std::uint8_t* block, std::size_t row, const void* packed) {
  std::int32_t sum = 0;
  for (std::size_t plane = 0; plane < blocks.planes; ++plane) {
    sum = 4 * sum + row_sum(block + plane * blocks.groups * kPlaneBytes, row, blocks.groups, limb_of(packed));
  }
  return 2 * sum - largest_value(blocks.planes) * limb_sum(packed);
}

void one(const PlaneBlocks& blocks, const void* packed_high, const void* packed_low, std::int32_t* high,
         std::int32_t* low) {
  for (std::size_t r = 0; r < blocks.count * kPlaneRows; ++r) {
    const std::uint8_t* block = block_of(blocks, r / kPlaneRows);
    high[r] = dot(blocks, block, r % kPlaneRows, packed_high);
    low[r] = dot(blocks, block, r % kPlaneRows, packed_low);
  }
}

void unpack(const PlaneBlocks& blocks, std::int8_t* values) {
  const std::size_t dims = blocks.groups * kPlaneDims;
  for (std::size_t r = 0; r < blocks.count * kPlaneRows; ++r) {
    const std::uint8_t* block = block_of(blocks, r / kPlaneRows);
    for (std::size_t i = 0; i < dims; ++i) {
      const std::size_t g = i / kPlaneDims, s = i % kPlaneDims / 4, j = i % 4;
      unsigned level = 0;
      for (std::size_t plane = 0; plane < blocks.planes; ++plane) {
        level = 4 * level + two_bits(block + plane * blocks.groups * kPlaneBytes, r % kPlaneRows, g, s, j);
      }
      values[r * dims + i] = static_cast<std::int8_t>(2 * static_cast<int>(level) - largest_value(blocks.planes));
    }
  }
}

}  // namespace

void fill_planes_scalar(Kernels& kernels) {
  kernels.planes_one = one;
  kernels.planes_unpack = unpack;
}

}  // namespace fllm::kernels
