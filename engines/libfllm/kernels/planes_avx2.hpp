// What the AVX2 kernels of bit planes share: a block in two halves of eight rows.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/planes.hpp"

namespace fllm::kernels {

namespace {

inline __m256i limb_lanes(const std::int8_t* limb) {
  std::int32_t four;
  std::memcpy(&four, limb, sizeof four);
  return _mm256_set1_epi32(four);
}

// The numbers of 16 dimensions of eight rows, four dimensions a vector, of the bits that `mask` selects.
struct HalfGroup {
  __m256i dims[4];

  explicit HalfGroup(__m256i bits, char mask = 3) {
    const __m256i low_bits = _mm256_set1_epi8(mask);
    dims[0] = _mm256_and_si256(bits, low_bits);
    dims[1] = _mm256_and_si256(_mm256_srli_epi16(bits, 2), low_bits);
    dims[2] = _mm256_and_si256(_mm256_srli_epi16(bits, 4), low_bits);
    dims[3] = _mm256_and_si256(_mm256_srli_epi16(bits, 6), low_bits);
  }

  // Pairs of their products with a limb: four sums of at most 2 * 3 * 127 stay far within 16 bits.
  __m256i pairs(const std::int8_t* limb) const {
    const __m256i first = _mm256_maddubs_epi16(dims[0], limb_lanes(limb));
    const __m256i second = _mm256_maddubs_epi16(dims[1], limb_lanes(limb + 4));
    const __m256i third = _mm256_maddubs_epi16(dims[2], limb_lanes(limb + 8));
    const __m256i fourth = _mm256_maddubs_epi16(dims[3], limb_lanes(limb + 12));
    return _mm256_add_epi16(_mm256_add_epi16(first, second), _mm256_add_epi16(third, fourth));
  }
};

inline __m256i half_place(const std::uint8_t* packed) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
}

// The sums of numbers times each limb [16 groups], of the block's rows 0 to 7 and 8 to 15.
template <int Limbs, bool OneBit = false>
inline void plane_sums(const std::uint8_t* plane, std::size_t groups, const std::int8_t* const (&limbs)[Limbs],
                       __m256i (&sums)[Limbs][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int l = 0; l < Limbs; ++l) sums[l][0] = sums[l][1] = _mm256_setzero_si256();
  const auto add = [&](const HalfGroup& group, std::size_t g, int half) {
#pragma GCC unroll 2
    for (int l = 0; l < Limbs; ++l) {
      const __m256i pairs = group.pairs(limbs[l] + g * kPlaneDims);
      sums[l][half] = _mm256_add_epi32(sums[l][half], _mm256_madd_epi16(pairs, ones));
    }
  };
  for (std::size_t g = 0; g < groups; g += OneBit ? 2 : 1) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i bits = half_place(plane + half * kPlaneBytes / 2);
      add(HalfGroup(bits, OneBit ? 1 : 3), g, half);
      if (OneBit) add(HalfGroup(_mm256_srli_epi16(bits, 1), 1), g + 1, half);
    }
    plane += kPlaneBytes;
  }
}

}  // namespace

}  // namespace fllm::kernels
