// The kernels of rows in bit planes in plain C++: the definition that the others are held to.
#include "kernels/planes_scalar.hpp"
#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

std::int32_t dot(const PlaneBlocks& blocks, const std::uint8_t* block, std::size_t row, const void* packed) {
  const std::int8_t* limb = limb_of(packed);
  std::int32_t sum =
      blocks.bits == 1 ? row_sum<true>(block, row, blocks.groups, limb) : row_sum(block, row, blocks.groups, limb);
  if (blocks.bits == 4) sum = 4 * sum + row_sum(block + plane_bytes(blocks), row, blocks.groups, limb);
  return 2 * sum - largest_value(blocks.bits) * limb_sum(packed);
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
      const std::size_t row = r % kPlaneRows;
      unsigned level = blocks.bits == 1 ? number_at<true>(block, row, g, s, j) : number_at(block, row, g, s, j);
      if (blocks.bits == 4) level = 4 * level + number_at(block + plane_bytes(blocks), row, g, s, j);
      values[r * dims + i] = static_cast<std::int8_t>(2 * static_cast<int>(level) - largest_value(blocks.bits));
    }
  }
}

}  // namespace

void fill_planes_scalar(Kernels& kernels) {
  kernels.planes_one = one;
  kernels.planes_unpack = unpack;
}

}  // namespace fllm::kernels
