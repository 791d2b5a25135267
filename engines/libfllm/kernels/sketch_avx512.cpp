// The sketch kernel of AVX-512 without its dot-product instructions.
#include "kernels/sketch_avx512.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

struct MultiplyAdd {
  static __m512i sums(const std::uint8_t* block, std::size_t groups, const std::int8_t* limb) {
    const __m512i low_bits = _mm512_set1_epi8(3);
    __m512i sums = _mm512_setzero_si512();
    for (std::size_t g = 0; g < groups; ++g) {
      const __m512i packed = _mm512_loadu_si512(block + g * kSketchGroupBytes);
      const std::int8_t* part = limb + g * kSketchGroupDims;
      // Four products of at most 3 * 127 times two stay far within 16 bits.
      __m512i pairs = _mm512_maddubs_epi16(_mm512_and_si512(packed, low_bits), limb_lanes(part));
      const __m512i second = _mm512_and_si512(_mm512_srli_epi16(packed, 2), low_bits);
      pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(second, limb_lanes(part + 4)));
      const __m512i third = _mm512_and_si512(_mm512_srli_epi16(packed, 4), low_bits);
      pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(third, limb_lanes(part + 8)));
      const __m512i fourth = _mm512_and_si512(_mm512_srli_epi16(packed, 6), low_bits);
      pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(fourth, limb_lanes(part + 12)));
      sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    return sums;
  }
};

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  bound_blocks<MultiplyAdd>(blocks, item, estimates, uppers);
}

}  // namespace

void fill_sketch_avx512(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels
