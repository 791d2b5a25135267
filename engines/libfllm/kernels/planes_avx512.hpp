// What the AVX-512 kernels of bit planes share; instantiated in files of one instruction set each, hence in no
// namespace that another file could see.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/planes.hpp"

namespace fllm::kernels {

namespace {

// An address past the end of a tensor is harmless.
inline void prefetch_ahead(const void* position, std::uintptr_t bytes) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(position) + bytes), _MM_HINT_T0);
}

inline __m512i limb_lanes(const std::int8_t* limb) {
  std::int32_t four;
  std::memcpy(&four, limb, sizeof four);
  return _mm512_set1_epi32(four);
}

// Gives `add` the numbers of each group of a block's 16 rows, in the low bits of each two: numbers of two bits, or
// single bits, of which two groups share a place. Memory is asked for `Ahead` bytes before it is read.
template <bool OneBit, std::uintptr_t Ahead, class Add>
inline void each_group(const std::uint8_t* plane, std::size_t groups, const Add& add) {
  for (std::size_t g = 0; g < groups; g += OneBit ? 2 : 1) {
    const __m512i packed = _mm512_loadu_si512(plane);
    prefetch_ahead(plane, Ahead);
    add(packed, g);
    if (OneBit) add(_mm512_srli_epi16(packed, 1), g + 1);
    plane += kPlaneBytes;
  }
}

// The sums of numbers times each limb [16 groups], of a block's 16 rows, without dot-product instructions.
struct MultiplyAdd {
  template <int Limbs, std::uintptr_t Ahead, bool OneBit = false>
  static void sums(const std::uint8_t* plane, std::size_t groups, const std::int8_t* const (&limbs)[Limbs],
                   __m512i (&out)[Limbs]) {
    const __m512i low_bits = _mm512_set1_epi8(OneBit ? 1 : 3);
    for (__m512i& sum : out) sum = _mm512_setzero_si512();
    const auto add = [&](__m512i packed, std::size_t g) {
      const __m512i first = _mm512_and_si512(packed, low_bits);
      const __m512i second = _mm512_and_si512(_mm512_srli_epi16(packed, 2), low_bits);
      const __m512i third = _mm512_and_si512(_mm512_srli_epi16(packed, 4), low_bits);
      const __m512i fourth = _mm512_and_si512(_mm512_srli_epi16(packed, 6), low_bits);
#pragma GCC unroll 2
      for (int l = 0; l < Limbs; ++l) {
        const std::int8_t* part = limbs[l] + g * kPlaneDims;
        // Four products of at most 3 * 127 times two stay far within 16 bits.
        __m512i pairs = _mm512_maddubs_epi16(first, limb_lanes(part));
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(second, limb_lanes(part + 4)));
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(third, limb_lanes(part + 8)));
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(fourth, limb_lanes(part + 12)));
        out[l] = _mm512_add_epi32(out[l], _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
      }
    };
    each_group<OneBit, Ahead>(plane, groups, add);
  }
};

}  // namespace

}  // namespace fllm::kernels
