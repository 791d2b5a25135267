// What the NEON kernels of bit planes share: a block in four quarters of four rows.
#pragma once

#include <arm_neon.h>

#include "kernels/planes.hpp"

namespace fllm::kernels {

namespace {

// The numbers of 16 dimensions of four rows, four dimensions a vector, of the bits that `mask` selects; none is
// negative, so they may pass as signed.
inline void unpack_quarter(uint8x16_t bits, std::uint8_t mask, int8x16_t (&dims)[4]) {
  const uint8x16_t low_bits = vdupq_n_u8(mask);
  dims[0] = vreinterpretq_s8_u8(vandq_u8(bits, low_bits));
  dims[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bits, 2), low_bits));
  dims[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bits, 4), low_bits));
  dims[3] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bits, 6), low_bits));
}

inline int32x4_t add_products(int32x4_t sums, const int8x16_t (&dims)[4], int8x16_t limb) {
  sums = vdotq_laneq_s32(sums, dims[0], limb, 0);
  sums = vdotq_laneq_s32(sums, dims[1], limb, 1);
  sums = vdotq_laneq_s32(sums, dims[2], limb, 2);
  return vdotq_laneq_s32(sums, dims[3], limb, 3);
}

// The sums of numbers times each limb [16 groups], of the block's 16 rows.
template <int Limbs, bool OneBit = false>
inline void plane_sums(const std::uint8_t* plane, std::size_t groups, const std::int8_t* const (&limbs)[Limbs],
                       int32x4_t (&sums)[Limbs][4]) {
  for (auto& quarters : sums) {
    for (int32x4_t& quarter : quarters) quarter = vdupq_n_s32(0);
  }
  const auto add = [&](uint8x16_t bits, std::size_t g, std::size_t quarter) {
    int8x16_t dims[4];
    unpack_quarter(bits, OneBit ? 1 : 3, dims);
    for (int l = 0; l < Limbs; ++l) {
      sums[l][quarter] = add_products(sums[l][quarter], dims, vld1q_s8(limbs[l] + g * kPlaneDims));
    }
  };
  for (std::size_t g = 0; g < groups; g += OneBit ? 2 : 1) {
    for (std::size_t quarter = 0; quarter < 4; ++quarter) {
      const uint8x16_t bits = vld1q_u8(plane + 16 * quarter);
      add(bits, g, quarter);
      if (OneBit) add(vshrq_n_u8(bits, 1), g + 1, quarter);
    }
    plane += kPlaneBytes;
  }
}

}  // namespace

}  // namespace fllm::kernels
