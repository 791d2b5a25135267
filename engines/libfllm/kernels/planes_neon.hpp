// What the NEON kernels of bit planes share: a block in four quarters of four rows.
#pragma once

#include <arm_neon.h>

#include "kernels/planes.hpp"

namespace fllm::kernels {

namespace {

// The two-bit numbers of 16 dimensions of four rows, four dimensions a vector; none is negative, so they may pass as
// signed.
inline void unpack_quarter(const std::uint8_t* packed, int8x16_t (&dims)[4]) {
  const uint8x16_t bits = vld1q_u8(packed), low_bits = vdupq_n_u8(3);
  dims[0] = vreinterpretq_s8_u8(vandq_u8(bits, low_bits));
  dims[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bits, 2), low_bits));
  dims[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bits, 4), low_bits));
  dims[3] = vreinterpretq_s8_u8(vshrq_n_u8(bits, 6));
}

inline int32x4_t add_products(int32x4_t sums, const int8x16_t (&dims)[4], int8x16_t limb) {
  sums = vdotq_laneq_s32(sums, dims[0], limb, 0);
  sums = vdotq_laneq_s32(sums, dims[1], limb, 1);
  sums = vdotq_laneq_s32(sums, dims[2], limb, 2);
  return vdotq_laneq_s32(sums, dims[3], limb, 3);
}

// The sums of two-bit numbers times each limb [16 groups], of the block's 16 rows.
template <int Limbs>
inline void plane_sums(const std::uint8_t* plane, std::size_t groups, const std::int8_t* const (&limbs)[Limbs],
                       int32x4_t (&sums)[Limbs][4]) {
  for (auto& quarters : sums) {
    for (int32x4_t& quarter : quarters) quarter = vdupq_n_s32(0);
  }
  for (std::size_t g = 0; g < groups; ++g) {
    int8x16_t parts[Limbs];
    for (int l = 0; l < Limbs; ++l) parts[l] = vld1q_s8(limbs[l] + g * kPlaneDims);
    for (std::size_t quarter = 0; quarter < 4; ++quarter) {
      int8x16_t dims[4];
      unpack_quarter(plane + g * kPlaneBytes + 16 * quarter, dims);
      for (int l = 0; l < Limbs; ++l) sums[l][quarter] = add_products(sums[l][quarter], dims, parts[l]);
    }
  }
}

}  // namespace

}  // namespace fllm::kernels
