// What the scalar kernels of bit planes share.
#pragma once

#include "kernels/planes.hpp"

namespace fllm::kernels {

namespace {

// The two-bit number at bits 2 s of byte j of a row's lane, in the g-th group of a plane; or a single bit, of groups
// that share their bytes two by two.
template <bool OneBit = false>
inline unsigned number_at(const std::uint8_t* plane, std::size_t row, std::size_t g, std::size_t s, std::size_t j) {
  const std::size_t place = OneBit ? g / 2 : g, from = OneBit ? 2 * s + g % 2 : 2 * s;
  return (static_cast<unsigned>(plane[place * kPlaneBytes + 4 * row + j]) >> from) & (OneBit ? 1 : 3);
}

// The sum of a row's numbers times a limb [16 groups].
template <bool OneBit = false>
inline std::int32_t row_sum(const std::uint8_t* plane, std::size_t row, std::size_t groups, const std::int8_t* limb) {
  std::int32_t sum = 0;
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t s = 0; s < 4; ++s) {
      for (std::size_t j = 0; j < 4; ++j) {
        sum += static_cast<std::int32_t>(number_at<OneBit>(plane, row, g, s, j)) * limb[g * kPlaneDims + 4 * s + j];
      }
    }
  }
  return sum;
}

}  // namespace

}  // namespace fllm::kernels
