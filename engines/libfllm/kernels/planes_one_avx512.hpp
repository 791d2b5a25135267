// One item with rows in bit planes, on AVX-512; instantiated in files of one instruction set each.
#pragma once

#include "kernels/int8_layout.hpp"
#include "kernels/planes_avx512.hpp"

namespace fllm::kernels {

namespace {

// How far ahead of the loads memory is asked for: measured on Zen 4, where rows of 64 bytes come a tenth slower with
// 1536.
constexpr std::uintptr_t kRowsAhead = 4096;

// `Level::sums` gives the 16 rows' sums of numbers times limbs.
template <class Level>
void one_of(const PlaneBlocks& blocks, const void* packed_high, const void* packed_low, std::int32_t* high,
            std::int32_t* low) {
  const std::int8_t* const limbs[2] = {limb_of(packed_high), limb_of(packed_low)};
  std::int32_t* const out[2] = {high, low};
  const std::int32_t largest = largest_value(blocks.bits);
  const __m512i offsets[2] = {_mm512_set1_epi32(largest * limb_sum(packed_high)),
                              _mm512_set1_epi32(largest * limb_sum(packed_low))};
  for (std::size_t b = 0; b < blocks.count; ++b) {
    const std::uint8_t* block = block_of(blocks, b);
    __m512i sums[2], lower[2];
    if (blocks.bits == 1) {
      Level::template sums<2, kRowsAhead, true>(block, blocks.groups, limbs, sums);
    } else {
      Level::template sums<2, kRowsAhead>(block, blocks.groups, limbs, sums);
    }
    if (blocks.bits == 4) {
      Level::template sums<2, kRowsAhead>(block + plane_bytes(blocks), blocks.groups, limbs, lower);
      for (int l = 0; l < 2; ++l) sums[l] = _mm512_add_epi32(_mm512_slli_epi32(sums[l], 2), lower[l]);
    }
    for (int l = 0; l < 2; ++l) {
      const __m512i dot = _mm512_sub_epi32(_mm512_slli_epi32(sums[l], 1), offsets[l]);
      _mm512_storeu_si512(out[l] + b * kPlaneRows, dot);
    }
  }
}

}  // namespace

}  // namespace fllm::kernels
