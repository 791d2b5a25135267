// What the AVX-512 VNNI kernels of bit planes share: one dot-product instruction for four dimensions of 16 rows.
#pragma once

#include "kernels/planes_avx512.hpp"

namespace fllm::kernels {

namespace {

struct DotProduct {
  // Numbers are multiplied where they lie in their bytes, without being shifted down: their sums come out 4, 16 and 64
  // times as large, and whole multiples of that.
  template <int Limbs, std::uintptr_t Ahead, bool OneBit = false>
  static void sums(const std::uint8_t* plane, std::size_t groups, const std::int8_t* const (&limbs)[Limbs],
                   __m512i (&out)[Limbs]) {
    __m512i parts[Limbs][4];
#pragma GCC unroll 2
    for (int l = 0; l < Limbs; ++l) parts[l][0] = parts[l][1] = parts[l][2] = parts[l][3] = _mm512_setzero_si512();
    constexpr int kMask = OneBit ? 1 : 3;
    const __m512i bits = _mm512_set1_epi8(kMask), bits4 = _mm512_set1_epi8(4 * kMask);
    const __m512i bits16 = _mm512_set1_epi8(16 * kMask), bits64 = _mm512_set1_epi8(static_cast<char>(64 * kMask));
    const auto add = [&](__m512i packed, std::size_t g) {
      const __m512i first = _mm512_and_si512(packed, bits), second = _mm512_and_si512(packed, bits4);
      const __m512i third = _mm512_and_si512(packed, bits16), fourth = _mm512_and_si512(packed, bits64);
#pragma GCC unroll 2
      for (int l = 0; l < Limbs; ++l) {
        const std::int8_t* part = limbs[l] + g * kPlaneDims;
        parts[l][0] = _mm512_dpbusd_epi32(parts[l][0], first, limb_lanes(part));
        parts[l][1] = _mm512_dpbusd_epi32(parts[l][1], second, limb_lanes(part + 4));
        parts[l][2] = _mm512_dpbusd_epi32(parts[l][2], third, limb_lanes(part + 8));
        parts[l][3] = _mm512_dpbusd_epi32(parts[l][3], fourth, limb_lanes(part + 12));
      }
    };
    each_group<OneBit, Ahead>(plane, groups, add);
#pragma GCC unroll 2
    for (int l = 0; l < Limbs; ++l) {
      const __m512i low = _mm512_add_epi32(parts[l][0], _mm512_srai_epi32(parts[l][1], 2));
      const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(parts[l][2], 4), _mm512_srai_epi32(parts[l][3], 6));
      out[l] = _mm512_add_epi32(low, high);
    }
  }
};

}  // namespace

}  // namespace fllm::kernels
