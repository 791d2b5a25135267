// Rows of the codecs int2 and int4row, whose numbers lie in planes of two bits (kernels/planes.hpp): what a lane takes
// of them, and what tensor cores multiply. Both scans go by it.
#pragma once

#include "cuda/device.hpp"
#include "cuda/score.cuh"
#include "cuda/wave.hpp"
#include "kernels/planes.hpp"

namespace fllm::cuda {

constexpr unsigned kSlabRows = 2 * kernels::kPlaneRows;  // that a warp takes together
constexpr unsigned kStepGroups = 4;                      // of sixteen dimensions, that it takes at once
constexpr unsigned kStepDims = kStepGroups * kernels::kPlaneDims;

// Lane 4 g + t takes, of each plane, a word of each of the rows 4 g to 4 g + 3 of a slab: their dimensions of group t.
// That is what m16n8k32 wants of it: in the slab's m-th tile, rows 4 g + 2 m and 4 g + 2 m + 1 come as rows g and g +
// 8, and four dimensions of a word as four columns. Which columns those are does not matter as long as rows and items
// agree: of the items, lane 4 g + t has dimensions of the group t too.
//
// Multiplied are doubled levels. A value is that less kLargest, which an item's offset takes off the sums.
template <unsigned kPlanes>
struct Planes {
  static constexpr int kLargest = kernels::largest_value(2 * kPlanes);

  // A lane's, plane by plane.
  struct Words {
    int4 planes[kPlanes];
  };

  // To be added to an item's sums.
  __device__ __forceinline__ static int offset(const Item& item) { return -kLargest * item.sum; }

  static_assert(std::uint64_t{kMaxDim} * (kLargest * 8127 + 2 * kLargest * 64) < 1u << 31);  // with a limb's sums

  // Where the sixteen bytes lie that a lane takes of a plane in a step; null where there are none. A slab begins at
  // `first_row` of the wave.
  __device__ __forceinline__ static const std::int8_t* source(const Wave& wave, std::uint64_t first_row, unsigned step,
                                                              unsigned plane, unsigned lane) {
    constexpr unsigned kDims = kernels::kPlaneDims, kRows = kernels::kPlaneRows, kBytes = kernels::kPlaneBytes;
    const unsigned groups = (wave.dim + kDims - 1) / kDims, group = step * kStepGroups + lane % 4;
    const std::uint64_t row = first_row + lane / 16 * kRows;
    if (row >= wave.rows || group >= groups) return nullptr;
    const std::uint64_t number = (row / kRows * kPlanes + plane) * groups + group;
    return wave.codes + number * kBytes + lane / 4 % 4 * kPieceBytes;
  }

  // A lane's fragment of the slab's m-th tile with the h-th 32 of the step's columns: dimensions 8 h to 8 h + 7 of each
  // group, which are the words 2 h and 2 h + 1 of a limb's sixteen bytes.
  __device__ __forceinline__ static void fragment(const Words& words, unsigned m, unsigned h, unsigned (&a)[4]) {
    FLLM_UNROLL
    for (unsigned i = 0; i < 4; ++i) a[i] = doubled(words, 2 * m + i % 2, 2 * h + i / 2);
  }

 private:
  // The doubled levels of the dimensions 4 s to 4 s + 3 of a row's group, a byte each.
  __device__ __forceinline__ static unsigned doubled(const Words& words, unsigned row, unsigned s) {
    unsigned bytes = 0;
    FLLM_UNROLL
    for (unsigned plane = 0; plane < kPlanes; ++plane) {
      const unsigned from = 2 * s, to = 2 * (kPlanes - plane) - 1;  // bits of a byte
      const unsigned word = word_of(words.planes[plane], row);
      bytes |= (from > to ? word >> (from - to) : word << (to - from)) & 0x03030303u << to;
    }
    return bytes;
  }
  __device__ __forceinline__ static unsigned word_of(const int4& words, unsigned row) {
    return static_cast<unsigned>(row == 0 ? words.x : row == 1 ? words.y : row == 2 ? words.z : words.w);
  }
};

}  // namespace fllm::cuda
